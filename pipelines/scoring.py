"""Answers scored by the rules of their task, from a result file or as a detector gave them; no model, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from detector.metrics import coco, coco_o, flickr30k, lvis, odinw, refcoco, several
from detector.metrics.accumulator import Accumulator, Limits
from llmdet import files
from llmdet.errors import FormatError, MissingError
from pipelines.sets import LVIS, EvaluationSet, Task, ground_truth, mdetr_truth, member_files

_STREAM_BYTES = 256 * 1024 * 1024  # a result file as dicts takes six times its size
_ROWS_AT_ONCE = 100_000
SEVERAL = ("odinw", "coco-o")


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How answers are scored."""

    task: Task = "coco"
    top_k: int = 10_000  # of lvis-fixed: detections of each category that count, over all images
    protocol: refcoco.Protocol = "llmdet"  # of refcoco: what boxes are ranked by
    benchmark: odinw.Benchmark = "odinw13"  # of odinw

    @classmethod
    def of(cls, one: EvaluationSet) -> Rules:
        return cls(task=one.task, top_k=one.per_category, protocol=one.protocol, benchmark=one.benchmark)

    def limits(self) -> Limits:
        """Which detections count."""
        if self.task == "lvis":
            return lvis.STANDARD
        return Limits(per_category=self.top_k) if self.task == "lvis-fixed" else Limits()


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """What is known of a class beside its AP: rare, common or frequent (r, c, f), and its number of true boxes."""

    frequency: str
    boxes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """By the official tool's names, 0..1, unrounded; `classes` by category, or by type of phrase."""

    metrics: dict[str, float]
    classes: dict[str, float]
    facts: dict[str, ClassFacts] = field(default_factory=dict)  # of each category
    curves: dict[str, list[float]] = field(default_factory=dict)  # precision at recalls 0, 0.01, ..., 1 by its name


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers to one annotation file, with what is true and how good they are."""

    name: str  # of a set of several, else empty
    truth: Any
    found: Any  # an Accumulator; of flickr30k a list of predictions
    figures: Figures


def figures(rules: Rules, annotations: str, detections: str) -> Figures:
    """Score a result file against ground truth; both may be URLs, packed or not. Raises FormatError, MissingError.

    Of sets of several `detections` is a folder that has `<set>.json` for each.
    """
    return together(rules, judge_files(rules, annotations, detections))


def judge_files(rules: Rules, annotations: str, detections: str) -> list[Judged]:
    """Every result file of a set with its score. Raises as `figures`."""
    if rules.task not in SEVERAL:
        return [judge(rules, "", _truth(rules, annotations, detections), _found(rules, detections))]
    one = EvaluationSet(task=rules.task, annotations=annotations, images="", benchmark=rules.benchmark)
    found = []
    for name, (address, _) in member_files(one).items():
        file = files.join(detections, f"{name}.json")
        if not files.exists(file):
            raise MissingError(f"no {file}: --detections is a folder with a result file for each set of {rules.task}")
        found.append(judge(rules, name, ground_truth(address), _found(rules, file)))
    return found


def judge(rules: Rules, name: str, truth: Any, found: Any) -> Judged:
    """Score what was found: an Accumulator, of flickr30k predictions. Raises FormatError."""
    if rules.task == "flickr30k":
        return Judged(name, truth, found, _flickr30k(truth, found))
    if rules.task == "refcoco":
        rows = found.joined()
        return Judged(name, truth, found, Figures(refcoco.evaluate(truth, rows, rules.protocol), {}))
    return Judged(name, truth, found, (_lvis if rules.task in LVIS else _coco)(truth, found))


def together(rules: Rules, judged: list[Judged]) -> Figures:
    """The figures of a whole set. Raises FormatError where a part of it is missing."""
    if rules.task not in SEVERAL:
        return judged[0].figures
    names = coco_o.DOMAINS if rules.task == "coco-o" else tuple(odinw.SETS[rules.benchmark])
    what = "COCO-O" if rules.task == "coco-o" else rules.benchmark
    metrics = several.joined(names, {one.name: one.figures.metrics for one in judged}, what)
    classes = {f"{one.name}/{key}": value for one in judged for key, value in one.figures.classes.items()}
    facts = {f"{one.name}/{key}": value for one in judged for key, value in one.figures.facts.items()}
    return Figures(metrics, classes, facts, _mean_curves([one.figures.curves for one in judged]))


def _mean_curves(all_curves: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    names = all_curves[0] if all_curves else {}
    held = {name: [curves[name] for curves in all_curves if name in curves] for name in names}
    return {name: np.mean(values, axis=0).tolist() for name, values in held.items()}


# --- tasks ---------------------------------------------------------------------------------------------------------


def _coco(truth: Mapping[str, Any], found: Accumulator) -> Figures:
    result = coco.score(truth, found)
    precision = result.precision[..., 0]
    return Figures(result.figures, result.classes, _facts(truth), _curves(precision))


def _lvis(truth: Mapping[str, Any], found: Accumulator) -> Figures:
    known = lvis.Truth.of(truth)
    result = lvis.score(known, found)
    precision = result.precision[..., 0]
    curves = _curves(precision)
    for frequency, name in (("r", "rare"), ("c", "common"), ("f", "frequent")):
        own = _mean_precision(precision[:, :, known.frequency == frequency])
        curves |= {f"mean, {name}": own} if own else {}
    return Figures(result.figures, result.classes, _facts(truth), curves)


def _curves(precision: NDArray[np.float64]) -> dict[str, list[float]]:
    """Mean over categories of (T, R, K); no curve where nothing is to find."""
    chosen = {"IoU 0.50": precision[:1], "IoU 0.75": precision[5:6], "mean of 0.50 to 0.95": precision}
    return {name: curve for name, values in chosen.items() if (curve := _mean_precision(values))}


def _mean_precision(precision: NDArray[np.float64]) -> list[float]:
    there = precision[..., (precision > -1).all(axis=(0, 1))]
    return [float(value) for value in there.mean(axis=(0, 2))] if there.shape[2] else []


def _facts(truth: Mapping[str, Any]) -> dict[str, ClassFacts]:
    counts: dict[int, int] = {}
    for row in truth["annotations"]:
        counts[row["category_id"]] = counts.get(row["category_id"], 0) + 1
    return {
        str(row["name"]): ClassFacts(str(row.get("frequency", "")), counts.get(row["id"], 0))
        for row in truth["categories"]
    }


def _flickr30k(sentences: dict[flickr30k.SentenceId, flickr30k.Sentence], predictions: list[Any]) -> Figures:
    truth = {key: one.phrases for key, one in sentences.items()}
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


# --- files ---------------------------------------------------------------------------------------------------------


def _truth(rules: Rules, annotations: str, detections: str) -> Any:
    if rules.task == "refcoco":
        return mdetr_truth(annotations)
    if rules.task == "flickr30k":
        photos = {str(row["image_id"]) for row in _rows(detections) if isinstance(row, Mapping) and "image_id" in row}
        return flickr30k.sentences(files.absolute(annotations), None, photos)
    return ground_truth(annotations)


def _found(rules: Rules, detections: str) -> Any:
    if rules.task == "flickr30k":
        return _rows(detections)
    found = Accumulator(rules.limits())
    for rows in _pieces(detections):
        found.add(rows)
    return found


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
