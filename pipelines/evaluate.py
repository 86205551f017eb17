"""evaluate: a checkpoint on annotated sets, or a result file against its ground truth.

Answers are kept under `<out>/<set>_parts/<fingerprint>/` as they come (`pipelines.detect`): the same command goes on
after a kill, another checkpoint or protocol starts anew. Results are written from these parts in the order of the set.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import orjson

from detector.metrics.accumulator import Accumulator
from detector.metrics.detections import Detections
from llmdet import files
from llmdet.workspace import fingerprint
from pipelines.cluster import cluster
from pipelines.detect import Answers, Asking, answers, ask
from pipelines.evaluation_page import write_page
from pipelines.ground import model_key
from pipelines.lease import hold
from pipelines.mistakes import cases
from pipelines.parts import Progress
from pipelines.scoring import SEVERAL, Judged, Rules, judge, judge_files, together
from pipelines.sets import LVIS, EvaluationSet, Member, members

__all__ = ["METRICS_SUFFIX", "UNTRAINED_SUFFIX", "EvaluateOutcome", "EvaluationSet", "Run", "evaluate", "score"]

METRICS_SUFFIX = "_metrics.json"
UNTRAINED_SUFFIX = "-untrained"  # of a set's name, where the model before training was evaluated
_PARTS_SUFFIX = "_parts"
_REFCOCO_CATEGORY = 1  # every expression is one "object"


@dataclass(frozen=True, slots=True)
class EvaluateOutcome:
    """Official figures (0..1, unrounded), AP per class, how they were measured, and where the rest is."""

    name: str
    metrics: dict[str, float]
    classes: dict[str, float] = field(default_factory=dict)
    detections: str = ""
    missing: dict[str, str] = field(default_factory=dict)  # image -> why it could not be used
    seconds: float = 0.0
    images: int = 0  # of the set, where a checkpoint was run
    protocol: dict[str, Any] = field(default_factory=dict)
    page: str = ""

    def too_many_missing(self, max_faults: float) -> str:
        """One line where more than this share of the photos could not be used, else nothing."""
        if len(self.missing) <= max_faults * self.images:
            return ""
        image, why = next(iter(self.missing.items()))
        share = f"{len(self.missing)} of {self.images}"
        return f"evaluate {self.name}: {share} photos could not be used (image {image}: {why})"


@dataclass(frozen=True, slots=True)
class Run:
    """A set, the checkpoint that is asked, and the address of what is written, without its suffix."""

    set: EvaluationSet
    checkpoint: str
    out: str


def evaluate(
    sets: Sequence[EvaluationSet],
    checkpoint: str,
    out: str,
    *,
    gpu: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[EvaluateOutcome]:
    """Run a checkpoint on sets; writes `<out>/<set>_detections.json`, `<set>_metrics.json` and `<set>.html`.

    Sets of several (ODinW, COCO-O) have a folder `<set>_detections` with a file for each. A photo that cannot be
    opened, or has the annotated size in no orientation, counts as one without detections and is named in `missing`.
    With `gpu` every worker has one GPU; `workers` is None for as many as there is room for.
    """
    runs = [Run(one, checkpoint, files.join(out, one.title)) for one in sets]
    return evaluate_many(runs, gpu=gpu, workers=workers, progress=progress)


def evaluate_many(
    runs: Sequence[Run], *, gpu: bool = False, workers: int | None = None, progress: Progress | None = None
) -> list[EvaluateOutcome]:
    """The same for several runs, all in one pass over one pool of actors."""
    started = time.monotonic()
    runs = [
        replace(run, set=run.set.asked(), checkpoint=_absolute(run.checkpoint), out=files.absolute(run.out))
        for run in runs
    ]
    opened = {one: members(one) for one in {run.set: None for run in runs}}
    jobs = [_Job(run, member, _asking(run, member)) for run in runs for member in opened[run.set]]
    places = [place for run in runs for place in (run.set.images, run.checkpoint) if files.exists(place)]
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(hold(run.out + _PARTS_SUFFIX))
        stack.enter_context(cluster(*(run.out for run in runs), reads=places))
        askings, questions = [job.asking for job in jobs], [job.member.questions for job in jobs]
        ask(askings, questions, gpu=gpu, workers=workers, progress=progress)
    seconds = round(time.monotonic() - started, 3)
    return [_scored(run, [job for job in jobs if job.run is run], seconds) for run in runs]


def score(
    annotations: str,
    detections: str,
    name: str = "coco",
    rules: Rules | None = None,
    *,
    images: str = "",
    out: str = "",
) -> EvaluateOutcome:
    """Score a result file by the rules of its task; no model, no torch. Raises FormatError.

    With `out`, a folder, the page is written there too; with pictures where `images` has the photos.
    """
    started = time.monotonic()
    rules = rules or Rules()
    judged = judge_files(rules, annotations, detections)
    found = together(rules, judged)
    protocol = {"task": rules.task, **_rules_shown(rules), "detections": posixpath.basename(detections)}
    page = ""
    if out:
        asked: dict[str, Member] = {}
        if images:
            one = EvaluationSet(task=rules.task, annotations=annotations, images=images, benchmark=rules.benchmark)
            asked = {member.name: member for member in members(one)}
        page = files.join(out, f"{name}.html")
        write_page(page, name, protocol, found, cases(rules, judged, asked))
    seconds = round(time.monotonic() - started, 3)
    return EvaluateOutcome(name, found.metrics, found.classes, detections, {}, seconds, 0, protocol, page)


@dataclass(frozen=True, eq=False)
class _Job:
    """One annotation file of a run."""

    run: Run
    member: Member
    asking: Asking


def _absolute(checkpoint: str) -> str:
    return files.absolute(checkpoint) if files.exists(checkpoint) else checkpoint  # else an id of the hub


def _asking(run: Run, member: Member) -> Asking:
    """How a member is asked. Its fingerprint holds all that answers depend on, but for the content of photos."""
    one = run.set
    options: dict[str, Any] = {
        "names": member.names,
        "names_per_prompt": one.names_per_prompt,
        "top_k": one.top_k,
        "top_k_per": one.top_k_per,
        "threshold": one.threshold,
        "batch_size": one.batch_size,
    }
    inputs = {
        "model": model_key(run.checkpoint),
        "options": {**options, "names": [asdict(name) for name in member.names]},
        "questions": [asdict(question) for question in member.questions],
    }
    parts = files.join(run.out + _PARTS_SUFFIX, fingerprint(inputs)[:16] + (f"-{member.name}" * bool(member.name)))
    return Asking(checkpoint=run.checkpoint, parts=parts, **options)


def _scored(run: Run, jobs: Sequence[_Job], seconds: float) -> EvaluateOutcome:
    """Figures, result files and page of a run whose questions all have an answer."""
    one, rules = run.set, Rules.of(run.set)
    several = one.task in SEVERAL
    to = f"{run.out}_detections" + ("" if several else ".json")
    judged: list[Judged] = []
    missing: dict[str, str] = {}
    facts: list[dict[str, Any]] = []
    for job in jobs:
        reader = _Reader(rules, job)
        file = files.join(to, f"{job.member.name}.json") if several else to
        judged.append(judge(rules, job.member.name, job.member.truth, reader.found(file)))
        mark = f"{job.member.name}/" if several else ""
        missing |= {mark + key: why for key, why in (job.member.errors | reader.missing).items()}
        facts.append(reader.facts)
    found = together(rules, judged)
    protocol = _protocol(run, rules, jobs, facts)
    files.write_json(
        run.out + METRICS_SUFFIX,
        {"metrics": found.metrics, "classes": found.classes, "missing": missing, "protocol": protocol},
    )
    page = f"{run.out}.html"
    asked = {job.member.name: job.member for job in jobs}
    write_page(page, posixpath.basename(run.out), protocol, found, cases(rules, judged, asked), missing)
    photos = len({q.image for job in jobs for q in job.member.questions}) + sum(len(job.member.errors) for job in jobs)
    return EvaluateOutcome(one.title, found.metrics, found.classes, to, missing, seconds, photos, protocol, page)


class _Reader:
    """Reads the answers of a job once: what counts of them, written as a result file on the way."""

    def __init__(self, rules: Rules, job: _Job) -> None:
        self.rules, self.job = rules, job
        self.missing: dict[str, str] = {}  # image -> why
        self.facts: dict[str, Any] = {}

    def found(self, file: str) -> Any:
        """An Accumulator, or the predictions of flickr30k."""
        if self.rules.task == "flickr30k":
            predictions = [one for answer in self._answers() for one in self._predictions(answer)]
            files.write_bytes(file, orjson.dumps(predictions))
            return predictions
        kept = Accumulator(self.rules.limits())
        for answer in self._answers():
            kept.add(self._rows(answer))
        _write_rows(file, kept)
        return kept

    def _answers(self) -> Iterator[Answers]:
        for answer in answers(self.job.asking, self.job.member.questions):
            self.facts |= answer.facts
            for number, why in answer.errors.items():
                key = self.job.member.keys[number]
                self.missing[str(key[0] if isinstance(key, tuple) else key)] = why
            yield answer

    def _rows(self, answer: Answers) -> Detections:
        """With the ids of images and categories; places are those of one file in the order of the set."""
        member, found = self.job.member, answer.found
        image = np.array(member.keys, np.int64)[found.image]
        none = np.full(len(found), _REFCOCO_CATEGORY, np.int64)
        category = np.array(member.categories, np.int64)[found.category] if member.names else none
        rank = np.arange(len(found)) - np.searchsorted(found.image, found.image)
        return Detections(image, category, found.box, found.score, found.image * 1_000_000 + rank)

    def _predictions(self, answer: Answers) -> Iterator[dict[str, Any]]:
        """Of each sentence the boxes of each phrase, xyxy."""
        by_question = dict(answer.found.grouped(answer.found.image))
        none = Detections.of([])
        for number in answer.numbers:
            own = by_question.get(number, none)
            photo, sentence = self.job.member.keys[number]
            boxes = [
                np.concatenate([own.box[at, :2], own.box[at, :2] + own.box[at, 2:]], axis=1).tolist()
                for at in (own.category == i for i in range(len(self.job.member.questions[number].phrases)))
            ]
            yield {"image_id": photo, "sentence_id": sentence, "boxes": boxes}


def _write_rows(file: str, found: Accumulator) -> None:
    """A result file in COCO's form, in pieces: by category, in the order of the set inside each."""
    with files.open_atomic(file) as sink:
        sink.write(b"[")
        first = True
        for rows in found.blocks():
            for start in range(0, len(rows), 10_000):
                text = orjson.dumps(_dicts(rows.take(slice(start, start + 10_000))))[1:-1]
                sink.write((b"" if first else b",\n") + text)
                first = False
        sink.write(b"]\n")


