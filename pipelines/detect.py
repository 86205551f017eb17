"""Detection over many images with Ray actors, answers kept in part files: what evaluation runs on.

A unit is a run of neighbouring questions; inside it, questions about photos of one size make a batch. The answers to a
batch are committed as one part, so that what was answered before a kill is never asked again, and only what a model
had in its hands at that moment is asked twice. A part in which a photo could not be used is asked again by the next
run: it may be there by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import orjson
import pyarrow as pa

from detector.asked import Asked
from detector.metrics.detections import Detections
from llmdet import files
from llmdet.errors import ImageError
from llmdet.record import Orientation, Span
from llmdet.workspace import read_part, to_parquet
from pipelines.parts import Progress, Row, Workers, run_parts

if TYPE_CHECKING:
    from PIL import Image

    from detector.looks import Seen
    from detector.predict import Detector

_T = TypeVar("_T")

UNIT_QUESTIONS = 32
_ENDS = (".parquet", "-faults.parquet")  # of a part that is whole, and of one with photos that could not be used
_FACTS = b"llmdet.answers"


@dataclass(frozen=True, slots=True)
class Question:
    """One image, and what to look for in it where that is not the same for all: phrases of a text."""

    image: str  # address
    size: tuple[int, int] | None = None  # width and height as annotated: the orientation that gives them is taken
    text: str = ""
    phrases: tuple[tuple[Span, ...], ...] = ()  # spans of each; none: the whole text, by its best token
    orientation: Orientation = "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A checkpoint, how it is asked, and where its answers are kept."""

    checkpoint: str
    parts: str  # folder
    names: tuple[Asked, ...] = ()  # looked for in every photo; none: each question has its own phrases
    names_per_prompt: int | None = None  # None: as many as fit
    top_k: int = 300  # (box, name) pairs kept; of a text: boxes of each phrase
    top_k_per: Literal["image", "chunk"] = "image"
    threshold: float = 0.0  # pairs below are not kept
    batch_size: int = 8  # photos


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found for the questions of a unit, in their order, and why photos could not be used.

    `found.image` and `found.category` are the numbers of questions and of names (or phrases); boxes are xywh pixels.
    """

    numbers: range  # of the unit's questions
    found: Detections
    errors: dict[int, str]
    facts: dict[str, Any]  # number of prompts, and sides that photos are resized to


def ask(
    askings: Sequence[Asking],
    questions: Sequence[Sequence[Question]],
    *,
    gpu: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Ask what has no answer yet; `questions[i]` are those of `askings[i]`. Needs a running Ray (`pipelines.cluster`).

    With `gpu` each worker has a GPU, and there are as many as GPUs; otherwise one for each CPU. Raises SettingError.
    """
    from pipelines.cluster import workers as cpus

    items = [item for i, asking in enumerate(askings) for item in _items(i, asking, questions[i])]
    count = workers or (None if gpu else min(cpus(), max(1, len(items))))
    pool = Workers(count=count, num_gpus=1 if gpu else 0, items=2 if gpu else 1)
    run_parts(items, _Work(tuple(askings), "cuda" if gpu else "cpu"), progress=progress, pool=pool)


def answers(asking: Asking, questions: Sequence[Question]) -> Iterator[Answers]:
    """The answers to all questions, unit by unit. Raises MissingError, DamagedError."""
    for unit, batches in enumerate(_batches(asking, questions)):
        first = unit * UNIT_QUESTIONS
        numbers = range(first, min(first + UNIT_QUESTIONS, len(questions)))
        yield _joined(numbers, [_read(asking, name) for name in _names(unit, len(batches))])


def _names(unit: int, count: int) -> list[str]:
    return [f"part-{unit:06d}-{number:02d}" for number in range(count)]


