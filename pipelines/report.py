"""report: gather what the workspace knows, and write `report/index.html`."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import nan

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.core import url_to_fs

from llmdet import files, rejects
from llmdet.errors import ImageError, MissingError
from llmdet.images import open_image
from llmdet.record import Record, from_batch
from llmdet.rejects import Reject
from llmdet.report import Card, ClassScore, Curve, Evaluation, Report, Stage, card_of, render, sample
from llmdet.stats import RejectCounts, Stats
from llmdet.workspace import Manifest, Table, Workspace
from pipelines.evaluate import METRICS_SUFFIX, UNTRAINED_SUFFIX
from pipelines.export import best_tables, info_of
from pipelines.status import newest_detector
from pipelines.train import curve

EXAMPLES_PER_REASON = 5


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """Where the page is, and what it counts."""

    report: str
    records: int
    rejects: dict[str, int]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What the page shows beside what the workspace holds."""

    title: str = ""
    gallery: int = 24  # records with their photo


def report(workspace: Workspace, settings: ReportSettings | None = None) -> ReportOutcome:
    """Write the page. Raises MissingError when nothing was ingested."""
    settings = settings or ReportSettings()
    started = time.monotonic()
    tables = best_tables(workspace)
    counts, examples = _rejects(workspace)
    stats = Stats()
    for table in tables:
        for part in table.batches():
            stats = stats + Stats.of(part)
    page = Report(
        title=settings.title or f"Data set in {workspace.url.rstrip('/').rsplit('/', 1)[-1]}",
        stats=stats,
        stages=tuple(_stages(workspace)),
        rejects=counts,
        examples=tuple(examples),
        gallery=tuple(_gallery(workspace, tables, settings.gallery)),
        training=_curve(workspace),
        evaluations=tuple(_evaluations(workspace)),
        made=_made(),
    )
    url = workspace.path("report", "index.html")
    files.write_bytes(url, render(page).encode("utf-8", "backslashreplace"))
    return ReportOutcome(url, stats.total.records, _by_reason(counts), round(time.monotonic() - started, 3))


def _stages(workspace: Workspace) -> Iterator[Stage]:
    for source in workspace.sources():
        ingested = workspace.records(source).require("run ingest again")
        yield _stage("ingest", source, _left_out(workspace, "ingest", source) + ingested.rows, ingested)
        captions = workspace.captions(source).manifest()
        if captions:
            yield _stage("refine", source, ingested.rows, captions)
    merged = workspace.groundingcap().manifest()
    if merged:
        yield _stage("merge", "", merged.rows + _left_out(workspace, "merge", "all"), merged)


def _stage(name: str, source: str, took: int, manifest: Manifest) -> Stage:
    return Stage(name=name, source=source, took=took, gave=manifest.rows, seconds=manifest.counts["seconds"])


def _left_out(workspace: Workspace, stage: str, source: str) -> int:
    """Whole records that a stage left out."""
    table = workspace.rejects(stage, source)
    if table.manifest() is None:
        return 0
    return sum(pc.sum(pc.equal(part["level"], "record")).as_py() or 0 for part in table.batches())


def _rejects(workspace: Workspace) -> tuple[RejectCounts, list[Reject]]:
    counts, examples, shown = RejectCounts(), [], dict[tuple[str, str], int]()
    for _, _, table in workspace.reject_tables():
        for part in table.batches():
            counts = counts + RejectCounts.of(part)
            for reject in _first_of_each(part):
                key = (reject.stage, reject.reason)
                shown[key] = shown.get(key, 0) + 1
                if shown[key] <= EXAMPLES_PER_REASON:
                    examples.append(reject)
    return counts, examples


def _first_of_each(part: pa.Table) -> list[Reject]:
    """At most a few rejects of each reason, without decoding the rest."""
    found = []
    for reason in pc.unique(part["reason"]).to_pylist():
        found += rejects.from_batch(part.filter(pc.equal(part["reason"], reason)).slice(0, EXAMPLES_PER_REASON))
    return found


def _by_reason(counts: RejectCounts) -> dict[str, int]:
    total: dict[str, int] = {}
    for key, count in counts.counts.items():
        total[key.reason] = total.get(key.reason, 0) + count
    return dict(sorted(total.items()))


def _gallery(workspace: Workspace, tables: list[Table], count: int) -> Iterator[Card]:
    """The same sample for the same records, an even share of each source."""
    ids: dict[str, list[str]] = {}
    for table in tables:
        for part in table.batches(["id", "source"]):
            for source in pc.unique(part["source"]).to_pylist():
                ids.setdefault(source, []).extend(part.filter(pc.equal(part["source"], source))["id"].to_pylist())
    share = max(1, count // max(1, len(ids))) if count else 0
    wanted = pa.array([name for group in ids.values() for name in sample(group, share)], pa.string())
    for table in tables:
        for part in table.batches() if len(wanted) else ():
            for record in from_batch(part.filter(pc.is_in(part["id"], wanted))):
                yield _card(workspace, record)


def _card(workspace: Workspace, record: Record) -> Card:
    try:
        url = files.safe_join(info_of(workspace, record.root).images, record.image)
        return card_of(record, open_image(url, record.orientation))
    except (ImageError, MissingError):
        return card_of(record, None)


def _curve(workspace: Workspace) -> Curve | None:
    """The losses of the detector that was trained last."""
    rows = curve(newest_detector(workspace)) if workspace.children("detector") else []
    if not rows:
        return None
    names = [key for key in rows[0] if key != "step"]
    return Curve(tuple(int(row["step"]) for row in rows), {key: [row.get(key, nan) for row in rows] for key in names})


def _evaluations(workspace: Workspace) -> Iterator[Evaluation]:
    """What `evaluate` left beside each detector, with the untrained model's figures where they are there."""
    for name in workspace.children("detector"):
        folder = workspace.path("detector", name, "evaluations")
        found = {stem: files.read_json(url) for stem, url in _metric_files(folder)}
        for stem, value in found.items():
            if stem.endswith(UNTRAINED_SUFFIX):
                continue
            before = found.get(f"{stem}{UNTRAINED_SUFFIX}", {"metrics": {}, "classes": {}})
            classes = tuple(ClassScore(key, ap, before["classes"].get(key)) for key, ap in value["classes"].items())
            yield Evaluation(f"{name}: {stem}", value["metrics"], before["metrics"], classes)


def _metric_files(folder: str) -> list[tuple[str, str]]:
    fs, path = url_to_fs(folder)
    if not fs.exists(path):
        return []
    names = sorted(posixpath.basename(entry) for entry in fs.ls(path, detail=False))
    return [
        (name.removesuffix(METRICS_SUFFIX), files.join(folder, name)) for name in names if name.endswith(METRICS_SUFFIX)
    ]


def _made() -> dict[str, str]:
    made = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")}
    for name in ("llmdet-data", "torch", "transformers", "ray", "pyarrow"):
        try:
            made[name] = version(name)
        except PackageNotFoundError:
            continue
    return made
