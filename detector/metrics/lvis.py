"""LVIS AP and fixed AP by the rules of lvis-api, whose figures they equal; merged from shards of images.

Federated truth: a category is judged in an image only where it has boxes or is in `neg_category_ids`; other detections
of it are dropped. Where it is in `not_exhaustive_category_ids`, detections without a match are ignored.

Two protocols (Dave et al. 2021, "Evaluating Large-Vocabulary Object Detectors"): `STANDARD` keeps the 300 best
detections of each image; `FIXED` the 10,000 best of each category over the whole set, as many in an image as there are.

faster-coco-eval 1.8 has the same rules in its LVIS style, but orders equal scores in its own way (4.5e-6 of AP in one
of twenty random sets with ties), applies `iscrowd`, which lvis-api does not read, leaves out `ignore`, which it does
read, and limits each category of an image instead of the image. So the figures are computed here. One thing differs
from lvis-api: an annotation with id 0 can be matched like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.metrics.accumulator import Accumulator, Limits
from detector.metrics.curves import curves
from detector.metrics.detections import Detections, Floats, Ints, Row, smallest
from detector.metrics.matching import Flags, match, overlapping
from llmdet.errors import FormatError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])  # all, small, medium, large; inclusive
FREQUENCIES = "rcf"  # in under 10, under 100, 100 or more training images

_JUDGED, _NOT_EXHAUSTIVE, _PRESENT = 1, 2, 4


STANDARD = Limits(per_image=300)
FIXED = Limits(per_category=10_000)


@dataclass(frozen=True, eq=False)
class Truth:
    """LVIS ground truth as arrays: K categories, I images and G true boxes by category, image and place in the file."""

    categories: Ints  # ids, ascending, (K,)
    names: tuple[str, ...]
    frequency: NDArray[np.str_]  # r, c or f, (K,)
    images: Ints  # ids, ascending, (I,)
    judged: NDArray[np.uint8]  # what is known of a category in an image, (K, I)
    key: Ints  # category number * I + image number, ascending, (G,)
    box: Floats  # xywh, (G, 4)
    ignored: Flags  # outside each range of areas, (G, A)
    positives: Ints  # true boxes that count, (K, A)

    @property
    def sure(self) -> Flags:
        """Where a detection without a true box is false, (K, I)."""
        return (self.judged & _JUDGED > 0) & (self.judged & _NOT_EXHAUSTIVE == 0)

    @classmethod
    def of(cls, truth: Mapping[str, Any]) -> Truth:
        """An LVIS file as a dict. Raises FormatError where it is none."""
        _check(truth)
        groups = sorted(truth["categories"], key=lambda row: int(row["id"]))
        categories = np.array([row["id"] for row in groups], np.int64)
        images = np.unique(np.array([row["id"] for row in truth["images"]], np.int64))
        judged = np.zeros((len(categories), len(images)), np.uint8)
        for name, flag in (("neg_category_ids", _JUDGED), ("not_exhaustive_category_ids", _NOT_EXHAUSTIVE)):
            counts = [len(row[name]) for row in truth["images"]]
            owner = np.repeat(np.array([row["id"] for row in truth["images"]], np.int64), counts)
            named = np.array([number for row in truth["images"] for number in row[name]], np.int64)
            known = np.isin(named, categories)
            at = np.searchsorted(categories, named[known]), np.searchsorted(images, owner[known])
            np.bitwise_or.at(judged, at, np.uint8(flag))
        key, box, area, extra = _boxes(truth["annotations"], categories, images)
        judged.reshape(-1)[key] |= _JUDGED | _PRESENT
        ignored = (area[:, None] < AREAS[:, 0]) | (area[:, None] > AREAS[:, 1]) | extra[:, None]
        positives = np.zeros((len(categories), len(AREAS)), np.int64)
        np.add.at(positives, key // len(images), ~ignored)
        names, frequency = tuple(str(row["name"]) for row in groups), np.array([row["frequency"] for row in groups])
        return cls(categories, names, frequency, images, judged, key, box, ignored, positives)


@dataclass(frozen=True, eq=False)
class Result:
    """Figures by lvis-api's names, AP by category name, and the curves that they are means of."""

    figures: dict[str, float]
    classes: dict[str, float]
    precision: Floats  # (T, R, K, A)
    recall: Floats  # (T, K, A)


def evaluate(truth: Mapping[str, Any], detections: Iterable[Row], limits: Limits = STANDARD) -> dict[str, float]:
    """AP, AP50, AP75, APs, APm, APl, APr, APc, APf and four recalls (`AR@300`, or `AR@-1` without a limit per image).

    In 0..1, unrounded; -1 where there is no true box of that kind. `truth` is an LVIS v0.5 or v1 file as a dict,
    `detections` are COCO result rows. Raises FormatError for anything else, and for detections on unknown images.
    """
    found = Accumulator(limits)
    found.add(detections)
    return score(Truth.of(truth), found).figures


def score(truth: Truth, found: Accumulator) -> Result:
    """Everything about what an accumulator holds, as `evaluate`; 500,000 detections are worked on at a time."""
    categories, areas = truth.positives.shape
    precision = np.empty((len(THRESHOLDS), len(RECALLS), categories, areas))
    recall = np.empty((len(THRESHOLDS), categories, areas))
    start = 0
    for rows in found.blocks():
        last = int(np.searchsorted(truth.categories, rows.category[-1], side="right"))
        if last > start:
            part = slice(start, last)
            precision[:, :, part], recall[:, part] = _block(truth, rows, part)
            start = last
    if start < categories:
        part = slice(start, categories)
        precision[:, :, part], recall[:, part] = _block(truth, Detections.of([]), part)
    classes = {name: _mean(precision[:, :, k, 0]) for k, name in enumerate(truth.names)}
    return Result(_figures(truth, precision, recall, found.limits), classes, precision, recall)


