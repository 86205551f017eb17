"""The records of a workspace, page by page: which there are of each source, and their photos.

An index of two numbers a record is made once; a page reads the parts that its records lie in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from llmdet import files
from llmdet.errors import MissingError, SettingError
from llmdet.images import open_image
from llmdet.record import Record, from_batch
from llmdet.workspace import Workspace, read_part
from pipelines.export import best_tables, info_of

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Shelf:
    """Parts of the tables that export would read, and for each source where its records are: (n, 2) of part, row."""

    workspace: Workspace
    parts: tuple[str, ...]
    places: dict[str, NDArray[np.int64]] = field(repr=False)

    @classmethod
    def of(cls, workspace: Workspace) -> Shelf:
        """The index of what is there now. Raises MissingError when nothing was ingested."""
        parts: list[str] = []
        places: dict[str, list[NDArray[np.int64]]] = {}
        for table in best_tables(workspace):
            for part in table.require("run the stage again").parts:
                url = files.join(table.url, part.name)
                sources = np.array(read_part(url, ["source"])["source"].to_pylist(), dtype=object)
                for source in sorted(set(sources.tolist())):
                    rows = np.flatnonzero(sources == source)
                    places.setdefault(source, []).append(np.column_stack([np.full_like(rows, len(parts)), rows]))
                parts.append(url)
        if not places:
            raise MissingError(f"no records in {workspace.url}; run: llmdet-data ingest")
        return cls(workspace, tuple(parts), {name: np.concatenate(found) for name, found in sorted(places.items())})

    @property
    def sources(self) -> list[str]:
        return list(self.places)

    def count(self, source: str | None = None) -> int:
        return sum(len(self._of(name)) for name in ([source] if source else self.sources))

    def page(self, source: str | None, number: int, size: int) -> list[Record]:
        """Records of page `number` (from 1), of one source or of all; none behind the last page."""
        names = [source] if source else self.sources
        places = np.concatenate([self._of(name) for name in names])[max(number - 1, 0) * size :][:size]
        found: list[Record] = []
        for part, row in places.tolist():
            found += from_batch(_part(self.parts[part]).slice(row, 1))
        return found

    def photo(self, record: Record) -> Image.Image:
        """The record's photo, from its root only. Raises ImageError where it cannot be used."""
        url = files.safe_join(info_of(self.workspace, record.root).images, record.image)
        return open_image(url, record.orientation)

    def _of(self, source: str) -> NDArray[np.int64]:
        if source not in self.places:
            raise SettingError(f"no source {source!r}; there are: {', '.join(self.sources)}")
        return self.places[source]


@lru_cache(maxsize=2)
def _part(url: str) -> pa.Table:
    return read_part(url)
