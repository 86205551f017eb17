"""A stage is a map over the parts of a table: one row of the Ray dataset is one part.

Paths and row numbers travel, records are read and written by the worker that needs them. A finished part is found again
by its name, so a stage that was killed anywhere continues; the order of rows is the order of parts, whatever the
number of workers.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson
import pyarrow as pa

from llmdet import errors, files, rejects
from llmdet.errors import DamagedError, LlmdetError, MissingError, SettingError
from llmdet.workspace import Manifest, Part, Sealed, Table, from_parquet, read_sealed, to_parquet
from pipelines.cluster import ray_data
from pipelines.stop import draining, stopping

Row = dict[str, Any]
_STOPPED = b"stopped"
_RETRIES = 5  # of an item whose worker died: of a bug, of too little memory, or with its machine
Progress = Callable[[int, int | None], None]  # (done, total or None while it is not known)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage did; the base of every command's result."""

    records: int = 0
    rejects: dict[str, int] = field(default_factory=dict)  # by reason, all levels
    faults: dict[str, int] = field(default_factory=dict)  # by reason, records and requests only
    seconds: float = 0.0
    skipped: bool = False  # the manifest was there with the same inputs and settings


@dataclass(frozen=True, slots=True)
class PartOutput:
    """One part of a stage: its rows, and what was left out."""

    data: pa.RecordBatch | pa.Table | Sealed
    left_out: list[rejects.Reject] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StageTables:
    """Where a stage writes, and the fingerprint of what it writes."""

    stage: str
    table: Table
    rejects: Table
    fingerprint: str

    def done(self) -> Manifest | None:
        """The manifest of an earlier run with the same inputs and settings, if there is one."""
        manifest, left_out = self.table.manifest(), self.rejects.manifest()
        # A run that was killed between its two commits has left another run's rejects beside this table.
        same = manifest and left_out and manifest.fingerprint == left_out.fingerprint == self.fingerprint
        return manifest if same else None

    def write(self, index: int, output: PartOutput) -> Row:
        """Write one part with its rejects, rejects first: where a part is, its rejects are too."""
        rejected = rejects.to_batch(output.left_out) if output.left_out else _no_rejects()
        left_out = self.rejects.write_part(index, self.fingerprint, rejected)
        part = self.table.write_part(index, self.fingerprint, output.data)
        return _row(index, part, left_out, output.left_out)

    def adopt(self, index: int) -> Row | None:
        """A part that an earlier, interrupted run finished; None where it must be made."""
        name = self.table.part_name(index, self.fingerprint)
        try:
            part, _ = stored(self.table, name)
            left_out, rows = stored(self.rejects, name)
        except (MissingError, DamagedError):
            return None
        return _row(index, part, left_out, rejects.from_batch(rows))

    def commit(self, rows: list[Row], *, started: float, **manifest: Any) -> Outcome:
        """Write both manifests from what `write` and `adopt` returned."""
        rows = sorted(rows, key=lambda row: row["index"])
        counts = _counts(rows)
        left_out = tuple(Part(*row["rejects"]) for row in rows)
        self.rejects.commit(Manifest(self.stage, self.fingerprint, left_out, {"faults": counts["faults"]}))
        parts = tuple(Part(*row["part"]) for row in rows)
        seconds = round(time.monotonic() - started, 3)
        self.table.commit(Manifest(self.stage, self.fingerprint, parts, {**counts, "seconds": seconds}, **manifest))
        return outcome_of(counts, seconds)


def outcome_of(counts: dict[str, Any], seconds: float, skipped: bool = False) -> Outcome:
    """The outcome that a manifest's counts tell of."""
    return Outcome(counts["records"], counts["rejects"], counts["faults"], seconds, skipped)


def _row(index: int, part: Part, left_out: Part, left_out_rows: list[rejects.Reject]) -> Row:
    by_reason: Counter[str] = Counter(reject.reason for reject in left_out_rows)
    faults = Counter(r.reason for r in left_out_rows if r.kind == "fault" and r.level != "annotation")
    return {
        "index": index,
        "part": [part.name, part.rows, part.sha256],
        "rejects": [left_out.name, left_out.rows, left_out.sha256],
        "reasons": dict(by_reason),
        "faults": dict(faults),
    }


def _counts(rows: list[Row]) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for row in rows:
        reasons.update(row["reasons"])
        faults.update(row["faults"])
    return {
        "records": sum(row["part"][1] for row in rows),
        "rejects": dict(sorted(reasons.items())),
        "faults": dict(sorted(faults.items())),
    }


@cache
def _no_rejects() -> Sealed:
    """The file of a part of which nothing was left out."""
    data = to_parquet(rejects.to_batch([]))
    return Sealed(data, files.sha256(data))


def stored(table: Table, name: str) -> tuple[Part, pa.Table]:
    """A part that is there. Raises MissingError, DamagedError."""
    file = read_sealed(files.join(table.url, name))
    rows = from_parquet(file.data)
    return Part(name, rows.num_rows, file.sha256), rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """What work that holds a model or connections needs of Ray: actors that live as long as the run."""

    count: int | None = None  # None: as many as the cluster's GPUs allow, one where it needs none
    num_cpus: float = 1
    num_gpus: float = 0
    items: int = 4  # that a worker has at once, so that the end of one does not leave it idle
    item_images: int = 32  # images in an item, unless a run says otherwise
    environment: dict[str, str] = field(default_factory=dict)


