"""Result files scored by the rules of their task; no model, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from fsspec.core import url_to_fs

from detector.metrics import coco, flickr30k, lvis, refcoco
from detector.metrics.accumulator import Accumulator, Limits
from llmdet import files
from llmdet.errors import FormatError

Task = Literal["coco", "lvis", "lvis-fixed", "flickr30k", "refcoco"]
_STREAM_BYTES = 256 * 1024 * 1024  # a result file as dicts takes six times its size
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a result file is scored."""

    task: Task = "coco"
    top_k: int = 10_000  # of lvis-fixed: detections of each category that count, over all images
    protocol: refcoco.Protocol = "llmdet"  # of refcoco: what boxes are ranked by


@dataclass(frozen=True, slots=True)
class Figures:
    """By the official tool's names, 0..1, unrounded; `classes` by category, or by type of phrase."""

    metrics: dict[str, float]
    classes: dict[str, float]


def figures(rules: Rules, annotations: str, detections: str) -> Figures:
    """Score a result file against ground truth; both may be URLs, packed or not. Raises FormatError, MissingError."""
    if rules.task == "coco":
        return Figures(*coco.evaluate_classes(ground_truth(annotations), _rows(detections)))
    if rules.task == "refcoco":
        truth = files.read_json(files.absolute(annotations))
        if not isinstance(truth, dict):
            raise FormatError(f"{annotations} is not RefCOCO ground truth: expected MDETR's json, an object")
        return Figures(refcoco.evaluate(truth, _rows(detections), rules.protocol), {})
    if rules.task == "flickr30k":
        return _flickr30k(annotations, _rows(detections))
    limits = lvis.STANDARD if rules.task == "lvis" else Limits(per_category=rules.top_k)
    return _lvis(lvis.Truth.of(ground_truth(annotations)), detections, limits)


def ground_truth(annotations: str) -> dict[str, Any]:
    """A file in COCO's or LVIS's form. Raises FormatError where it is none, or has no category."""
    truth = files.read_json(files.absolute(annotations))
    if not isinstance(truth, dict) or not all(
        isinstance(truth.get(key), list) for key in ("images", "annotations", "categories")
    ):
        raise FormatError(f"{annotations} is not COCO ground truth: expected the lists images, annotations, categories")
    if not truth["categories"]:
        raise FormatError(f"{annotations} has an empty list of categories, so there is nothing to look for")
    return truth


def _lvis(truth: lvis.Truth, detections: str, limits: Limits) -> Figures:
    found = Accumulator(limits)
    for rows in _pieces(detections):
        found.add(rows)
    result = lvis.score(truth, found)
    return Figures(result.figures, result.classes)


def _flickr30k(annotations: str, predictions: list[Any]) -> Figures:
    photos = {str(row["image_id"]) for row in predictions if isinstance(row, Mapping) and "image_id" in row}
    truth = flickr30k.read(files.absolute(annotations), predicted=photos)
    flat = {
        (kind, rank, type_): value
        for kind, ranks in flickr30k.evaluate(truth, predictions).items()
        for rank, types in ranks.items()
        for type_, value in types.items()
    }
    return Figures(
        {f"{kind}/{rank}": value for (kind, rank, type_), value in flat.items() if type_ == "all"},
        {f"{kind}/{rank}/{type_}": value for (kind, rank, type_), value in flat.items() if type_ != "all"},
    )


def _rows(detections: str) -> list[Any]:
    rows = files.read_json(files.absolute(detections))
    if not isinstance(rows, list):
        raise FormatError(
            f"{detections} is not a COCO result file: expected a list of detections; got {type(rows).__name__}"
        )
    return rows


def _pieces(detections: str) -> Iterator[list[Any]]:
    """The rows of a result file in pieces; a large file is not held as a whole."""
    fs, path = url_to_fs(files.absolute(detections))
    if fs.exists(path) and fs.size(path) <= _STREAM_BYTES:
        yield _rows(detections)
        return
    rows = files.iter_json_list(files.absolute(detections))
    while piece := list(islice(rows, _ROWS_AT_ONCE)):
        yield piece
