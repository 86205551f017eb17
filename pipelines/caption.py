"""caption: ask an engine what the records need and the ledger does not hold.

The unit of work is a chunk of images with all their open requests. A chunk's answers are committed as one file, so
that a run that was killed repeats at most the chunks in flight, and no request is ever answered twice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from llmdet import files, rejects
from llmdet.errors import ImageError
from llmdet.prompts import PROMPTS
from llmdet.prompts.prompt import Prompt, Task
from llmdet.record import Provenance, Record, from_batch
from llmdet.rejects import Reject
from llmdet.workspace import Manifest, Table, Workspace, fingerprint
from pipelines.cluster import cluster
from pipelines.engines.engine import (
    Answer,
    Engine,
    Job,
    Request,
    fingerprint_of,
    image_key,
    provenance_of,
    request_id,
    seed_of,
)
from pipelines.lease import hold
from pipelines.ledger import Found, Ledger, entry, ids_of
from pipelines.parts import Outcome, Progress, Row, run_parts


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """What is asked, and in what portions."""

    task: Literal["image", "region", "all"] = "all"
    chunk_images: int = 1024  # images per unit of work; what a kill can cost
    seed: int = 0  # base of all sampling seeds
    shard: tuple[int, int] = (0, 1)  # this driver's share of the chunks: i of n
    concurrency: int | None = None  # parallel chunks; None: as many as the cluster has CPUs

    @property
    def tasks(self) -> tuple[Task, ...]:
        return ("image", "region") if self.task == "all" else (self.task,)


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
    inputs = fingerprint({"records": manifest.fingerprint, "asks": _asks_state(workspace, source)})
    if all(_complete(ledger, inputs) for ledger in ledgers.values()):
        _point(workspace, source, engine, ledgers)
        return _result(workspace, source, ledgers, manifest, 0.0, [], skipped=True)
    with ExitStack() as stack:
        epochs = {task: stack.enter_context(hold(ledger.url, settings.shard)).epoch for task, ledger in ledgers.items()}
        stack.enter_context(cluster())
        work = _Ask(records, ledgers, epochs, engine, settings, _open_asks(workspace, source, ledgers), _root(manifest))
        chunks = _chunks(records, manifest, settings)
        rows = run_parts(chunks, work, progress=progress, concurrency=settings.concurrency)
        _point(workspace, source, engine, ledgers)
        result = _result(workspace, source, ledgers, manifest, time.monotonic() - started, rows)
        if settings.shard[1] == 1:
            for ledger in ledgers.values():
                _mark_complete(ledger, inputs)
    return result


def ledgers_of(workspace: Workspace, source: str, engine: Engine, tasks: Sequence[Task]) -> dict[Task, Ledger]:
    """The ledger of each task under the engine's prompts and settings."""
    identity, prompts = engine.identity(), engine.prompts()
    return {task: Ledger(workspace.responses(source, task, fingerprint_of(prompts[task], identity))) for task in tasks}


@dataclass(frozen=True, slots=True)
class Said:
    """Where the newest answers of a task are, with what is needed to read them."""

    ledger: Ledger
    prompt: Prompt
    provenance: Provenance
    deterministic: bool


def _point(workspace: Workspace, source: str, engine: Engine, ledgers: dict[Task, Ledger]) -> None:
    """Say which ledgers hold the newest answers; tasks that were not asked now keep theirs."""
    url = workspace.path("responses", source, "latest.json")
    latest = files.read_json(url) if files.exists(url) else {}
    for task, prompt in engine.prompts().items():
        if task in ledgers:
            latest[task] = {
                "ledger": ledgers[task].url.rsplit("/", 1)[-1],
                "prompt": asdict(prompt),  # type: ignore[call-overload]
                "provenance": asdict(provenance_of(prompt, engine.identity())),
                "deterministic": engine.deterministic,
            }
    files.write_json(url, latest)


def latest(workspace: Workspace, source: str) -> dict[Task, Said]:
    """The newest answers of each task of a source; empty where nothing was asked."""
    url = workspace.path("responses", source, "latest.json")
    if not files.exists(url):
        return {}
    return {
        task: Said(
            Ledger(workspace.path("responses", source, value["ledger"])),
            PROMPTS[value["prompt"]["id"]](**value["prompt"]),
            Provenance(**value["provenance"]),
            value["deterministic"],
        )
        for task, value in files.read_json(url).items()
    }


