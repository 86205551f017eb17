"""The worst mistakes of a detector: its surest false positives, and the true boxes that it came least near to."""

# N detections   G true boxes   K categories   I images

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.metrics import lvis
from detector.metrics.accumulator import Accumulator
from detector.metrics.detections import Detections, Floats, Ints
from detector.metrics.matching import overlapping
from llmdet.boxes import from_xywh, iou

LEAST_IOU = 0.5
_CANDIDATES = 300  # false positives looked at more closely, in each block of categories


@dataclass(frozen=True, slots=True)
class Mistake:
    """A box of an image, xywh: one that was found and is false, or a true one that was missed.

    `score` is its own, or that of the best box found for it (-1: none). `other` is the category of a true box at the
    same place as a false one, None where there is nothing like it.
    """

    image: int
    category: int
    box: tuple[float, float, float, float]
    score: float
    other: int | None = None


@dataclass(frozen=True, eq=False)
class _Truth:
    """True boxes by category and image, and which categories are known of an image (K, I), None where all are."""

    categories: Ints
    images: Ints
    key: Ints  # category number * I + image number, ascending, (G,)
    box: Floats  # (G, 4)
    extra: NDArray[np.bool_]  # crowds, and what does not count, (G,)
    sure: NDArray[np.bool_] | None  # a box without a true one is false, (K, I)


def worst(truth: Mapping[str, Any], found: Accumulator, count: int) -> tuple[list[Mistake], list[Mistake]]:
    """At most `count` false positives, most confident first, and missed boxes; no two of a kind in one image.

    `truth` is a file of COCO or LVIS. A second box on a true one is no mistake here, nor one on a crowd.
    """
    known = _lvis(truth) if truth["images"] and "neg_category_ids" in truth["images"][0] else _coco(truth)
    best_G = np.full(len(known.key), -1.0)
    candidates = [Detections.of([])]
    for rows in found.blocks():
        candidates.append(_false(known, rows, best_G))
    false = Detections.joined(candidates)
    order = np.argsort(-false.score, kind="stable")
    return list(_first(_false_mistakes(known, false.take(order)), count)), list(_first(_missed(known, best_G), count))


def _false(known: _Truth, rows: Detections, best_G: Floats) -> Detections:
    """The surest detections that no true box of their category explains; notes in `best_G` what found the others."""
    columns = len(known.images)
    category, image = np.searchsorted(known.categories, rows.category), np.searchsorted(known.images, rows.image)
    there = (category < len(known.categories)) & (image < columns)
    there[there] &= (known.categories[category[there]] == rows.category[there]) & (
        known.images[image[there]] == rows.image[there]
    )
    rows, category, image = rows.take(there), category[there], image[there]
    key = category * columns + image
    first, end = (np.searchsorted(known.key, key, side) for side in ("left", "right"))
    pairs = overlapping(rows.box, known.box, first, end - first, LEAST_IOU)
    np.maximum.at(best_G, pairs.truth_P, rows.score[pairs.detection_P])
    alone = np.ones(len(rows), bool)
    alone[pairs.detection_P] = False
    if known.sure is not None:
        alone &= known.sure[category, image]
    left = np.flatnonzero(alone)
    return rows.take(left[np.argsort(-rows.score[left], kind="stable")[:_CANDIDATES]])


def _false_mistakes(known: _Truth, rows: Detections) -> Iterator[Mistake]:
    for image, category, box, score in zip(rows.image, rows.category, rows.box, rows.score, strict=True):
        near = known.key % len(known.images) == np.searchsorted(known.images, image)
        own = from_xywh(box[None])
        true, group = from_xywh(known.box[near]), known.categories[known.key[near] // len(known.images)]
        crowd = known.extra[near] & (group == category)
        if crowd.any() and (_covered(own[0], true[crowd]) >= LEAST_IOU).any():
            continue
        same = iou(own, true)[0]
        at = int(same.argmax()) if len(same) else 0
        other = int(group[at]) if len(same) and same[at] >= LEAST_IOU else None
        yield Mistake(int(image), int(category), tuple(box.tolist()), float(score), other)


def _covered(box: Floats, crowds: Floats) -> Floats:
    """Share of a box that lies in each crowd, xyxy."""
    low, high = np.maximum(box[:2], crowds[:, :2]), np.minimum(box[2:], crowds[:, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    return np.asarray(inside / max(float((box[2:] - box[:2]).prod()), 1e-9))


def _missed(known: _Truth, best_G: Floats) -> Iterator[Mistake]:
    """Least found first, of these the largest."""
    area = known.box[:, 2] * known.box[:, 3]
    for row in np.lexsort((-area, best_G)).tolist():
        if not known.extra[row]:
            category, image = divmod(int(known.key[row]), len(known.images))
            box = tuple(known.box[row].tolist())
            yield Mistake(int(known.images[image]), int(known.categories[category]), box, float(best_G[row]))


def _first(mistakes: Iterator[Mistake], count: int) -> Iterator[Mistake]:
    seen: set[int] = set()
    for one in mistakes:
        if len(seen) == count:
            return
        if one.image not in seen:
            seen.add(one.image)
            yield one


def _lvis(truth: Mapping[str, Any]) -> _Truth:
    own = lvis.Truth.of(truth)
    return _Truth(own.categories, own.images, own.key, own.box, own.ignored[:, 0], own.sure)


def _coco(truth: Mapping[str, Any]) -> _Truth:
    categories = np.unique(np.array([row["id"] for row in truth["categories"]], np.int64))
    images = np.unique(np.array([row["id"] for row in truth["images"]], np.int64))
    inside = {*images.tolist()}, {*categories.tolist()}
    rows = [row for row in truth["annotations"] if row["image_id"] in inside[0] and row["category_id"] in inside[1]]
    category, image = (np.array([row[name] for row in rows], np.int64) for name in ("category_id", "image_id"))
    key = np.searchsorted(categories, category) * len(images) + np.searchsorted(images, image)
    order = np.argsort(key, kind="stable")
    box = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    extra = np.array([bool(row.get("iscrowd") or row.get("ignore")) for row in rows], bool)
    return _Truth(categories, images, key[order], box[order], extra[order], None)
