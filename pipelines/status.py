"""status: what a workspace holds and what is being done to it, from manifests, file lists and a few columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import MissingError
from llmdet.workspace import Table, Workspace
from pipelines.answers import latest
from pipelines.lease import leases
from pipelines.ledger import Ledger
from pipelines.live import TOKENS, Live, live_runs

STAGES = {"records": "ingest", "grounded": "ground", "captions": "refine", "asks": "refine"}  # folder -> who writes it
RUNS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table. `finished` is what the manifest names; `pending` parts wait for one that is not written yet."""

    table: str  # folder below the workspace
    stage: str
    source: str
    finished: bool
    rows: int  # of the finished table
    parts: int
    pending: int = 0
    seconds: float | None = None
    rejects: dict[str, int] = field(default_factory=dict)  # by reason
    faults: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What one ledger holds; tokens are of all its answers."""

    source: str
    ledger: str  # <task>-<fingerprint>
    newest: bool  # refine reads this one
    files: int
    answered: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """A lease that somebody holds or left behind."""

    place: str  # folder below the workspace that is written to
    shard: str  # i/n
    owner: str
    host: str
    pid: int
    alive: bool


@dataclass(frozen=True, slots=True)
class DetectorStatus:
    """A detector that was trained here."""

    name: str
    folder: str
    checkpoints: tuple[str, ...]
    finished: bool
    metrics: dict[str, float] = field(default_factory=dict)  # "<set> AP50" -> figure in 0..1


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One entry of `runs/`."""

    run: str
    recipe: str
    records: int
    seconds: float
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class StatusOutcome:
    """Everything that `status` knows."""

    workspace: str
    tables: list[TableStatus]
    ledgers: list[LedgerStatus]
    leases: list[LeaseStatus]
    detectors: list[DetectorStatus]
    runs: list[RunStatus]
    live: list[Live] = field(default_factory=list)  # the last run of caption of each source, the newest first


def status(workspace: Workspace) -> StatusOutcome:
    """Look at a workspace. Raises MissingError where there is none, FormatError for a broken manifest."""
    if not files.exists(workspace.url):
        raise MissingError(f"no workspace at {workspace.url}; start one with: llmdet-data ingest, run or quickstart")
    ledgers = [
        (source, Ledger(workspace.path("responses", source, name)))
        for source in workspace.children("responses")
        for name in workspace.children("responses", source)
    ]
    return StatusOutcome(
        workspace=workspace.url,
        tables=[*_tables(workspace)],
        ledgers=[_ledger(workspace, source, ledger) for source, ledger in ledgers],
        leases=[
            lease
            for url in [*(table.url for _, _, table in tables_of(workspace)), *(ledger.url for _, ledger in ledgers)]
            for lease in _leases(workspace, url)
        ],
        detectors=[_detector(workspace, name) for name in workspace.children("detector")],
        runs=[*_runs(workspace)],
        live=live_runs(workspace),
    )


def newest_detector(workspace: Workspace) -> str:
    """The folder of the detector that was trained last. Raises MissingError where none was."""
    found = [workspace.path("detector", name) for name in workspace.children("detector")]
    if not found:
        raise MissingError(f"no detector in {workspace.url}; run: llmdet-data train, or give --checkpoint")
    return max(found, key=_changed)


def tables_of(workspace: Workspace) -> Iterator[tuple[str, str, Table]]:
    """(stage, source, table) of every table whose folder is there, finished or not, in the order of the flow."""
    for folder, stage in STAGES.items():
        for source in workspace.children(folder):
            yield stage, source, Table(workspace.path(folder, source))
    if files.exists(workspace.groundingcap().url):
        yield "merge", "", workspace.groundingcap()
    for stage in workspace.children("rejects"):
        for source in workspace.children("rejects", stage):
            yield stage, source, workspace.rejects(stage, source)


