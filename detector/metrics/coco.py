"""COCO's twelve figures for a list of detections, by faster-coco-eval: the figures of pycocotools, sooner."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.metrics.detections import Detections
from llmdet.errors import ExtraError, FormatError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Row = Mapping[str, Any]


def evaluate(truth: Mapping[str, Any], detections: Sequence[Row]) -> dict[str, float]:
    """Figures in 0..1, unrounded, by their official names; see `evaluate_classes`."""
    return evaluate_classes(truth, detections)[0]


def evaluate_classes(truth: Mapping[str, Any], detections: Sequence[Row]) -> tuple[dict[str, float], dict[str, float]]:
    """The twelve figures, and AP by the name of each category; -1 where the truth has no box of that kind.

    `truth` is an instances file as a dict (`images`, `annotations`, `categories`), `detections` are rows with
    `image_id`, `category_id`, `bbox` ([x, y, w, h] pixels) and `score`. Raises FormatError for anything else, and for
    detections on images that the truth does not have.
    """
    run = _run(truth, detections)
    figures = {name: float(value) for name, value in zip(NAMES, run.stats, strict=False)}
    return figures, _by_class(run.eval["precision"], run.params.catIds, truth)


def _by_class(precision: NDArray[np.float64], ids: Sequence[int], truth: Mapping[str, Any]) -> dict[str, float]:
    """Mean precision over thresholds and recalls, all areas, most detections; (T, R, K, A, M) comes in."""
    names = {category["id"]: str(category["name"]) for category in truth["categories"]}
    by_class = np.asarray(precision)[:, :, :, 0, -1]
    means = {names[number]: by_class[:, :, k] for k, number in enumerate(ids)}
    return {name: float(values[values > -1].mean()) if (values > -1).any() else -1.0 for name, values in means.items()}


def _run(truth: Mapping[str, Any], detections: Sequence[Row]) -> Any:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ExtraError.of("faster-coco-eval", "train") from error
    _check(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(_numbered(truth))
        found = reference.loadRes([_result(row) for row in detections]) if detections else COCO(_nothing(truth))
        run = COCOeval_faster(reference, found, iouType="bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def _check(truth: Mapping[str, Any], detections: Sequence[Row]) -> None:
    check_truth(truth)
    Detections.of(detections)
    known = {image["id"] for image in truth["images"]}
    for number, row in enumerate(detections):
        if row["image_id"] not in known:
            raise FormatError(f"detection {number} is on image {row['image_id']}, which the ground truth does not have")


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


def _numbered(truth: Mapping[str, Any]) -> dict[str, Any]:
    """The truth with annotations numbered from 1: id 0 means "unmatched" to the official tool, large ids overflow."""
    annotations = []
    for number, row in enumerate(truth["annotations"], 1):
        x, y, width, height = row["bbox"]
        annotations.append(
            {
                "id": number,
                "image_id": row["image_id"],
                "category_id": row["category_id"],
                "bbox": [float(x), float(y), float(width), float(height)],
                "area": float(width * height if row.get("area") is None else row["area"]),
                "iscrowd": int(row.get("iscrowd") or 0),
            }
        )
    return {**_nothing(truth), "annotations": annotations}


def _nothing(truth: Mapping[str, Any]) -> dict[str, Any]:
    images = [{"id": image["id"], "width": image["width"], "height": image["height"]} for image in truth["images"]]
    categories = [{"id": category["id"], "name": category["name"]} for category in truth["categories"]]
    return {"info": {}, "licenses": [], "images": images, "annotations": [], "categories": categories}


def _result(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("image_id", "category_id", "bbox", "score")}
