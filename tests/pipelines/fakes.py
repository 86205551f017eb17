"""Hand-made records, an engine that writes down what it is asked, and rules that fail: for the tests of pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from llmdet.errors import FormatError
from llmdet.prompts.prompt import AnswerError, Ask, Prompt, Task, boxes_of
from llmdet.record import Box, Record, Region, to_batch
from llmdet.rejects import Reject
from llmdet.rules.outcome import Drop, Kept, Loss, Retry
from llmdet.sources.source import Item, SourceInfo
from llmdet.workspace import Manifest, Workspace
from pipelines.engines.engine import STOPPED, Answer, Identity, Job, Request, Usage, Workers

INFO = SourceInfo("hand", "hand", "CC0", "https://hand.example", "/photos", ())


def record(number: int, image: int | None = None, boxes: int = 1) -> Record:
    """Record `number` shows photo `image` (its own where None) with `boxes` boxes of a dog; box i starts at x = i."""
    shown = number if image is None else image
    found = tuple(Box((float(i), 0.0, i + 10.0, 20.0), order=i) for i in range(boxes))
    regions = (Region(("dog",), ((0, 3),), found, 1),) if boxes else ()
    return Record(
        id=f"hand/{shown}/{number}",
        source="hand",
        image_id=str(shown),
        text_id=str(number),
        kind="detection",
        image=f"{shown}.jpg",
        root="hand",
        width=100,
        height=80,
        text="dog. ",
        regions=regions,
        image_sha256=f"{shown:064d}",
    )


def write_records(workspace: Workspace, records: Sequence[Record], part_rows: int, key: str = "k") -> None:
    """A finished table `records/hand/`."""
    table = workspace.records("hand")
    groups = [records[i : i + part_rows] for i in range(0, len(records), part_rows)] or [[]]
    parts = [table.write_part(index, key, to_batch(group)) for index, group in enumerate(groups)]
    table.commit(Manifest("ingest", key, tuple(parts), {"seconds": 0}, info=INFO.to_dict()))


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A source that yields what it is given, then raises a FormatError where `error` says one."""

    items: tuple[Item, ...]
    name: str = "hand"
    images: str = ""
    error: str = ""

    def info(self) -> SourceInfo:
        return replace(INFO, name=self.name, images=self.images)

    def read(self) -> Iterator[Item]:
        yield from self.items
        if self.error:
            raise FormatError(self.error)


@dataclass(frozen=True)
class FakeImage:
    """One question about the picture, the same for all records."""

    id: str = "fake-image"
    version: str = "1"
    task: Task = "image"

    def render(self, record: Record) -> list[Ask]:
        return [Ask("Describe the picture.")]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        if answer == "unreadable":
            raise AnswerError("answer_not_json", "by order of the test")
        return [answer]


@dataclass(frozen=True)
class FakeRegion:
    """One question for every two boxes."""

    id: str = "fake-region"
    version: str = "1"
    task: Task = "region"

    def render(self, record: Record) -> list[Ask]:
        lefts = [box.xyxy[0] for box in boxes_of(record)]
        pairs = [tuple(range(i, min(i + 2, len(lefts)))) for i in range(0, len(lefts), 2)]
        return [Ask(f"Boxes at {[lefts[i] for i in pair]}", boxes=pair) for pair in pairs]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        """The lefts of the boxes that are asked again; those of the others are null."""
        lefts = [box.xyxy[0] for box in boxes_of(record)]
        again = orjson.dumps([lefts[i] if i in boxes else None for i in ask.boxes]).decode()
        return replace(ask, text=f"Boxes at {again}")

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        if answer == "unreadable":
            raise AnswerError("answer_not_json", "by order of the test")
        return [None if text is None else str(text) for text in orjson.loads(answer)]


PROMPTS: dict[str, type[Prompt]] = {"fake-image": FakeImage, "fake-region": FakeRegion}


