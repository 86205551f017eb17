"""RefCOCO, RefCOCO+ and RefCOCOg: how often the box that an expression means is among the best 1, 5 and 10.

Truth is MDETR's json, one image row and one annotation for each expression (`finetune_refcoco+_testB.json`); figures
have the names of mmdet's RefExpMetric, `refcoco+_precision@1`. gRefCOCO, with no or several boxes, is another task.

What differs between published numbers is how boxes are ranked:

- `mm_grounding_dino`: by score.
- `llmdet`: words of place in the expression first add to the score: `left` 1 + 0.7 (1 - x), `right` 1 + 0.7 x, `top` or
  `upper` 1 + 0.7 (1 - y), `under` or `bottom` 1 + 0.7 y, with x and y the centre of the box in 0..1 of the photo.
  Words are looked for as letters, as upstream does: "bright" has a `right`, "stop sign" a `top`. Scores may exceed 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from detector.metrics.detections import Detections, Floats, Row
from llmdet.boxes import Boxes, from_xywh, iou
from llmdet.errors import FormatError, SettingError

Protocol = Literal["llmdet", "mm_grounding_dino"]
RANKS = (1, 5, 10)
LEAST_IOU = 0.5
REACH = 0.7  # what place adds at most, beside the 1 that each direction adds to every box


@dataclass(frozen=True, slots=True)
class Expression:
    """A text, the xyxy box it means, and the size of its photo."""

    text: str
    box: Boxes  # (1, 4)
    width: float
    height: float
    dataset: str


@dataclass
class Tally:
    """Expressions in all and those found at each rank, by data set; those of several workers add up."""

    protocol: Protocol = "llmdet"
    total: Counter[str] = field(default_factory=Counter)
    found: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, expression: Expression, boxes: Boxes, scores: Floats) -> None:
        """Count an expression with its boxes, xyxy in pixels of the photo, in any order, (n, 4) and (n,)."""
        best = boxes[np.argsort(-ranking(expression, boxes, scores, self.protocol), kind="stable")[: max(RANKS)]]
        hits = iou(best, expression.box)[:, 0] >= LEAST_IOU
        self.total[expression.dataset] += 1
        for rank in RANKS:
            self.found[expression.dataset, rank] += bool(hits[:rank].any())

    def merge(self, other: Tally) -> None:
        """Take over what another worker has counted. Raises ValueError where it ranks otherwise."""
        if other.protocol != self.protocol:
            raise ValueError(f"tallies of different protocols cannot be merged: {self.protocol}, {other.protocol}")
        self.total.update(other.total)
        self.found.update(other.found)

    def figures(self) -> dict[str, float]:
        """Share of expressions found, 0..1, as `<data set>_precision@<rank>`."""
        return {
            f"{name}_precision@{rank}": self.found[name, rank] / total
            for name, total in sorted(self.total.items())
            for rank in RANKS
        }


def evaluate(
    truth: Mapping[str, Any], detections: Iterable[Row] | Detections, protocol: Protocol = "llmdet"
) -> dict[str, float]:
    """Figures of a result file in COCO's form, whose image_id is the id of the expression's image row.

    An expression without detections is not found. Raises FormatError, and SettingError for an unknown protocol.
    """
    if protocol not in get_args(Protocol):
        raise SettingError(f"the protocols of RefCOCO are {', '.join(get_args(Protocol))}; got {protocol!r}")
    expressions = read(truth)
    rows = detections if isinstance(detections, Detections) else Detections.of(list(detections))
    by_image = dict(rows.grouped(rows.image))
    if strange := by_image.keys() - expressions.keys():
        raise FormatError(f"a detection is on image {min(strange)}, which the ground truth does not have")
    tally, none = Tally(protocol), Detections.of([])
    for number, expression in expressions.items():
        own = by_image.get(number, none)
        tally.add(expression, from_xywh(own.box), own.score)
    return tally.figures()


def read(truth: Mapping[str, Any]) -> dict[int, Expression]:
    """Expressions of MDETR's json by the id of their image row. Raises FormatError."""
    if not all(isinstance(truth.get(name), list) for name in ("images", "annotations")):
        raise FormatError("RefCOCO ground truth needs the lists images and annotations, as MDETR's json has them")
    meant: dict[int, list[Any]] = {}
    for row in truth["annotations"]:
        meant.setdefault(row["image_id"], []).append(row["bbox"])
    return {row["id"]: _expression(row, meant.get(row["id"], [])) for row in truth["images"]}


def ranking(expression: Expression, boxes: Boxes, scores: Floats, protocol: Protocol) -> Floats:
    """What boxes are ordered by, (n,)."""
    if protocol == "mm_grounding_dino":
        return scores
    return scores + spatial_bias(expression.text, boxes, expression.width, expression.height)


def spatial_bias(text: str, boxes: Boxes, width: float, height: float) -> Floats:
    """What LLMDet adds to the score of each xyxy box for words of place, (n,); see the head of this file."""
    x = (boxes[:, 0] + boxes[:, 2]) / 2 / width
    y = (boxes[:, 1] + boxes[:, 3]) / 2 / height
    bias = np.zeros(len(boxes))
    for words, nearness in ((("left",), 1 - x), (("right",), x), (("top", "upper"), 1 - y), (("under", "bottom"), y)):
        if any(word in text for word in words):
            bias += 1 + REACH * nearness
    return bias


def _expression(row: Mapping[str, Any], boxes: list[Any]) -> Expression:
    identity = row.get("id", "?")
    if len(boxes) != 1:
        raise FormatError(f"image {identity} has {len(boxes)} boxes; an expression of RefCOCO means exactly one")
    try:
        width, height = float(row["width"]), float(row["height"])  # some of MDETR's files have them as strings
        box = from_xywh(np.array(boxes, np.float64).reshape(1, 4))
        return Expression(str(row["caption"]), box, width, height, str(row["dataset_name"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"image {identity} is no expression: it needs caption, dataset_name, width, height and a bbox "
            f"({type(error).__name__}: {error})"
        ) from error
