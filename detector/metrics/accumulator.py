"""Detections of a set as its workers gather them: cut as soon as a protocol allows, merged without a difference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from detector.metrics.detections import Detections, Row, best

_ROWS_AT_ONCE = 500_000
_PENDING_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Which detections count; None is no limit."""

    per_image: int | None = None  # best of each image, all categories together
    per_category: int | None = None  # best of each category, all images together


@dataclass
class Accumulator:
    """Detections of a set or of a part of it, cut as soon as the limits allow; picklable.

    Any partition of the images gives the same figures, as long as the places of rows are those of one result file.
    """

    limits: Limits
    rows: int = 0  # that were added
    _kept: dict[int, list[Detections]] = field(default_factory=dict)
    _pending: list[Detections] = field(default_factory=list)
    _pending_rows: int = 0

    def add(self, rows: Iterable[Row] | Detections, first: int | None = None) -> None:
        """More detections; `first` is the place of the first one, by default behind all that came before.

        Places settle which of two equal scores is cut. A worker that sees every k-th image gives, for example, the
        number of the image times a million. Raises FormatError for a row that is no detection.
        """
        if not isinstance(rows, Detections):
            rows = Detections.of(rows if isinstance(rows, list) else list(rows), self.rows if first is None else first)
        self.rows += len(rows)
        if self.limits.per_image is not None:
            rows = best(rows, rows.image, self.limits.per_image)
        self._pending.append(rows)
        self._pending_rows += len(rows)
        if self._pending_rows >= _PENDING_ROWS:
            self._settle()

    def merge(self, other: Accumulator) -> None:
        """Take over what another worker has. Raises ValueError where its limits are others."""
        if other.limits != self.limits:
            raise ValueError(f"accumulators with different limits cannot be merged: {self.limits}, {other.limits}")
        for part in other.blocks():
            self._pending.append(part)
            self._pending_rows += len(part)
            if self._pending_rows >= _PENDING_ROWS:
                self._settle()
        self.rows += other.rows

    def blocks(self) -> Iterator[Detections]:
        """What is left, by ascending category; each block holds whole categories."""
        self._settle()
        if self.limits.per_image is not None:
            self._cut_images(self.limits.per_image)
        waiting: list[Detections] = []
        size = 0
        for category in sorted(self._kept):
            own = sum(map(len, self._kept[category]))
            if waiting and size + own > _ROWS_AT_ONCE:
                yield Detections.joined(waiting)
                waiting, size = [], 0
            waiting += self._kept[category]
            size += own
        if waiting:
            yield Detections.joined(waiting)

    def joined(self) -> Detections:
        """All that is left, in the order of places."""
        rows = Detections.joined([*self.blocks()])
        return rows.take(np.argsort(rows.place, kind="stable"))

    def _settle(self) -> None:
        """Sort what is pending into its categories, and cut these."""
        pending, self._pending, self._pending_rows = Detections.joined(self._pending), [], 0
        for category, rows in pending.grouped(pending.category):
            parts = [*self._kept.get(category, []), rows]
            if (count := self.limits.per_category) is not None and sum(map(len, parts)) > count:
                joined = Detections.joined(parts)
                parts = [best(joined, joined.category, count)]
            self._kept[category] = parts

    def _cut_images(self, count: int) -> None:
        """An image whose rows came in several calls may have too many."""
        rows = Detections.joined([part for parts in self._kept.values() for part in parts])
        left = best(rows, rows.image, count)
        if len(left) < len(rows):
            self._kept = {category: [part] for category, part in left.grouped(left.category)}