@dataclass(frozen=True, kw_only=True)
class Fake:
    """Answers with what it was asked; every request becomes one line of the file `log`."""

    log: str
    fail: tuple[str, ...] = ()  # photos whose requests get an error
    stopped: tuple[str, ...] = ()  # photos that the end of the run leaves unasked
    unreadable: tuple[str, ...] = ()  # photos whose first image answer no parser can read
    unreadable_boxes: tuple[str, ...] = ()  # photos whose first answers about boxes no parser can read
    deterministic: bool = False
    model: str = "fake"

    def identity(self) -> Identity:
        return Identity("fake", "1", self.model)

    def prompts(self) -> dict[Task, Prompt]:
        return {"image": FakeImage(), "region": FakeRegion()}

    def workers(self) -> Workers | None:
        return None

    def start(self) -> Fake:
        return self

    def usage(self) -> Usage:
        return Usage()

    def answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        return [[self._one(job, request) for request in job.requests] for job in jobs]

    def _one(self, job: Job, request: Request) -> Answer:
        if job.record.image in self.stopped:
            return STOPPED
        line = {
            "image": job.record.image,
            "record": job.record.id,
            "url": job.image,
            "task": request.task,
            "text": request.ask.text,
            "attempt": request.attempt,
            "seed": request.seed,
        }
        with open(self.log, "ab") as file:
            file.write(orjson.dumps(line) + b"\n")
        if job.record.image in self.fail:
            return Answer(error="engine_down", detail="by order of the test")
        if request.task == "region" and job.record.image in self.unreadable_boxes and request.attempt == 0:
            return Answer("unreadable")
        if request.task == "region":
            lefts = orjson.loads(request.ask.text.removeprefix("Boxes at "))
            texts = [None if left is None else f"{job.record.image} x={left:g}" for left in lefts]
            return Answer(orjson.dumps(texts).decode(), prompt_tokens=5)
        if job.record.image in self.unreadable and request.attempt == 0:
            return Answer("unreadable")
        return Answer(
            f"{job.record.image} attempt {request.attempt}", prompt_tokens=7, cached_tokens=2, answer_tokens=3
        )

    def asked(self) -> list[dict[str, object]]:
        """What was asked so far, in no particular order."""
        path = Path(self.log)
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@dataclass(frozen=True)
class NeedAttempt:
    """Sends back every image caption of an earlier attempt."""

    attempt: int

    def __call__(self, record: Record) -> Record | Kept:
        early = [c for c in record.captions if c.attempt < self.attempt]
        losses = tuple(
            Loss(record.id, "image_caption", Retry("too_early"), request_id=c.request_id, attempt=c.attempt)
            for c in early
        )
        kept = tuple(c for c in record.captions if c.attempt >= self.attempt)
        return Kept(replace(record, captions=kept), losses) if losses else record


@dataclass(frozen=True)
class NeedAttemptAt:
    """Sends back the caption of one box of one record while it is of the first attempt."""

    boxes: tuple[tuple[str, int], ...]  # (text id of a record, order of the box)

    def __call__(self, record: Record) -> Record | Kept:
        bad = [box for box in boxes_of(record) if (record.text_id, box.order) in self.boxes]
        early = [box for box in bad if box.caption and not box.caption.attempt]
        losses = tuple(
            Loss(record.id, "region_caption", Retry("too_early"), index=box.order, request_id=box.caption.request_id)
            for box in early
            if box.caption
        )
        regions = tuple(
            replace(region, boxes=tuple(replace(b, caption=None) if b in early else b for b in region.boxes))
            for region in record.regions
        )
        return Kept(replace(record, regions=regions), losses) if losses else record


@dataclass(frozen=True)
class Raise:
    """Raises on one photo."""

    image: str

    def __call__(self, record: Record) -> Record:
        if record.image == self.image:
            raise ZeroDivisionError("a bug in a rule")
        return record


@dataclass(frozen=True)
class DropImage:
    """Drops the records of one photo."""

    image: str

    def __call__(self, record: Record) -> Record | Drop:
        return Drop("unwanted", "by order of the test") if record.image == self.image else record


@dataclass(frozen=True)
class ShiftText:
    """Breaks the spans of one photo's record."""

    image: str

    def __call__(self, record: Record) -> Record:
        return replace(record, text="a " + record.text) if record.image == self.image else record


@dataclass(frozen=True)
class GiveNothing:
    """A faulty rule: gives None on one photo."""

    image: str

    def __call__(self, record: Record) -> Record | None:
        return None if record.image == self.image else record


def told(left_out: list[Reject]) -> list[tuple[str, str, str, str]]:
    """(id, level, kind, reason) of rejects, sorted."""
    return sorted((reject.id, reject.level, reject.kind, reject.reason) for reject in left_out)
