"""COCO's twelve figures for a list of detections, by faster-coco-eval: the figures of pycocotools, sooner."""

from __future__ import annotations

import contextlib
import io
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.metrics.accumulator import Accumulator, Limits
from detector.metrics.detections import Detections, Floats
from llmdet.errors import ExtraError, FormatError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Row = Mapping[str, Any]
_ROWS_AT_ONCE = 100_000  # detections that are dicts at the same time; as columns they take a tenth


@dataclass(frozen=True, eq=False)
class Result:
    """The twelve figures, AP by category name, and the curves that they are means of; -1 where nothing is to find."""

    figures: dict[str, float]
    classes: dict[str, float]
    precision: Floats  # (T thresholds, R recalls, K categories by id, A areas), most detections
    recall: Floats  # (T, K, A, M most detections)


def evaluate(truth: Mapping[str, Any], detections: Sequence[Row] | Accumulator) -> dict[str, float]:
    """Figures in 0..1, unrounded, by their official names; see `score`."""
    return score(truth, detections).figures


def evaluate_classes(truth: Mapping[str, Any], detections: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """The twelve figures, and AP by the name of each category; see `score`."""
    result = score(truth, detections)
    return result.figures, result.classes


def score(truth: Mapping[str, Any], detections: Sequence[Row] | Accumulator) -> Result:
    """Everything about a list of detections, worked on by groups of categories, which do not touch each other.

    `truth` is an instances file as a dict (`images`, `annotations`, `categories`), `detections` are rows with
    `image_id`, `category_id`, `bbox` ([x, y, w, h] pixels) and `score`, or what an accumulator holds. Raises
    FormatError for anything else, and for detections on images that the truth does not have.
    """
    check_truth(truth)
    if not isinstance(detections, Accumulator):
        rows, detections = detections, Accumulator(Limits())
        detections.add(rows)
    categories = sorted({category["id"] for category in truth["categories"]})
    precision, recall = [], []
    for ids, own in _groups(categories, detections):
        part_precision, part_recall = _group(truth, ids, own)
        precision.append(part_precision)
        recall.append(part_recall)
    if not categories:
        raise FormatError("the ground truth has no category, so there is nothing to score")
    joined = np.concatenate(precision, axis=2), np.concatenate(recall, axis=1)
    names = {category["id"]: str(category["name"]) for category in truth["categories"]}
    classes = {names[number]: _mean(joined[0][:, :, k, 0, -1]) for k, number in enumerate(categories)}
    return Result(_figures(*joined), classes, joined[0][..., -1], joined[1])


def _groups(categories: list[int], found: Accumulator) -> Iterator[tuple[list[int], Detections]]:
    """All categories in runs, each with its detections; a detection of an unknown category does not count."""
    first, waiting = 0, [Detections.of([])]
    for block in found.blocks():
        for category, rows in block.grouped(block.category):
            at = bisect_left(categories, category)
            if at == len(categories) or categories[at] != category:
                continue
            if at > first and sum(map(len, waiting)) + len(rows) > _ROWS_AT_ONCE:
                yield categories[first:at], Detections.joined(waiting)
                first, waiting = at, []
            waiting.append(rows)
    yield categories[first:], Detections.joined(waiting)


def _group(truth: Mapping[str, Any], ids: list[int], rows: Detections) -> tuple[Floats, Floats]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M) of some categories, by the official tool."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ExtraError.of("faster-coco-eval", "train") from error
    known = {image["id"] for image in truth["images"]}
    strange = next((number for number in np.unique(rows.image).tolist() if number not in known), None)
    if strange is not None:
        raise FormatError(f"a detection is on image {strange}, which the ground truth does not have")
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(_numbered(truth, set(ids)))
        found = reference.loadRes(_results(rows)) if len(rows) else COCO(_nothing(truth, set(ids)))
        run = COCOeval_faster(reference, found, iouType="bbox")
        run.evaluate()
        run.accumulate()
    precision, recall = (np.asarray(run.eval[name], np.float64) for name in ("precision", "recall"))
    return precision, recall


def _figures(precision: Floats, recall: Floats) -> dict[str, float]:
    every = precision[..., 0, -1]
    values = [every, every[0], every[5], *(precision[..., area, -1] for area in (1, 2, 3))]
    values += [recall[..., 0, most] for most in range(3)] + [recall[..., area, -1] for area in (1, 2, 3)]
    return dict(zip(NAMES, map(_mean, values), strict=True))


def _mean(values: Floats) -> float:
    """Of the values that exist; -1 where none does."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else -1.0


# What the official tool reads of each row, and what it must be.
_NEEDED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": int, "width": (int, float), "height": (int, float)},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
    "categories": {"id": int, "name": str},
}


def check_truth(truth: Mapping[str, Any]) -> None:
    """Raises FormatError with the first row of ground truth that cannot be scored."""
    missing = [name for name in _NEEDED if not isinstance(truth.get(name), list)]
    if missing:
        raise FormatError(f"a COCO instances file needs the lists {', '.join(_NEEDED)}; missing: {missing}")
    for part, needed in _NEEDED.items():
        for number, row in enumerate(truth[part]):
            for key, kind in needed.items():
                if not isinstance(row, Mapping) or not isinstance(row.get(key), kind):
                    raise FormatError(f"ground truth: {part}[{number}] has no usable {key}: {str(row)[:120]}")
    for number, row in enumerate(truth["annotations"]):
        if len(row["bbox"]) != 4 or not all(isinstance(v, int | float) for v in row["bbox"]):
            raise FormatError(f"ground truth: annotations[{number}] needs four numbers as bbox, got {row['bbox']}")


def _numbered(truth: Mapping[str, Any], ids: Container[int]) -> dict[str, Any]:
    """The truth of some categories with annotations numbered from 1: id 0 means "unmatched" to the official tool, large
    ids overflow."""
    annotations: list[dict[str, Any]] = []
    for row in truth["annotations"]:
        if row["category_id"] in ids:
            x, y, width, height = row["bbox"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": row["image_id"],
                    "category_id": row["category_id"],
                    "bbox": [float(x), float(y), float(width), float(height)],
                    "area": float(width * height if row.get("area") is None else row["area"]),
                    "iscrowd": int(row.get("iscrowd") or 0),
                }
            )
    return {**_nothing(truth, ids), "annotations": annotations}


def _nothing(truth: Mapping[str, Any], ids: Container[int]) -> dict[str, Any]:
    images = [{"id": image["id"], "width": image["width"], "height": image["height"]} for image in truth["images"]]
    categories = [{"id": row["id"], "name": row["name"]} for row in truth["categories"] if row["id"] in ids]
    return {"info": {}, "licenses": [], "images": images, "annotations": [], "categories": categories}


def _results(rows: Detections) -> list[dict[str, Any]]:
    """In the order of the result file, which settles which of two equal scores comes first."""
    rows = rows.take(np.argsort(rows.place, kind="stable"))
    columns = (rows.image.tolist(), rows.category.tolist(), rows.box.tolist(), rows.score.tolist())
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(*columns, strict=True)
    ]
