"""caption: ask an engine what the records need and the ledger does not hold.

The unit of work is a chunk of images with all their open requests. A chunk's answers are committed as one file, so
that a run that was killed repeats at most the chunks in flight, and no request is ever answered twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from typing import Literal

from llmdet import files, rejects
from llmdet.attaching import wants_lmm
from llmdet.prompts.prompt import Task
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.workspace import Manifest, Workspace, fingerprint
from pipelines.answers import TASKS, ledgers_of, point
from pipelines.asking import Again, Asking, open_asks
from pipelines.chunks import chunks_of
from pipelines.cluster import cluster
from pipelines.engines.engine import Engine
from pipelines.lease import Held, hold
from pipelines.ledger import Ledger
from pipelines.live import TOKENS, Live, Meter, Teller, shown
from pipelines.parts import Outcome, Progress, Row, pool_size, run_parts
from pipelines.prices import Prices

CHUNK_IMAGES = 1024  # of an engine without workers of its own: a fraction of a second of work


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """What is asked, and in what portions."""

    task: Literal["image", "region", "all"] = "all"
    # missing: an image is not described again where its source's own caption is to be used (llmdet.attaching)
    images: Literal["all", "missing"] = "all"
    chunk_images: int | None = None  # images per unit of work; what a kill can cost; None: as suits the engine
    seed: int = 0  # base of all sampling seeds
    shard: tuple[int, int] = (0, 1)  # this driver's share of the chunks: i of n
    concurrency: int | None = None  # parallel workers; None: as the engine says, or as the cluster has CPUs
    price: Prices = field(default_factory=Prices)  # of what is shown and recorded as cost

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
    asked: int = 0  # of the requests, by this run
    failed: int = 0  # of those
    cost: float = 0.0  # of this run, in the currency of its prices
    ledgers: dict[str, str] = field(default_factory=dict)  # task -> address


def caption(
    workspace: Workspace,
    source: str,
    engine: Engine,
    settings: CaptionSettings | None = None,
    progress: Progress | None = None,
    only: Mapping[bytes, Again] | None = None,
) -> CaptionOutcome:
    """Answer every open request of a source's records; with `only`, these requests and no others.

    Raises MissingError when the source was not ingested, BusyError when another driver writes to the same ledger.
    """
    settings = settings or CaptionSettings()
    started = time.monotonic()
    records = workspace.best_records(source)
    manifest = records.require(f"run: llmdet-data ingest --source {source}")
    ledgers = ledgers_of(workspace, source, engine, settings.tasks, settings.seed)
    state = {"records": manifest.fingerprint, "asks": _asks_state(workspace, source), "images": settings.images}
    inputs = fingerprint(state)
    complete = [_complete(ledger, inputs) for ledger in ledgers.values()]
    if all(complete) and only is None:
        point(workspace, source, engine, ledgers, settings.seed)
        return _result(ledgers, manifest, [{"asked": counts} for counts in complete], skipped=True)
    with ExitStack() as stack:
        held = {task: stack.enter_context(_hold(ledger, settings)) for task, ledger in ledgers.items()}
        stack.enter_context(cluster(workspace.url))
        epochs = {task: one.epoch for task, one in held.items()}
        asks = open_asks(workspace, source)
        work = Asking(records, ledgers, epochs, engine, settings, asks, _root(manifest), only)
        pool = engine.workers()
        size = settings.chunk_images or (pool.item_images if pool else CHUNK_IMAGES)
        chunks = chunks_of(records, manifest, size, settings.shard)
        meter = Meter(workspace, _head(workspace, source, engine, settings, held, len(chunks)), settings.price)
        watch = _watch(held, meter, progress)
        with meter.running():
            rows = run_parts(chunks, work, progress=watch, concurrency=settings.concurrency, pool=pool, each=meter.add)
        point(workspace, source, engine, ledgers, settings.seed)
        _commit_rejects(workspace, source, settings, rows)
        for task, ledger in ledgers.items():
            if only is None:
                _mark_complete(ledger, task, inputs, rows, settings)
    return _result(ledgers, manifest, rows, time.monotonic() - started, meter.live.cost)


def _hold(ledger: Ledger, settings: CaptionSettings) -> AbstractContextManager[Held]:
    return hold(ledger.url, settings.shard, ledger.next_epoch())


def _head(
    workspace: Workspace, source: str, engine: Engine, settings: CaptionSettings, held: Mapping[Task, Held], chunks: int
) -> Live:
    """What is known of a run before its first chunk."""
    identity, pool, gpus = engine.identity(), engine.workers(), settings.price.gpus
    if gpus is None:
        gpus = pool.num_gpus * min(pool_size(pool, settings.concurrency), chunks) if pool and pool.num_gpus else 0.0
    return Live(
        source=source,
        task=settings.task,
        shard=shown(settings.shard),
        engine=identity.engine,
        model=identity.model,
        ledgers={one.url.removeprefix(workspace.url).strip("/"): one.epoch for one in held.values()},
        chunks=chunks,
        gpus=gpus,
    )


def _watch(held: Mapping[Task, Held], meter: Meter, progress: Progress | None) -> Progress:
    """Progress that stops the run when another driver has taken a lease over."""

    def watch(done: int, total: int | None) -> None:
        for one in held.values():
            one.check()
        if isinstance(progress, Teller):
            progress.tell(meter.live.line())
        if progress:
            progress(done, total)

    return watch


# --- what is open --------------------------------------------------------------------------------------------------


def _root(manifest: Manifest) -> str:
    return str(manifest.info.get("images", ""))


def _asks_state(workspace: Workspace, source: str) -> str:
    asks = workspace.asks(source).manifest()
    return asks.fingerprint if asks and asks.rows else ""


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
    if settings.shard[1] > 1 or any(row["never"] for row in rows):
        return
    if any(failed[1] == task for row in rows for failed in row["failed"]):
        return
    asked = {task: sum(row["asked"][task] for row in rows)}
    note = {"inputs": inputs, "parts": ledger.names(), "asked": asked}
    files.write_json(files.join(ledger.url, "complete.json"), note)


# --- result --------------------------------------------------------------------------------------------------------


def _result(
    ledgers: dict[Task, Ledger],
    manifest: Manifest,
    rows: list[Row],
    seconds: float = 0.0,
    cost: float = 0.0,
    skipped: bool = False,
) -> CaptionOutcome:
    """Totals of this run over what the records need now; a ledger may hold answers to older records too."""
    counts = rejects.by_reason(_rejects(rows))
    needed = sum(count for row in rows for count in row["asked"].values())
    return CaptionOutcome(
        records=manifest.rows,
        rejects=counts,
        faults=counts,
        seconds=round(seconds, 3),
        skipped=skipped,
        requests=needed,
        answered=needed - sum(counts.values()) - sum(row.get("never", 0) for row in rows),
        asked=sum(row.get("requests", 0) for row in rows),
        failed=sum(count for row in rows for count in row.get("errors", {}).values()),
        cost=round(cost, 6),
        **{name: sum(row.get(name, 0) for row in rows) for name in TOKENS},
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
