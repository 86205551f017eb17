"""Benchmarks that are several COCO sets: the twelve figures of each, and the mean AP that is quoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detector.metrics import coco
from llmdet.errors import FormatError

Sets = Mapping[str, tuple[Mapping[str, Any], Sequence[coco.Row]]]


def evaluate(names: Sequence[str], sets: Sets, what: str) -> dict[str, float]:
    """`<set>/AP` and so on for each set, and `AP`, their mean, 0..1; `sets` holds (truth, detections) by name.

    Raises FormatError where a set is missing or unknown: a mean over some sets is not the figure that others quote.
    """
    missing, strange = [name for name in names if name not in sets], [name for name in sets if name not in names]
    if missing or strange:
        parts = [f"without {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(strange)}"] * bool(strange)
        raise FormatError(f"{what} is the mean of {len(names)} sets; {'; '.join(parts)}")
    figures = {name: coco.evaluate(*sets[name]) for name in names}
    flat = {f"{name}/{figure}": value for name, own in figures.items() for figure, value in own.items()}
    return {"AP": mean({name: own["AP"] for name, own in figures.items()})} | flat


def mean(by_set: Mapping[str, float]) -> float:
    """Plain mean over sets, whatever their sizes. Raises FormatError for a set without any true box."""
    if empty := [name for name, value in by_set.items() if value < 0]:
        raise FormatError(f"no true boxes in {', '.join(empty)}, so there is no mean")
    return sum(by_set.values()) / len(by_set)
