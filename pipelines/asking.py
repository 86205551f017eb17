"""The work of caption on one chunk of images: what is open, asked of the engine of this worker, and committed."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from llmdet import files
from llmdet.errors import ImageError
from llmdet.prompts.prompt import Ask, Prompt, Task
from llmdet.record import Record
from llmdet.workspace import Table, Workspace
from pipelines.answers import requests_of
from pipelines.chunks import read_run
from pipelines.engines.engine import STOPPED, Answer, Answerer, Engine, Job, Request, Usage, seed_of
from pipelines.ledger import Answered, Found, Ledger, entry, new_look
from pipelines.live import TOKENS
from pipelines.parts import Row

if TYPE_CHECKING:
    from pipelines.caption import CaptionSettings

Entries = dict[Task, list[tuple[object, ...]]]  # rows of the ledger's schema


@dataclass(frozen=True, slots=True)
class Again:
    """A request that is to be asked again."""

    attempt: int
    boxes: tuple[int, ...] = ()  # places among the boxes of its question: only these; empty: all

    def joined(self, other: Again) -> Again:
        """What two records that share the request want of it."""
        boxes = sorted({*self.boxes, *other.boxes}) if self.boxes and other.boxes else ()
        return Again(max(self.attempt, other.attempt), tuple(boxes))

    def ask(self, prompt: Prompt, request: Request, record: Record) -> Ask:
        """The question as it is asked now."""
        places = tuple(request.ask.boxes[place] for place in self.boxes)
        return prompt.narrow(request.ask, record, places) if places else request.ask


def open_asks(workspace: Workspace, source: str) -> dict[bytes, Again]:
    """Requests that refine sent back, with the attempt that they wait for."""
    table = workspace.asks(source)
    if table.manifest() is None:
        return {}
    found: dict[bytes, Again] = {}
    for row in (row for part in table.batches() for row in part.to_pylist()):
        request, again = row["request_id"], Again(row["attempt"], tuple(row["boxes"]))
        found[request] = found[request].joined(again) if request in found else again
    return found


@dataclass(frozen=True)
class Asking:
    """The work on one chunk: read its records, ask what is open, commit the answers."""

    records: Table
    ledgers: dict[Task, Ledger]
    epochs: dict[Task, int]
    engine: Engine
    settings: CaptionSettings
    asks: dict[bytes, Again]
    root: str
    only: Mapping[bytes, Again] | None = None
    look: str = field(default_factory=new_look)

    def __call__(self, item: Row) -> Row:
        records = [record for run in item["rows"] for record in read_run(self.records, run)]
        wanted = self._wanted(records)
        answered = self._answered([request for requests in wanted for request in requests])
        # Ray repeats a task whose worker died; what it committed before it died stays.
        before = {task: ledger.committed(self.epochs[task], item["chunk"]) for task, ledger in self.ledgers.items()}
        open_ = self._still_open(records, wanted, answered)
        waiting = [[request for request in requests if before[request.task] is None] for requests in open_]
        entries = {task: rows or [] for task, rows in before.items()}
        usage = self._ask(records, waiting, entries)
        for task, rows in entries.items():
            if rows and before[task] is None:
                self.ledgers[task].append(self.epochs[task], item["chunk"], rows)
        asked = {task: sum(r.task == task for requests in wanted for r in requests) for task in self.ledgers}
        failed = _failed(entries)
        said = {row[0] for rows in entries.values() for row in rows}
        standing: list[list[object]] = []
        never = sum(request.id not in said for requests in waiting for request in requests)
        if self.only is not None:
            standing, never = self._left(records, wanted, answered, said)
        return {
            "asked": asked,
            "failed": failed + standing,
            "never": never,
            "images": sum(bool(requests) for requests in open_),
            "requests": sum(map(len, entries.values())),
            "errors": dict(Counter(str(one[2]) for one in failed)),
            "worker": f"{socket.gethostname()}-{os.getpid()}",
            "usage": usage,
            **_tokens(entries),
        }

    def _ask(self, records: list[Record], waiting: list[list[Request]], entries: Entries) -> tuple[Usage, Usage]:
        """Add an entry for every request that waits, but for what the end of the run left unasked.

        Returns how the engine had spent its time before and after.
        """
        jobs: list[Job] = []
        for record, requests in zip(records, waiting, strict=True):
            if requests:
                self._add(record, requests, jobs, entries)
        if not jobs:
            return Usage(), Usage()
        engine = _started(self.engine)
        before = engine.usage()
        for job, answers in zip(jobs, engine.answer(jobs), strict=True):
            for request, answer in zip(job.requests, answers, strict=True):
                if answer == STOPPED:
                    continue
                entries[request.task].append(entry(request, job.record.id, answer))
        return before, engine.usage()

    def _left(
        self, records: list[Record], wanted: list[list[Request]], answered: dict[bytes, int], now: Container[object]
    ) -> tuple[list[list[object]], int]:
        """What a run over some requests leaves as it was: errors, and how many that were never asked."""
        errors: list[list[object]] = []
        never = 0
        for task, ledger in self.ledgers.items():
            pairs = [
                (record.id, r.id) for record, rs in zip(records, wanted, strict=True) for r in rs if r.task == task
            ]
            pairs = [pair for pair in pairs if pair[1] not in answered and pair[1] not in now]
            found = ledger.answers(_index(ledger, self.look), [request for _, request in pairs])
            for (record_id, _), rows in zip(pairs, found, strict=True):
                never += not rows
                errors += [[record_id, task, row["error"], row["detail"] or ""] for row in rows[:1]]
        return errors, never

    def _add(self, record: Record, waiting: list[Request], jobs: list[Job], entries: Entries) -> None:
        try:
            jobs.append(Job(record, files.safe_join(self.root, record.image), tuple(waiting)))
        except ImageError as error:
            for request in waiting:
                entries[request.task].append(entry(request, record.id, Answer(error=error.reason, detail=error.detail)))

    def _wanted(self, records: list[Record]) -> list[list[Request]]:
        """Every request of each record, once: one that stood earlier stays where it was first."""
        prompts = self.engine.prompts()
        seen: set[bytes] = set()
        wanted: list[list[Request]] = []
        for record in records:
            asked = [task for task in self.ledgers if self.settings.asks(task, record)]
            requests = [r for task in asked for r in requests_of(record, prompts[task], self.ledgers[task])]
            new = {request.id: request for request in reversed(requests) if request.id not in seen}
            wanted.append(list(reversed(new.values())))
            seen.update(new)
        return wanted

    def _still_open(
        self, records: list[Record], wanted: list[list[Request]], answered: dict[bytes, int]
    ) -> list[list[Request]]:
        """Those without an answer, and those that refine sent back, with their attempt and seed."""
        return [
            [
                self._attempt(record, request, again)
                for request in requests
                if (again := self._again(request.id)) and again.attempt > answered.get(request.id, -1)
            ]
            for record, requests in zip(records, wanted, strict=True)
        ]

    def _again(self, request: bytes) -> Again | None:
        if self.only is not None:
            return self.only.get(request)
        return self.asks.get(request, _FIRST)

    def _attempt(self, record: Record, request: Request, again: Again) -> Request:
        ask = again.ask(self.engine.prompts()[request.task], request, record)
        return Request(request.id, request.task, ask, again.attempt, self._seed(request, again.attempt))

    def _seed(self, request: Request, attempt: int) -> int:
        return 0 if self.engine.deterministic else seed_of(self.settings.seed, request.id, attempt)

    def _answered(self, requests: list[Request]) -> dict[bytes, int]:
        """The attempt that answered each request which has an answer."""
        answered: dict[bytes, int] = {}
        for task, ledger in self.ledgers.items():
            mine = [request.id for request in requests if request.task == task]
            answered |= _answers(ledger, self.look).attempts(mine)
        return answered


_FIRST = Again(0)
_engines: dict[str, Answerer] = {}
_starting = Lock()


def _started(engine: Engine) -> Answerer:
    """The engine of this worker process, started once whatever the number of chunks and threads."""
    key = repr(engine)
    with _starting:
        if key not in _engines:
            _engines[key] = engine.start()
        return _engines[key]


@lru_cache(maxsize=4)
def _answers(ledger: Ledger, look: str) -> Answered:
    """What the ledger had answered when this driver began, read once per worker process."""
    return ledger.answered()


@lru_cache(maxsize=4)
def _index(ledger: Ledger, look: str) -> Found:
    """All that the ledger held when this driver began: errors too, for runs over some requests."""
    return ledger.index()


def _failed(entries: Entries) -> list[list[object]]:
    """[record, task, error, detail] of each request that got an error; an earlier answer of it was sent back."""
    return [[row[1], task, row[4], row[5] or ""] for task, rows in entries.items() for row in rows if row[4]]


def _tokens(entries: Entries) -> dict[str, int]:
    rows = [row for task in entries.values() for row in task]
    return {name: sum(int(row[-3 + i]) for row in rows) for i, name in enumerate(TOKENS)}  # type: ignore[call-overload]