def _block(truth: Truth, rows: Detections, part: slice) -> tuple[Floats, Floats]:
    """Curves of the categories `part`, of which `rows` are all detections."""
    columns = len(truth.images)
    image = np.searchsorted(truth.images, rows.image).clip(max=max(columns - 1, 0))
    if (strange := rows.image != truth.images[image] if columns else np.ones(len(rows), bool)).any():
        raise FormatError(f"a detection is on image {rows.image[strange][0]}, which the ground truth does not have")
    category = np.searchsorted(truth.categories, rows.category).clip(max=len(truth.categories) - 1)
    known = truth.judged[category, image]
    area = rows.box[:, 2] * rows.box[:, 3]
    counts = (truth.categories[category] == rows.category) & (known & _JUDGED > 0) & (area > 0)
    chosen = np.flatnonzero(counts)
    chosen = chosen[_by_score(category[chosen], image[chosen], rows.score[chosen], rows.place[chosen])]
    category, image, known, area = category[chosen], image[chosen], known[chosen], area[chosen]
    plain = (area[:, None] >= AREAS[:, 0]) & (area[:, None] <= AREAS[:, 1]) & (known & _NOT_EXHAUSTIVE == 0)[:, None]
    key = category * columns + image
    near = np.flatnonzero(known & _PRESENT)
    first, end = (np.searchsorted(truth.key, key[near], side) for side in ("left", "right"))
    pairs = overlapping(rows.box[chosen[near]], truth.box, first, end - first, THRESHOLDS[0])
    pairs = pairs._replace(detection_P=near[pairs.detection_P])
    low, high = np.searchsorted(truth.key, (part.start * columns, part.stop * columns))
    pairs = pairs._replace(truth_P=pairs.truth_P - low)
    matches = match(pairs, key, truth.ignored[low:high], THRESHOLDS)
    return curves(category - part.start, plain, matches, truth.positives[part], RECALLS)


def _by_score(category: Ints, image: Ints, score: Floats, place: Ints) -> Ints:
    """Row numbers by category, descending score, image and place: the least significant key is sorted first."""
    order = np.argsort(place, kind="stable") if (np.diff(place) < 0).any() else np.arange(len(place))
    for column in (smallest(image), -score, smallest(category)):
        order = order[np.argsort(column[order], kind="stable")]
    return order


def _figures(truth: Truth, precision: Floats, recall: Floats, limits: Limits) -> dict[str, float]:
    every = precision[..., 0]
    figures = {"AP": _mean(every), "AP50": _mean(every[0]), "AP75": _mean(every[5])}
    figures |= {f"AP{name}": _mean(precision[..., number]) for number, name in enumerate("sml", 1)}
    figures |= {f"AP{name}": _mean(every[:, :, truth.frequency == name]) for name in FREQUENCIES}
    most = -1 if limits.per_image is None else limits.per_image
    return figures | {f"AR{name}@{most}": _mean(recall[..., number]) for number, name in enumerate(["", *"sml"])}


def _mean(values: Floats) -> float:
    """Of the values that exist; -1 where none does."""
    known = values[values > -1]
    return float(known.mean()) if len(known) else -1.0


def _boxes(rows: list[Row], categories: Ints, images: Ints) -> tuple[Ints, Floats, Floats, Flags]:
    """Keys, xywh, areas and flags `ignore` of the true boxes that lvis-api reads: of known ids and a positive area."""
    image = np.array([row["image_id"] for row in rows], np.int64)
    category = np.array([row["category_id"] for row in rows], np.int64)
    box = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    area = np.array([row["area"] for row in rows], np.float64)
    extra = np.array([bool(row.get("ignore", 0)) for row in rows], bool)
    chosen = np.flatnonzero(np.isin(image, images) & np.isin(category, categories) & (area > 0) & (area < np.inf))
    key = np.searchsorted(categories, category[chosen]) * len(images) + np.searchsorted(images, image[chosen])
    order = np.argsort(key, kind="stable")
    chosen = chosen[order]
    return key[order], box[chosen], area[chosen], extra[chosen]


def _check(truth: Mapping[str, Any]) -> None:
    needed = {
        "images": ("id", "neg_category_ids", "not_exhaustive_category_ids"),
        "annotations": ("image_id", "category_id", "bbox", "area"),
        "categories": ("id", "name", "frequency"),
    }
    missing = [name for name in needed if not isinstance(truth.get(name), list)]
    if missing:
        raise FormatError(f"an LVIS file needs the lists {', '.join(needed)}; missing: {missing}")
    for name, keys in needed.items():
        for row in truth[name]:
            if lacking := [key for key in keys if key not in row]:
                raise FormatError(
                    f"no LVIS ground truth: {name} need {', '.join(keys)}; {row.get('id', row)} lacks {lacking}"
                )
    if strange := {row["frequency"] for row in truth["categories"]} - set(FREQUENCIES):
        raise FormatError(f"the frequency of a category is r, c or f; got {sorted(map(str, strange))}")
