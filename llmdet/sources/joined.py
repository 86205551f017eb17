"""One source with the texts of each image joined: LLMDet's GoldG, 769 thousand records to 437 thousand.

No format of its own: `base` is read with its reader, `llmdet.joining` joins what it yields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from llmdet.joining import JoinReport, SameImage, join_items
from llmdet.sources.source import Item, Source, SourceInfo


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Reads `base` under its own name. What was joined is counted in the notes of `info`, once `read` is through."""

    base: Source
    rule: SameImage = field(default_factory=SameImage)
    gather: bool = True  # texts of an image meet wherever they stand in the file
    report: JoinReport = field(default_factory=JoinReport, compare=False, repr=False)

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
        counted = {"before": self.report.before, "after": self.report.after, "conflicts": dict(self.report.conflicts)}
        said = self.base.info()
        return replace(said, notes={**said.notes, "joined": {"images": self.report.images, **counted}})

    def read(self) -> Iterator[Item]:
        return join_items(self.base.read(), self.rule, self.report, gather=self.gather)
