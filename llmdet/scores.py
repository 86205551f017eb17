"""Evaluation figures as a report shows them: before and after training, over all and class by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmdet import charts
from llmdet.markup import Html, Number, element, table

_OPEN_CLASSES = 12  # classes listed without a click


@dataclass(frozen=True)
class ClassScore:
    """AP of one class, 0..1 (NaN or negative where there was nothing to find), before training too where known."""

    name: str
    ap: float
    before: float | None = None
    boxes: int | None = None  # in the ground truth


@dataclass(frozen=True)
class Evaluation:
    """Metrics by their official names, 0..1; `before` holds those of the untrained model."""

    name: str
    metrics: Mapping[str, float]
    before: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[ClassScore, ...] = ()


def render(evaluation: Evaluation) -> Html:
    """Tables of the metrics and of the classes, best class first."""
    before = evaluation.before
    rows = [(name, before.get(name), value) for name, value in evaluation.metrics.items()]
    parts = [element("h3", evaluation.name), _scores("metric", rows)]
    if evaluation.classes:
        ordered = sorted(evaluation.classes, key=lambda score: (-_value(score.ap), score.name))
        counts = [score.boxes for score in ordered]
        classes = _scores("class", [(score.name, score.before, score.ap) for score in ordered], counts)
        summary = element("summary", f"AP of {len(ordered)} classes")
        parts.append(element("details", summary, classes, open=len(ordered) <= _OPEN_CLASSES))
    return element("div", *parts, class_="evaluation")


def written(score: float) -> str:
    """A score with three decimals, or a word where there was nothing to measure."""
    return f"{score:.3f}" if _value(score) >= 0 else "none"


def _scores(kind: str, rows: Sequence[tuple[str, float | None, float]], counts: Sequence[int | None] = ()) -> Html:
    """A table of names with scores; columns that nobody has a value for are left out."""
    known = any(before is not None for _, before, _ in rows)
    counted = any(count is not None for count in counts)
    cells: list[list[object]] = []
    for i, (name, before, after) in enumerate(rows):
        row: list[object] = [name, *([Number("" if before is None else written(before))] if known else [])]
        row += [Number(written(after)), _bar(before, after)]
        cells.append(row + ([Number("" if counts[i] is None else f"{counts[i]:,}")] if counted else []))
    head = [kind, *(["before", "after"] if known else ["value"]), "", *(["boxes"] if counted else [])]
    return table(head, cells)


def _bar(before: float | None, after: float) -> Html:
    if _value(after) < 0:
        return Html()
    return charts.share(after, before if before is not None and _value(before) >= 0 else None)


def _value(score: float) -> float:
    """A score, or -1 where there was nothing to measure."""
    return score if math.isfinite(score) else -1.0