def run_parts(
    items: list[Row],
    work: Callable[[Row], Row],
    *,
    progress: Progress | None = None,
    concurrency: int | None = None,
    pool: Workers | None = None,
    each: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Run `work` on every item with Ray Data, one item per block, and collect what it returns.

    In tasks, or with `pool` in actors that keep what they started. `each` gets every result as it comes. Items and
    results are JSON-like. Raises the LlmdetError that a worker raised, as itself, and LlmdetError for items that kill
    every worker which tries them.
    """
    if not items:
        return []
    data = ray_data()
    packed = data.from_items([{"item": orjson.dumps(item)} for item in items], override_num_blocks=len(items))
    job = Packed(work, unpack=True)
    if pool is None:
        tasks = packed.map(job, concurrency=concurrency, max_retries=_RETRIES)
        return collect(tasks, len(items), progress, each)
    size = min(pool_size(pool, concurrency), len(items))
    strategy = data.ActorPoolStrategy(
        size=size,
        max_concurrent_calls_per_actor=pool.items,
        max_tasks_in_flight_per_actor=2 * pool.items,
        enable_true_multi_threading=True,
    )
    options: Any = {"num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus or None, "compute": strategy}
    # A worker is started again as often as it dies, but nothing is tried for ever: an item may be what kills it.
    options |= {"max_restarts": -1, "max_task_retries": _RETRIES}
    if pool.environment:
        options["runtime_env"] = {"env_vars": pool.environment}
    actors = packed.map(_Actor, fn_constructor_args=(job,), **options)
    return collect(actors, len(items), progress, each)


def pool_size(pool: Workers, concurrency: int | None = None) -> int:
    """How many workers a run has where there is enough to do."""
    return concurrency or pool.count or _room(pool)


def _room(pool: Workers) -> int:
    """How many workers the cluster's GPUs allow; one where they need none."""
    import ray

    if not pool.num_gpus:
        return 1
    there = ray.cluster_resources().get("GPU", 0)
    if there < pool.num_gpus:
        raise SettingError(f"a worker needs {pool.num_gpus:g} GPUs; this Ray cluster has {there:g}")
    return int(there // pool.num_gpus)


class _Actor:
    """Work in a process that lives as long as the run; what the work starts stays with it."""

    def __init__(self, job: Packed) -> None:
        self._job = job

    def __call__(self, row: Row) -> Row:
        return self._job(row)


@dataclass(frozen=True)
class Packed:
    """Work whose result travels as JSON: Arrow would force one type on lists of mixed values.

    Errors of ours travel as results too, and those of the machine (a full disk). Raised inside a worker they would come
    out as pages of Ray's own traces.
    """

    work: Callable[[Row], Row]
    unpack: bool = False

    def __call__(self, row: Row) -> Row:
        if stopping():
            return {"result": _STOPPED}
        try:
            result = self.work(orjson.loads(row["item"]) if self.unpack else row)
        except (LlmdetError, OSError) as error:
            result = failure(error)
        return {"result": orjson.dumps(result)}


def failure(error: LlmdetError | OSError) -> Row:
    """An error of ours, or of the machine, as a result."""
    return {"failure": [type(error).__name__, str(error)]}


def raise_failure(row: Row) -> None:
    """Raise the error that a result stands for, if it stands for one."""
    if "failure" in row:
        name, message = row["failure"]
        kind = getattr(errors, name, LlmdetError)
        raise (LlmdetError if kind is errors.ImageError else kind)(message)


def collect(
    dataset: Any, total: int | None, progress: Progress | None = None, each: Callable[[Row], None] | None = None
) -> list[Row]:
    """Every result of `Packed` work as it comes. Raises the LlmdetError that a worker met, SystemExit after SIGTERM."""
    rows: list[Row] = []
    with draining(), in_one_line():
        for packed in dataset.iter_rows():
            if packed["result"] == _STOPPED:
                continue  # `draining` ends with SystemExit
            row = orjson.loads(packed["result"])
            raise_failure(row)
            rows.append(row)
            if each:
                each(row)
            if progress:
                progress(len(rows), total)
    return rows


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """What Ray itself gives up on becomes a LlmdetError; an exception in a worker stays, for it is a bug of ours."""
    from ray import exceptions

    goes_on = "what was finished is kept, and the same command goes on"
    try:
        yield
    except (exceptions.OutOfMemoryError, exceptions.OutOfDiskError, exceptions.ObjectStoreFullError) as error:
        raise LlmdetError(
            f"a machine ran out of memory or disk, {_RETRIES + 1} times over the same work; {goes_on} with fewer "
            f"workers (concurrency), smaller chunks (chunk_images) or a larger machine. Ray says: {_first(error)}"
        ) from error
    except (exceptions.WorkerCrashedError, exceptions.RayActorError, exceptions.NodeDiedError) as error:
        raise LlmdetError(
            f"the process of a worker died {_RETRIES + 1} times over the same work: the engine crashes, or the system "
            f"kills it for its memory; {goes_on}. Ray says: {_first(error)}"
        ) from error
    except exceptions.RayError as error:
        if isinstance(error, exceptions.RayTaskError):
            raise
        raise LlmdetError(f"Ray stopped the work ({_first(error)}); {goes_on}") from error


def _first(error: Exception) -> str:
    """The first line of what Ray says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'nothing'}"[:300]