def requests_of(record: Record, prompt: Prompt, ledger: Ledger) -> list[Request]:
    """What a prompt asks about a record, first attempt."""
    name = ledger.url.rsplit("-", 1)[-1]
    key = image_key(record)
    return [Request(request_id(name, key, ask), prompt.task, ask) for ask in prompt.render(record)]


# --- plan ----------------------------------------------------------------------------------------------------------


def _chunks(records: Table, manifest: Manifest, settings: CaptionSettings) -> list[Row]:
    """Units of work: rows by part, all records of an image in one unit, images in the order of the source."""
    keys = pl.concat(
        [_image_keys(records.read(part.name, ["image_sha256", "root", "image"])) for part in manifest.parts]
    )
    order = np.arange(len(keys))
    if keys.is_duplicated().any():
        first = pl.DataFrame({"key": keys, "row": order}).with_columns(pl.col("row").min().over("key").alias("first"))
        order = first.sort("first", "row")["row"].to_numpy()
    starts = np.cumsum([0, *(part.rows for part in manifest.parts)])
    part_of = np.searchsorted(starts, order, side="right") - 1
    images = np.cumsum(np.r_[True, (keys.gather(order).to_numpy()[1:] != keys.gather(order).to_numpy()[:-1])]) - 1
    chunk_of = images // settings.chunk_images
    edges = np.flatnonzero(np.diff(chunk_of, prepend=-1, append=chunk_of[-1] + 1)) if len(order) else np.array([0])
    names = [part.name for part in manifest.parts]
    chunks = []
    for number, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        if number % settings.shard[1] == settings.shard[0]:
            rows = _by_part(part_of[a:b], order[a:b] - starts[part_of[a:b]], names)
            chunks.append({"chunk": number, "rows": rows})
    return chunks