def _batches(asking: Asking, questions: Sequence[Question]) -> Iterator[list[Sequence[int]]]:
    """Numbers of the questions of each unit, in batches of one size of photo."""
    for first in range(0, len(questions), UNIT_QUESTIONS):
        by_size: dict[Any, list[int]] = {}
        for number in range(first, min(first + UNIT_QUESTIONS, len(questions))):
            by_size.setdefault(questions[number].size, []).append(number)
        yield [batch for own in by_size.values() for batch in _pieces(own, asking.batch_size)]


def _pieces(values: Sequence[_T], most: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + most] for start in range(0, len(values), most))


def _items(number: int, asking: Asking, questions: Sequence[Question]) -> Iterator[Row]:
    """Units with the batches that have no whole answer."""
    there = {*files.names(asking.parts, _ENDS[0])}
    for unit, batches in enumerate(_batches(asking, questions)):
        todo = [
            {"name": name, "questions": [[row, asdict(questions[row])] for row in batch]}
            for name, batch in zip(_names(unit, len(batches)), batches, strict=True)
            if name + _ENDS[0] not in there
        ]
        if todo:
            yield {"asking": number, "batches": todo}


@dataclass(frozen=True)
class _Work:
    """What a worker does: ask the batches of a unit one after the other, and keep each answer."""

    askings: tuple[Asking, ...]
    device: str

    def __call__(self, item: Row) -> Row:
        asking = self.askings[item["asking"]]
        model = _detector(asking.checkpoint, self.device)
        for batch in item["batches"]:
            numbers = [number for number, _ in batch["questions"]]
            table = _asked(model, asking, numbers, [_question(row) for _, row in batch["questions"]])
            faults = bool(orjson.loads(table.schema.metadata[_FACTS])["errors"])
            files.write_bytes(files.join(asking.parts, batch["name"] + _ENDS[faults]), to_parquet(table))
        return {"batches": len(item["batches"])}


def _question(row: Row) -> Question:
    phrases = tuple(tuple((a, b) for a, b in spans) for spans in row["phrases"])
    return Question(**{**row, "size": tuple(row["size"]) if row["size"] else None, "phrases": phrases})


def _asked(model: Detector, asking: Asking, numbers: Sequence[int], questions: Sequence[Question]) -> pa.Table:
    """The answers to a batch as the rows of a part."""
    images, errors = {}, {}
    for number, question in zip(numbers, questions, strict=True):
        try:
            images[number] = opened(question)
        except ImageError as error:
            errors[str(number)] = str(error)
    usable = [question for number, question in zip(numbers, questions, strict=True) if number in images]
    facts: dict[str, Any] = {"short_side": model.parts.pixels.short_side, "long_side": model.parts.pixels.long_side}
    with _passing:  # threads of a worker open photos side by side, and use the model in turn
        if asking.names:
            found = _by_names(model, asking, list(images.values()))
            facts["prompts"] = len(model.prompts(asking.names, asking.names_per_prompt))
        else:
            found = _by_texts(model, asking, list(images.values()), usable)
    boxes, scores, labels = (np.concatenate(column) for column in zip(_NONE, *found, strict=True))
    asked = np.repeat(np.array([*images], np.int64), [len(one[1]) for one in found])
    corners = {name: boxes[:, i] for i, name in enumerate(("x1", "y1", "x2", "y2"))}
    table = pa.table({"question": asked, "label": labels, **corners, "score": scores})
    return table.replace_schema_metadata({_FACTS: orjson.dumps({"errors": errors, "facts": facts})})


_Found = tuple[Any, Any, Any]  # boxes xyxy (n, 4), scores (n,), labels (n,)
_NONE: _Found = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


def _by_names(model: Detector, asking: Asking, images: list[Image.Image]) -> list[_Found]:
    options: dict[str, Any] = {name: getattr(asking, name) for name in _OPTIONS}
    return [(one.boxes, one.scores, one.labels) for one in model.detect(images, asking.names, **options)]


_OPTIONS = ("top_k", "top_k_per", "threshold", "batch_size", "names_per_prompt")


