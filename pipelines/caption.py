"""caption: ask an engine what the records need and the ledger does not hold.

The unit of work is a chunk of images with all their open requests. A chunk's answers are committed as one file, so
that a run that was killed repeats at most the chunks in flight, and no request is ever answered twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Literal

from llmdet import files, rejects
from llmdet.attaching import wants_lmm
from llmdet.errors import ImageError
from llmdet.prompts.prompt import Task
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.workspace import Manifest, Table, Workspace, fingerprint
from pipelines.answers import TASKS, ledgers_of, point, requests_of
from pipelines.chunks import chunks_of, read_run
from pipelines.cluster import cluster
from pipelines.engines.engine import (
    Answer,
    Engine,
    Job,
    Request,
    seed_of,
)
from pipelines.lease import Held, hold
from pipelines.ledger import Found, Ledger, entry, ids_of
from pipelines.parts import Outcome, Progress, Row, run_parts

Entries = dict[Task, list[tuple[object, ...]]]  # rows of the ledger's schema


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """What is asked, and in what portions."""

    task: Literal["image", "region", "all"] = "all"
    # missing: an image is not described again where its source's own caption is to be used (llmdet.attaching)
    images: Literal["all", "missing"] = "all"
    chunk_images: int = 1024  # images per unit of work; what a kill can cost
    seed: int = 0  # base of all sampling seeds
    shard: tuple[int, int] = (0, 1)  # this driver's share of the chunks: i of n
    concurrency: int | None = None  # parallel chunks; None: as many as the cluster has CPUs

    @property
    def tasks(self) -> tuple[Task, ...]:
        return TASKS if self.task == "all" else (self.task,)

    def asks(self, task: Task, record: Record) -> bool:
        """Whether a task is asked about a record."""
        return task != "image" or self.images == "all" or wants_lmm(record)


@dataclass(frozen=True, slots=True)
class CaptionOutcome(Outcome):
    """What a caption run did; tokens are of this run only."""

    requests: int = 0  # that the records need
    answered: int = 0  # that have an answer now
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    ledgers: dict[str, str] = field(default_factory=dict)  # task -> address


def caption(
    workspace: Workspace,
    source: str,
    engine: Engine,
    settings: CaptionSettings | None = None,
    progress: Progress | None = None,
) -> CaptionOutcome:
    """Answer every open request of a source's records.

    Raises MissingError when the source was not ingested, BusyError when another driver writes to the same ledger.
    """
    settings = settings or CaptionSettings()
    started = time.monotonic()
    records = workspace.best_records(source)
    manifest = records.require(f"run: llmdet-data ingest --source {source}")
    ledgers = ledgers_of(workspace, source, engine, settings.tasks)
    state = {"records": manifest.fingerprint, "asks": _asks_state(workspace, source), "images": settings.images}
    inputs = fingerprint(state)
    complete = [_complete(ledger, inputs) for ledger in ledgers.values()]
    if all(complete):
        point(workspace, source, engine, ledgers)
        return _result(ledgers, manifest, [{"asked": counts} for counts in complete], 0.0, skipped=True)
    with ExitStack() as stack:
        held = {task: stack.enter_context(_hold(ledger, settings)) for task, ledger in ledgers.items()}
        stack.enter_context(cluster())
        epochs = {task: one.epoch for task, one in held.items()}
        work = _Ask(records, ledgers, epochs, engine, settings, _open_asks(workspace, source), _root(manifest))
        chunks = chunks_of(records, manifest, settings.chunk_images, settings.shard)
        rows = run_parts(chunks, work, progress=_watch(held, progress), concurrency=settings.concurrency)
        point(workspace, source, engine, ledgers)
        _commit_rejects(workspace, source, settings, rows)
        for task, ledger in ledgers.items():
            _mark_complete(ledger, task, inputs, rows, settings)
    return _result(ledgers, manifest, rows, time.monotonic() - started)


def _hold(ledger: Ledger, settings: CaptionSettings) -> AbstractContextManager[Held]:
    return hold(ledger.url, settings.shard, ledger.next_epoch())


def _watch(held: Mapping[Task, Held], progress: Progress | None) -> Progress:
    """Progress that stops the run when another driver has taken a lease over."""

    def watch(done: int, total: int | None) -> None:
        for one in held.values():
            one.check()
        if progress:
            progress(done, total)

    return watch


# --- what is open --------------------------------------------------------------------------------------------------


def _root(manifest: Manifest) -> str:
    return str(manifest.info.get("images", ""))


def _asks_state(workspace: Workspace, source: str) -> str:
    asks = workspace.asks(source).manifest()
    return asks.fingerprint if asks and asks.rows else ""


def _open_asks(workspace: Workspace, source: str) -> dict[bytes, int]:
    """Requests that refine sent back, with the attempt that they wait for."""
    table = workspace.asks(source)
    if table.manifest() is None:
        return {}
    return {row["request_id"]: row["attempt"] for part in table.batches() for row in part.to_pylist()}


def _complete(ledger: Ledger, inputs: str) -> Row | None:
    """What an earlier run counted, where it answered everything that these inputs need and no file is gone."""
    url = files.join(ledger.url, "complete.json")
    if not files.exists(url):
        return None
    value = files.read_json(url)
    same = value["inputs"] == inputs and set(value["parts"]) <= set(ledger.names())
    return dict(value["asked"]) if same else None


def _mark_complete(ledger: Ledger, task: Task, inputs: str, rows: list[Row], settings: CaptionSettings) -> None:
    """Note that there is nothing left to ask; a request without an answer is asked again by the next run."""
    if settings.shard[1] > 1 or any(failed[1] == task for row in rows for failed in row["failed"]):
        return
    asked = {task: sum(row["asked"][task] for row in rows)}
    note = {"inputs": inputs, "parts": ledger.names(), "asked": asked}
    files.write_json(files.join(ledger.url, "complete.json"), note)


# --- work ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ask:
    """The work on one chunk: read its records, ask what is open, commit the answers."""

    records: Table
    ledgers: dict[Task, Ledger]
    epochs: dict[Task, int]
    engine: Engine
    settings: CaptionSettings
    asks: dict[bytes, int]
    root: str

    def __call__(self, item: Row) -> Row:
        records = [record for run in item["rows"] for record in read_run(self.records, run)]
        wanted = self._wanted(records)
        answered = self._answered([request for requests in wanted for request in requests])
        # Ray repeats a task whose worker died; what it committed before it died stays.
        before = {task: ledger.committed(self.epochs[task], item["chunk"]) for task, ledger in self.ledgers.items()}
        waiting = [
            [request for request in requests if before[request.task] is None]
            for requests in self._still_open(wanted, answered)
        ]
        entries = {task: rows or [] for task, rows in before.items()}
        self._ask(records, waiting, entries)
        for task, rows in entries.items():
            if rows and before[task] is None:
                self.ledgers[task].append(self.epochs[task], item["chunk"], rows)
        asked = {task: sum(r.task == task for requests in wanted for r in requests) for task in self.ledgers}
        return {"asked": asked, "failed": _failed(entries), **_tokens(entries)}

    def _ask(self, records: list[Record], waiting: list[list[Request]], entries: Entries) -> None:
        """Add an entry for every request that waits."""
        jobs: list[Job] = []
        for record, requests in zip(records, waiting, strict=True):
            if requests:
                self._add(record, requests, jobs, entries)
        for job, answers in zip(jobs, self.engine.answer(jobs) if jobs else [], strict=True):
            for request, answer in zip(job.requests, answers, strict=True):
                entries[request.task].append(entry(request, job.record.id, answer))

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

    def _still_open(self, wanted: list[list[Request]], answered: dict[bytes, int]) -> list[list[Request]]:
        """Those without an answer, and those that refine sent back, with their attempt and seed."""
        return [
            [
                Request(request.id, request.task, request.ask, attempt, self._seed(request, attempt))
                for request in requests
                if (attempt := self.asks.get(request.id, 0)) > answered.get(request.id, -1)
            ]
            for requests in wanted
        ]

    def _seed(self, request: Request, attempt: int) -> int:
        return 0 if self.engine.deterministic else seed_of(self.settings.seed, request.id, attempt)

    def _answered(self, requests: list[Request]) -> dict[bytes, int]:
        """The attempt that answered each request which has an answer."""
        answered: dict[bytes, int] = {}
        for task, ledger in self.ledgers.items():
            mine = [request.id for request in requests if request.task == task]
            found = _index(ledger, self.epochs[task])
            if mine and len(found.ids):
                at = found.positions(ids_of(mine))
                good = [(i, p) for i, p in zip(mine, at.tolist(), strict=True) if p >= 0 and found.ok[p]]
                answered.update((i, int(found.attempt[p])) for i, p in good)
        return answered


@lru_cache(maxsize=4)
def _index(ledger: Ledger, epoch: int) -> Found:
    """What the ledger held when this driver began, read once per worker process."""
    return ledger.index()


def _failed(entries: Entries) -> list[list[object]]:
    """[record, task, error, detail] of each request that got an error; an earlier answer of it was sent back."""
    return [[row[1], task, row[4], row[5] or ""] for task, rows in entries.items() for row in rows if row[4]]


def _tokens(entries: Entries) -> dict[str, int]:
    rows = [row for task in entries.values() for row in task]
    return {name: sum(int(row[-3 + i]) for row in rows) for i, name in enumerate(_TOKENS)}  # type: ignore[call-overload]


_TOKENS = ("prompt_tokens", "cached_tokens", "answer_tokens")


# --- result --------------------------------------------------------------------------------------------------------


def _result(
    ledgers: dict[Task, Ledger], manifest: Manifest, rows: list[Row], seconds: float, skipped: bool = False
) -> CaptionOutcome:
    """Totals of this run over what the records need now; a ledger may hold answers to older records too."""
    counts = rejects.by_reason(_rejects(rows))
    asked = sum(count for row in rows for count in row["asked"].values())
    return CaptionOutcome(
        records=manifest.rows,
        rejects=counts,
        faults=counts,
        seconds=round(seconds, 3),
        skipped=skipped,
        requests=asked,
        answered=asked - sum(counts.values()),
        **{name: sum(row.get(name, 0) for row in rows) for name in _TOKENS},
        ledgers={task: ledger.url for task, ledger in ledgers.items()},
    )


def _rejects(rows: list[Row]) -> list[Reject]:
    return [
        Reject(f"{record}?{task}", "request", "fault", "caption", error, detail)
        for row in rows
        for record, task, error, detail in row.get("failed", [])
    ]


def _commit_rejects(workspace: Workspace, source: str, settings: CaptionSettings, rows: list[Row]) -> None:
    """Write the requests without an answer; those of tasks that were not asked now stay.

    Shards that run side by side have a table each, which a run over everything replaces.
    """
    i, n = settings.shard
    table = workspace.rejects("caption" if n == 1 else f"caption-{i}-of-{n}", source)
    others = [
        reject
        for part in (table.batches() if table.manifest() else [])
        for reject in rejects.from_batch(part)
        if reject.id.rpartition("?")[2] not in settings.tasks
    ]
    left_out = sorted(others + _rejects(rows), key=lambda reject: reject.id)
    if left_out or table.manifest():
        key = fingerprint([asdict(reject) for reject in left_out])
        table.commit(Manifest("caption", key, (table.write_part(0, key, rejects.to_batch(left_out)),)))
    for stage in workspace.children("rejects"):
        if stage.startswith("caption") and (stage != "caption" if n == 1 else not stage.endswith(f"-of-{n}")):
            workspace.rejects(stage, source).remove()
