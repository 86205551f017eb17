"""One numbered list of names for the formats whose boxes have a class number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmdet.errors import FormatError
from llmdet.record import Record, Region
from llmdet.sources.source import Category, SourceInfo


@dataclass(frozen=True, slots=True)
class _Key:
    source: str
    category_id: int


class Vocabulary:
    """Categories of the sources in order of id, then the phrases of regions without a category, as they come.

    One source with categories keeps its ids and its spelling (`bow_(weapon)` where texts say `bow`), and two of its ids
    may have the same name. Of several sources, equal names are one class, and ids count from 1.
    """

    def __init__(self, sources: Mapping[str, SourceInfo]) -> None:
        having = {name: info for name, info in sources.items() if info.categories}
        self._single = len(having) == 1
        self._sources = set(having)
        self._categories: list[Category] = []
        self._by_name: dict[str, int] = {}
        self._by_key: dict[_Key, int] = {}
        for name, info in having.items():
            for category in sorted(info.categories, key=lambda category: category.id):
                self._by_key[_Key(name, category.id)] = self._add(category)

    def __len__(self) -> int:
        return len(self._categories)

    @property
    def names(self) -> list[str]:
        """Names by index."""
        return [category.name for category in self.categories]

    @property
    def categories(self) -> list[Category]:
        """Categories by index, with the ids that the output shall have, one source's under its own spelling."""
        if self._single:
            return [_as_published(category) for category in self._categories]
        return [Category(index + 1, known.name) for index, known in enumerate(self._categories)]

    def id_at(self, index: int) -> int:
        """The id of the category at an index, as `categories` has it."""
        return self._categories[index].id if self._single else index + 1

    def name_at(self, index: int) -> str:
        """The name of a category at an index, as `names` has it."""
        known = self._categories[index]
        return _as_published(known).name if self._single else known.name

    def of_source(self, source: str) -> dict[int, int]:
        """Category id to index for one source, ascending; empty for a source without categories."""
        return {key.category_id: index for key, index in self._by_key.items() if key.source == source}

    def index(self, record: Record, region: Region) -> int:
        """The index of a region's class; a region without category id is classed by its first phrase in lower case.

        Raises FormatError for a category id that its source does not have.
        """
        if region.category_id is not None and record.source in self._sources:
            try:
                return self._by_key[_Key(record.source, region.category_id)]
            except KeyError:
                raise unknown_category(record.source, region.category_id) from None
        return self._of_phrase(region.phrases[0])

    def _of_phrase(self, phrase: str) -> int:
        name = phrase.lower()
        known = self._by_name.get(name)
        if known is not None:
            return known
        following = max((category.id for category in self._categories), default=0) + 1
        return self._add(Category(following, name))

    def _add(self, category: Category) -> int:
        known = self._by_name.get(category.name)
        if known is not None and not self._single:
            return known
        self._categories.append(category)
        self._by_name.setdefault(category.name, len(self._categories) - 1)
        return len(self._categories) - 1


def unknown_category(source: str, category_id: int) -> FormatError:
    """The error for a record that names a category which its source does not list."""
    return FormatError(f"a record of {source} has the category id {category_id}, which {source} does not list")


def _as_published(category: Category) -> Category:
    extra = dict(category.extra)
    return Category(category.id, extra.pop("original_name", category.name), extra)
