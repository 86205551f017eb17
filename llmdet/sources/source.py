"""What every source has in common: what it says of itself, and the items that it yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from llmdet.record import Record
from llmdet.rejects import Reject

Item = Record | Reject


@dataclass(frozen=True, slots=True)
class Category:
    """One class of a detection source, under the source's own id."""

    id: int
    name: str
    extra: dict[str, Any] = field(default_factory=dict)  # supercategory, synset, frequency, ...


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source says of itself; stored in the manifest of its records."""

    name: str
    format: str
    licence: str
    address: str
    images: str  # address of the image folder that record paths are relative to
    categories: tuple[Category, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)  # what was counted while reading

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> SourceInfo:
        categories = tuple(Category(**category) for category in value["categories"])
        return cls(**{**value, "categories": categories})


class Source(Protocol):
    """A reader of one format: a frozen dataclass whose fields are its whole configuration."""

    @property
    def name(self) -> str: ...

    def info(self) -> SourceInfo:
        """What the source says of itself. Raises FormatError or MissingError for a file it cannot read."""
        ...

    def read(self) -> Iterator[Item]:
        """Records in the order of the file, with a Reject for each thing left out."""
        ...
