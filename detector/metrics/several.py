"""Benchmarks that are several COCO sets: the twelve figures of each, and the mean AP that is quoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detector.metrics import coco
from detector.metrics.accumulator import Accumulator
from llmdet.errors import FormatError

Sets = Mapping[str, tuple[Mapping[str, Any], Sequence[coco.Row] | Accumulator]]


def evaluate(names: Sequence[str], sets: Sets, what: str) -> dict[str, float]:
    """`<set>/AP` and so on for each set, and `AP`, their mean, 0..1; `sets` holds (truth, detections) by name.

    Raises FormatError where a set is missing or unknown: a mean over some sets is not the figure that others quote.
    """
    figures = {name: coco.evaluate(*sets[name]) for name in names if name in sets}
    return joined(names, figures | {name: {} for name in sets if name not in names}, what)


def joined(names: Sequence[str], figures: Mapping[str, Mapping[str, float]], what: str) -> dict[str, float]:
    """The same from the figures of each set."""
    missing = [name for name in names if name not in figures]
    strange = [name for name in figures if name not in names]
    if missing or strange:
        parts = [f"without {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(strange)}"] * bool(strange)
        raise FormatError(f"{what} is the mean of {len(names)} sets; {'; '.join(parts)}")
    flat = {f"{name}/{figure}": value for name in names for figure, value in figures[name].items()}
    return {"AP": mean({name: figures[name]["AP"] for name in names})} | flat


def mean(by_set: Mapping[str, float]) -> float:
    """Plain mean over sets, whatever their sizes. Raises FormatError for a set without any true box."""
    if empty := [name for name, value in by_set.items() if value < 0]:
        raise FormatError(f"no true boxes in {', '.join(empty)}, so there is no mean")
    return sum(by_set.values()) / len(by_set)