def _dicts(rows: Detections) -> list[dict[str, Any]]:
    columns = (rows.image.tolist(), rows.category.tolist(), rows.box.tolist(), rows.score.tolist())
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(*columns, strict=True)
    ]


def _protocol(run: Run, rules: Rules, jobs: Sequence[_Job], facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a figure must be read with: how the detector was asked, and how its answers were scored."""
    one = run.set
    told = {name: value for name, value in (facts[0] if facts else {}).items() if name != "prompts"}
    shown: dict[str, Any] = {"task": one.task, **_rules_shown(rules)}
    if jobs[0].member.names:
        names = sorted({len(job.member.names) for job in jobs})
        prompts = sorted({int(fact.get("prompts", 0)) for fact in facts})
        shown |= {"names": _range(names), "names_per_prompt": one.names_per_prompt, "prompts": _range(prompts)}
    shown |= {"top_k": one.top_k, "top_k_per": one.top_k_per if jobs[0].member.names else "phrase"}
    shown |= {"threshold": one.threshold, **told}
    if one.task == "flickr30k":
        shown["split"] = one.split
    notes = [note for job in jobs for note in job.member.notes]
    return shown | {"checkpoint": run.checkpoint} | ({"notes": notes} if notes else {})


def _range(numbers: Sequence[int]) -> int | str:
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _rules_shown(rules: Rules) -> dict[str, Any]:
    if rules.task in LVIS:
        return {f"limit_{key}": value for key, value in asdict(rules.limits()).items() if value is not None}
    choices = {"refcoco": ("protocol", rules.protocol), "odinw": ("benchmark", rules.benchmark)}
    return dict([choices[rules.task]]) if rules.task in choices else {}