def _by_texts(model: Detector, asking: Asking, images: list[Image.Image], questions: list[Question]) -> list[_Found]:
    """The best boxes of each phrase; prompts of one length on photos of one size go together."""
    from detector.looks import Look, look, looks_for_spans

    tokenizer, limit = model.parts.tokenizer, int(model.parts.model.config.max_text_len)
    groups: dict[Any, list[tuple[int, Look]]] = {}
    for row, (image, question) in enumerate(zip(images, questions, strict=True)):
        spans = question.phrases
        for one in looks_for_spans(tokenizer, question.text, spans, limit) if spans else [_whole(model, question.text)]:
            groups.setdefault((len(one.ids), image.size), []).append((row, one))
    found: list[list[_Found]] = [[] for _ in images]
    for group in groups.values():
        for part in _pieces(group, asking.batch_size):
            seen = look(model, [images[row] for row, _ in part], [one for _, one in part])
            for (row, one), answer in zip(part, seen, strict=True):
                found[row] += _best(answer, one.phrases if questions[row].phrases else (), asking)
    return [tuple(map(np.concatenate, zip(_NONE, *own, strict=True))) for own in found]  # type: ignore[misc]


def _whole(model: Detector, text: str) -> Any:
    """A look at a text of which every token counts by itself."""
    from detector.looks import Look
    from detector.text import encode, from_text

    parts = model.parts
    ids = encode(parts.tokenizer, from_text(text, ()), int(parts.model.config.max_text_len)).ids
    return Look(ids, np.eye(len(ids), dtype=bool), tuple(range(len(ids))))


def _best(seen: Seen, phrases: tuple[int, ...], asking: Asking) -> Iterator[_Found]:
    """The best boxes of each phrase; without phrases those whose best token is best."""
    columns = [(number, seen.scores[:, column]) for column, number in enumerate(phrases)]
    for label, scores in columns or [(0, seen.scores.max(axis=1))]:
        order = np.argsort(-scores, kind="stable")[: asking.top_k]
        order = order[scores[order] >= asking.threshold]
        yield seen.boxes[order], scores[order], np.full(len(order), label, np.int64)


def opened(question: Question) -> Image.Image:
    """The photo in the orientation that has the annotated size. Raises ImageError, size_mismatch where none has it."""
    from llmdet.images import open_image, open_sized

    if question.size is None:
        return open_image(question.image, question.orientation)
    return open_sized(question.image, question.size, question.orientation)


def image_url(folder: str, name: str) -> str:
    """The address of an annotated photo. Raises ImageError for a name that leaves the folder."""
    return files.safe_join(files.absolute(folder), name)


def _read(asking: Asking, name: str) -> tuple[Detections, dict[str, Any]]:
    whole = files.join(asking.parts, name + _ENDS[0])
    table = read_part(whole if files.exists(whole) else files.join(asking.parts, name + _ENDS[1]))
    told = orjson.loads(table.schema.metadata[_FACTS])
    x1, y1, x2, y2 = (table[column].to_numpy() for column in ("x1", "y1", "x2", "y2"))
    question, label = (table[column].to_numpy() for column in ("question", "label"))
    box = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
    found = Detections(question, label, box, table["score"].to_numpy(), np.arange(len(table)))
    return found, told


def _joined(numbers: range, parts: Sequence[tuple[Detections, dict[str, Any]]]) -> Answers:
    found = Detections.joined([rows for rows, _ in parts])
    errors = {int(number): why for _, told in parts for number, why in told["errors"].items()}
    ordered = found.take(np.argsort(found.image, kind="stable"))
    return Answers(numbers, ordered, dict(sorted(errors.items())), parts[0][1]["facts"])


_loading, _passing = Lock(), Lock()


def _detector(checkpoint: str, device: str) -> Detector:
    """The detector of this worker process, loaded once whatever the number of threads."""
    with _loading:
        return _loaded(checkpoint, device)


@lru_cache(maxsize=2)
def _loaded(checkpoint: str, device: str) -> Detector:
    from detector.predict import Detector

    return Detector.load(checkpoint, device)
