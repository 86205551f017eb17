"""evaluate: a checkpoint on an annotated set, or a result file against its ground truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from detector.metrics import coco
from llmdet import files
from llmdet.errors import FormatError, ImageError
from pipelines.cluster import cluster
from pipelines.detect import Found, Query, detect, image_url
from pipelines.parts import Progress
from pipelines.scoring import Rules, figures, ground_truth

METRICS_SUFFIX = "_metrics.json"
UNTRAINED_SUFFIX = "-untrained"  # of a set's name, where the model before training was evaluated


@dataclass(frozen=True, kw_only=True)
class CocoSet:
    """A set with COCO ground truth, all of whose categories are asked for in every image."""

    annotations: str
    images: str
    name: str = "coco"
    top_k: int = 300  # (box, name) pairs kept per image
    names_per_prompt: int | None = None  # None: as many as fit


@dataclass(frozen=True, slots=True)
class EvaluateOutcome:
    """Official figures (0..1, unrounded), AP per class, and where the detections are."""

    name: str
    metrics: dict[str, float]
    classes: dict[str, float] = field(default_factory=dict)
    detections: str = ""
    missing: dict[str, str] = field(default_factory=dict)  # image -> why it could not be used
    seconds: float = 0.0
    images: int = 0  # of the set, where a checkpoint was run

    def too_many_missing(self, max_faults: float) -> str:
        """One line where more than this share of the photos could not be used, else nothing."""
        if len(self.missing) <= max_faults * self.images:
            return ""
        image, why = next(iter(self.missing.items()))
        share = f"{len(self.missing)} of {self.images}"
        return f"evaluate {self.name}: {share} photos could not be used (image {image}: {why})"


def evaluate(
    sets: Sequence[CocoSet], checkpoint: str, out: str, *, gpu: bool = False, progress: Progress | None = None
) -> list[EvaluateOutcome]:
    """Run a checkpoint on sets; writes `<out>/<set>_detections.json` (COCO results) and `<out>/<set>_metrics.json`.

    A photo that cannot be opened, or has the annotated size in no orientation, counts as one without detections and is
    named in `missing`.
    """
    return evaluate_many([(one, checkpoint, files.join(out, one.name)) for one in sets], gpu=gpu, progress=progress)


def evaluate_many(
    runs: Sequence[tuple[CocoSet, str, str]], *, gpu: bool = False, progress: Progress | None = None
) -> list[EvaluateOutcome]:
    """The same for (set, checkpoint, address without suffix), all in one pass over one pool of actors."""
    started = time.monotonic()
    truths = {one.annotations: ground_truth(one.annotations) for one, _, _ in runs}
    for truth in truths.values():
        coco.check_truth(truth)
    queries, bad = [], {}
    for number, (one, checkpoint, _) in enumerate(runs):
        names = _names(truths[one.annotations])[1]
        for image in truths[one.annotations]["images"]:
            try:
                queries.append(_query(one, checkpoint, image, names, [number, image["id"]]))
            except ImageError as error:
                bad[number, image["id"]] = str(error)
    found: dict[int, list[Found]] = {number: [] for number in range(len(runs))}
    with cluster():
        for answer in detect(queries, gpu=gpu, progress=progress):
            found[answer.key[0]].append(answer)
    seconds = round(time.monotonic() - started, 3)
    return [
        _scored(
            one,
            truths[one.annotations],
            found[number],
            out,
            seconds,
            {str(k[1]): v for k, v in bad.items() if k[0] == number},
        )
        for number, (one, _, out) in enumerate(runs)
    ]


def _query(one: CocoSet, checkpoint: str, image: dict[str, Any], names: tuple[str, ...], key: list[Any]) -> Query:
    """Raises ImageError for a file name that leaves the folder, FormatError where there is none."""
    if not isinstance(image.get("file_name"), str):
        raise FormatError(f"{one.annotations}: image {image['id']} has no file_name, so its photo cannot be found")
    folder = files.absolute(checkpoint) if files.exists(checkpoint) else checkpoint  # else an id of the hub
    return Query(
        folder,
        image_url(one.images, image["file_name"]),
        names,
        key,
        size=(int(image["width"]), int(image["height"])),
        top_k=one.top_k,
        names_per_prompt=one.names_per_prompt,
    )


def score(annotations: str, detections: str, name: str = "coco", rules: Rules | None = None) -> EvaluateOutcome:
    """Score a result file by the rules of its task; no model, no torch. Raises FormatError."""
    started = time.monotonic()
    found = figures(rules or Rules(), annotations, detections)
    seconds = round(time.monotonic() - started, 3)
    return EvaluateOutcome(name, found.metrics, found.classes, detections, {}, seconds)


def _names(truth: dict[str, Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids and names of the categories, by id."""
    rows = sorted(truth["categories"], key=lambda row: row["id"])
    return tuple(row["id"] for row in rows), tuple(row["name"] for row in rows)


def _scored(
    one: CocoSet, truth: dict[str, Any], found: list[Found], out: str, seconds: float, bad: dict[str, str]
) -> EvaluateOutcome:
    ids, _ = _names(truth)
    rows = [row for answer in found for row in _rows(answer, ids)]
    missing = bad | {str(answer.key[1]): answer.error for answer in found if answer.error}
    metrics, classes = coco.evaluate_classes(truth, rows)
    files.write_bytes(f"{out}_detections.json", orjson.dumps(rows))
    files.write_json(f"{out}{METRICS_SUFFIX}", {"metrics": metrics, "classes": classes, "missing": missing})
    told = f"{out}_detections.json"
    return EvaluateOutcome(one.name, metrics, classes, told, missing, seconds, len(truth["images"]))


def _rows(answer: Found, ids: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"image_id": answer.key[1], "category_id": ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score, label in zip(answer.boxes, answer.scores, answer.labels, strict=True)
    ]
