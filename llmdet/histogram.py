"""Histograms with fixed bins: small, exact to add up, and enough to draw a distribution from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Lower edges of histogram bins; the last edge closes the last bin, which also takes whatever lies above.
WORDS = tuple(float(n) for n in range(513))
CHARACTERS = tuple(float(n) for n in range(0, 4001, 10))
BOXES = tuple(float(n) for n in range(301))
SHARES = (0.0, *(10 ** (k / 4) for k in range(-20, 0)), 1.0)  # of the image's area, four bins a decade
ASPECTS = tuple(2 ** (k / 2) for k in range(-8, 9))  # width / height, two bins an octave


@dataclass(frozen=True)
class Histogram:
    """Counts of values in the bins `[edges[i], edges[i + 1])`; what lies outside goes to the first or last bin."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0  # sum of the values
    smallest: float | None = None
    largest: float | None = None

    @classmethod
    def of(cls, values: NDArray[Any], edges: tuple[float, ...]) -> Histogram:
        """Count `values`, of any number dtype and shape (n,)."""
        if not len(values):
            return cls(edges, (0,) * (len(edges) - 1))
        bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        counts = np.bincount(bins, minlength=len(edges) - 1)
        return cls(edges, tuple(counts.tolist()), float(values.sum()), float(values.min()), float(values.max()))

    def __add__(self, other: Histogram) -> Histogram:
        if self.edges != other.edges:
            raise ValueError("histograms with different edges cannot be added")
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        low = [v for v in (self.smallest, other.smallest) if v is not None]
        high = [v for v in (self.largest, other.largest) if v is not None]
        return Histogram(self.edges, counts, self.total + other.total, min(low, default=None), max(high, default=None))

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Exact mean, None when empty."""
        return self.total / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """Lower edge of the bin that holds the `q` quantile (exact where bins are one unit wide), None when empty."""
        if not self.count:
            return None
        below = np.cumsum(self.counts)
        return self.edges[int(np.searchsorted(below, max(q * self.count, 1)))]

    def to_dict(self) -> dict[str, Any]:
        """Summary and the bins that are not empty, as `[low, high, count]`."""
        bins = zip(self.edges, self.edges[1:], self.counts, strict=False)
        return {
            "count": self.count,
            "mean": self.mean,
            "median": self.quantile(0.5),
            "min": self.smallest,
            "max": self.largest,
            "bins": [[low, high, n] for low, high, n in bins if n],
        }