def _tables(workspace: Workspace) -> Iterator[TableStatus]:
    for stage, source, table in tables_of(workspace):
        name = _below(workspace, table.url)
        manifest = table.manifest()
        if name.startswith("rejects/") and stage != "caption":
            continue  # the manifest of the stage's own table counts them
        named = {part.name for part in manifest.parts} if manifest else set[str]()
        counts = manifest.counts if manifest else {}
        yield TableStatus(
            table=name,
            stage=stage,
            source=source,
            finished=manifest is not None,
            rows=manifest.rows if manifest else 0,
            parts=len(named),
            pending=len(set(table.listing()) - named),
            seconds=counts.get("seconds"),
            rejects=counts.get("rejects") or (_reasons(table) if name.startswith("rejects/") else {}),
            faults=counts.get("faults", {}),
        )


def _reasons(table: Table) -> dict[str, int]:
    """Rejects by reason, where no manifest has counted them."""
    if table.manifest() is None:
        return {}
    columns = [part["reason"] for part in table.batches(["reason"])]
    counts = pl.Series([reason for column in columns for reason in column.to_pylist()], dtype=pl.String).value_counts()
    return dict(sorted(counts.iter_rows()))


def _ledger(workspace: Workspace, source: str, ledger: Ledger) -> LedgerStatus:
    names = ledger.names()
    rows = pl.concat([_keys(ledger, name) for name in names]) if names else None
    answered = failed = 0
    tokens = dict.fromkeys(TOKENS, 0)
    if rows is not None:
        requests = rows.group_by("request_id").agg(pl.col("ok").any())
        answered = int(requests["ok"].sum())
        failed = len(requests) - answered
        tokens = {name: int(rows[name].sum()) for name in TOKENS}
    name = ledger.url.rsplit("/", 1)[-1]
    return LedgerStatus(source, name, name in _newest(workspace, source), len(names), answered, failed, **tokens)


def _keys(ledger: Ledger, name: str) -> pl.DataFrame:
    """Ids, success and tokens of one file, without reading the texts."""
    fs, path = url_to_fs(files.join(ledger.url, name))
    try:
        with fs.open(path, "rb") as file:
            table = pq.ParquetFile(file).read(columns=["request_id", "error", *TOKENS])
    except (pa.ArrowInvalid, OSError):
        table = ledger.read(name)  # raises DamagedError, which says what to do
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("error").is_null().alias("ok")).drop("error")


def _newest(workspace: Workspace, source: str) -> set[str]:
    return {said.ledger.url.rsplit("/", 1)[-1] for said in latest(workspace, source).values()}


def _leases(workspace: Workspace, url: str) -> Iterator[LeaseStatus]:
    for lease in leases(url).values():
        if lease is not None and lease.pid:  # 0: given back
            shard = f"{lease.shard[0]}/{lease.shard[1]}"
            yield LeaseStatus(_below(workspace, url), shard, lease.owner, lease.host, lease.pid, lease.alive())


def _below(workspace: Workspace, url: str) -> str:
    return url.removeprefix(workspace.url).strip("/")


def _detector(workspace: Workspace, name: str) -> DetectorStatus:
    folder = workspace.path("detector", name)
    steps = tuple(child for child in workspace.children("detector", name) if child.startswith("step-"))
    evaluations = files.join(folder, "evaluations")
    metrics: dict[str, float] = {}
    for found in files.names(evaluations, "_metrics.json"):
        figures = files.read_json(files.join(evaluations, found))["metrics"]
        stem = found.removesuffix("_metrics.json")
        metrics |= {f"{stem} {key}": figures[key] for key in ("AP", "AP50") if key in figures}
    return DetectorStatus(name, folder, steps, files.exists(files.join(folder, "config.json")), metrics)


def _runs(workspace: Workspace) -> Iterator[RunStatus]:
    for name in files.names(workspace.path("runs"), ".json")[-RUNS_SHOWN:]:
        run = files.read_json(workspace.path("runs", name))
        done = run["outcome"]
        yield RunStatus(
            name.removesuffix(".json"), run["recipe"]["name"], done["records"], done["seconds"], done.get("cost", 0.0)
        )


def _changed(url: str) -> float:
    fs, path = url_to_fs(url)
    return float(fs.modified(path).timestamp())
