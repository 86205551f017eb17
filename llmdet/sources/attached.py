"""One source with the captions and phrases of others attached: LLMDet's COCO part.

No format of its own: `base` is read with its reader, the givers (ShareGPT4V, All-Seeing V2) with theirs. COCO 2017
train with both gives some 210,000 records. The givers are read first and kept in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from llmdet.attaching import AttachSettings, attach_all
from llmdet.sources.source import Item, Source, SourceInfo


@dataclass(frozen=True, kw_only=True)
class Attached:
    """Reads `base` under its own name, one record for each caption that the givers have of its photo."""

    base: Source
    givers: tuple[Source, ...]
    settings: AttachSettings = field(default_factory=AttachSettings)

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def annotations(self) -> str:
        return str(getattr(self.base, "annotations", ""))

    @property
    def images(self) -> str:
        return str(getattr(self.base, "images", ""))

    def info(self) -> SourceInfo:
        """What `base` says of itself; the notes hold licence and address of those whose captions its records carry."""
        said = self.base.info()
        given = {
            giver.name: {"licence": getattr(giver, "licence", ""), "address": getattr(giver, "address", "")}
            for giver in self.givers
        }
        return replace(said, notes={**said.notes, "attached": given})

    def read(self) -> Iterator[Item]:
        given = itertools.chain.from_iterable(giver.read() for giver in self.givers)
        return attach_all(self.base.read(), given, self.settings)