def _image_keys(table: pa.Table) -> pl.Series:
    """`image_key` of every row, in bulk."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.select(
        pl.coalesce("image_sha256", pl.concat_str("root", "image", separator="/")).hash(0).alias("key")
    )["key"]


def _by_part(parts: Any, rows: Any, names: list[str]) -> list[list[Any]]:
    """[[part name, [rows]], ...]: runs of neighbouring rows of the same part."""
    edges = np.flatnonzero(np.diff(parts, prepend=-1, append=-1))
    return [[names[parts[a]], rows[a:b].tolist()] for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _root(manifest: Manifest) -> str:
    return str(manifest.info.get("images", ""))


def _asks_state(workspace: Workspace, source: str) -> str:
    asks = workspace.asks(source).manifest()
    return asks.fingerprint if asks else ""


def _open_asks(workspace: Workspace, source: str, ledgers: dict[Task, Ledger]) -> dict[bytes, int]:
    """Requests that refine sent back, with the attempt that they wait for."""
    table = workspace.asks(source)
    if table.manifest() is None:
        return {}
    return {row["request_id"]: row["attempt"] for part in table.batches() for row in part.to_pylist()}


def _complete(ledger: Ledger, inputs: str) -> bool:
    url = files.join(ledger.url, "complete.json")
    return (
        files.exists(url) and files.read_json(url).get("inputs") == inputs and not _lost(ledger, files.read_json(url))
    )


def _lost(ledger: Ledger, complete: dict[str, Any]) -> bool:
    return not set(complete["parts"]) <= set(ledger.names())


def _mark_complete(ledger: Ledger, inputs: str) -> None:
    files.write_json(files.join(ledger.url, "complete.json"), {"inputs": inputs, "parts": ledger.names()})


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
        records = [record for name, rows in item["rows"] for record in _read(self.records, name, rows)]
        wanted = self._wanted(records)
        jobs: list[Job] = []
        entries: dict[Task, list[tuple[object, ...]]] = {task: [] for task in self.ledgers}
        for record, waiting in zip(records, self._still_open(wanted), strict=True):
            if waiting:
                self._add(record, waiting, jobs, entries)
        for job, answers in zip(jobs, self.engine.answer(jobs), strict=True):
            for request, answer in zip(job.requests, answers, strict=True):
                entries[request.task].append(entry(request, job.record.id, answer))
        for task, rows in entries.items():
            if rows:
                self.ledgers[task].append(self.epochs[task], item["chunk"], rows)
        return {"requests": sum(len(requests) for requests in wanted), **_tokens(entries)}

    def _add(self, record: Record, waiting: list[Request], jobs: list[Job], entries: dict[Task, Any]) -> None:
        try:
            jobs.append(Job(record, files.safe_join(self.root, record.image), tuple(waiting)))
        except ImageError as error:
            for request in waiting:
                entries[request.task].append(entry(request, record.id, Answer(error=error.reason, detail=error.detail)))

    def _wanted(self, records: list[Record]) -> list[list[Request]]:
        """Every request of each record; one that an earlier record has as well stays with that record."""
        prompts = self.engine.prompts()
        seen: set[bytes] = set()
        wanted: list[list[Request]] = []
        for record in records:
            requests = [r for task, ledger in self.ledgers.items() for r in requests_of(record, prompts[task], ledger)]
            wanted.append([request for request in requests if request.id not in seen])
            seen.update(request.id for request in requests)
        return wanted

    def _still_open(self, wanted: list[list[Request]]) -> list[list[Request]]:
        """Those without an answer, and those that refine sent back, with their attempt and seed."""
        answered = self._answered([request for requests in wanted for request in requests])
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


@lru_cache(maxsize=2)
def _part(table: Table, name: str) -> pa.Table:
    return table.read(name)


def _read(table: Table, name: str, rows: list[int]) -> Iterator[Record]:
    whole = _part(table, name)
    contiguous = rows[-1] - rows[0] + 1 == len(rows)
    yield from from_batch(whole.slice(rows[0], len(rows)) if contiguous else whole.take(rows))


def _tokens(entries: dict[Task, list[tuple[object, ...]]]) -> dict[str, int]:
    rows = [row for task in entries.values() for row in task]
    names = ("prompt_tokens", "cached_tokens", "answer_tokens")
    return {name: sum(int(row[-3 + i]) for row in rows) for i, name in enumerate(names)}  # type: ignore[call-overload]


# --- result --------------------------------------------------------------------------------------------------------


def _result(
    workspace: Workspace,
    source: str,
    ledgers: dict[Task, Ledger],
    manifest: Manifest,
    seconds: float,
    rows: list[Row],
    skipped: bool = False,
) -> CaptionOutcome:
    """Totals, and the requests without an answer as reject rows."""
    indexes = {task: ledger.index() for task, ledger in ledgers.items()}
    left_out = [reject for task, ledger in ledgers.items() for reject in _failures(task, ledger, indexes[task])]
    table = workspace.rejects("caption", source)
    key = fingerprint([(r.id, r.reason) for r in left_out])
    if left_out or table.manifest():
        part = table.write_part(0, key, rejects.to_batch(left_out))
        table.commit(Manifest("caption", key, (part,)))
    counts = rejects.by_reason(left_out)
    total = {
        name: sum(row.get(name, 0) for row in rows)
        for name in ("requests", "prompt_tokens", "cached_tokens", "answer_tokens")
    }
    answered = sum(int(found.ok.sum()) for found in indexes.values())
    return CaptionOutcome(
        records=manifest.rows,
        rejects=counts,
        faults=counts,
        seconds=round(seconds, 3),
        skipped=skipped,
        requests=total["requests"] or answered + len(left_out),
        answered=answered,
        prompt_tokens=total["prompt_tokens"],
        cached_tokens=total["cached_tokens"],
        answer_tokens=total["answer_tokens"],
        ledgers={task: ledger.url for task, ledger in ledgers.items()},
    )


def _failures(task: Task, ledger: Ledger, found: Found) -> list[Reject]:
    return [
        Reject(f"{row['record_id']}?{task}", "request", "fault", "caption", row["error"], row["detail"] or "")
        for row in ledger.errors(found).to_pylist()
    ]
