"""report: gather what the workspace knows, and write `report/index.html` and the data set's card.

Every table is read once, part by part; what is kept of it does not grow with the number of records, but for 16 bytes an
image.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import nan
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from fsspec.core import url_to_fs

from llmdet import files, rejects
from llmdet.errors import ImageError, MissingError
from llmdet.images import open_image
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.report import Card, ClassScore, Curve, Evaluation, LeftOut, Report, Stage, card_of, render
from llmdet.stats import RejectCounts, Stats
from llmdet.workspace import Manifest, Table, Workspace
from pipelines.card import write_card
from pipelines.evaluate import METRICS_SUFFIX, UNTRAINED_SUFFIX
from pipelines.export import best_tables, info_of
from pipelines.picks import Picks, with_their_records
from pipelines.status import newest_detector
from pipelines.train_log import curve

_Sum = TypeVar("_Sum", Stats, RejectCounts)

EXAMPLES_PER_REASON = 5
PER_FLAG = 3  # records of the gallery that are there for a flag
PER_REASON = 3  # and for a reason why something was left out
MOST_FOR_REASONS = 30


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
    gallery: int = 24  # records with their photo, beside a few for each flag and reason; 0: none at all


def report(workspace: Workspace, settings: ReportSettings | None = None) -> ReportOutcome:
    """Write the page. Raises MissingError when nothing was ingested."""
    settings = settings or ReportSettings()
    started = time.monotonic()
    tables = best_tables(workspace)
    counts, examples = _rejects(workspace)
    picks = Picks(max(1, settings.gallery // max(1, len(workspace.sources()))), PER_FLAG) if settings.gallery else None
    stats = _added(_counted(tables, picks), Stats())
    losses, notes = _losses_of_training(workspace)
    page = Report(
        title=settings.title or f"Data set in {workspace.url.rstrip('/').rsplit('/', 1)[-1]}",
        stats=stats,
        stages=tuple(_stages(workspace)),
        rejects=_added(counts.values(), RejectCounts()),
        rejects_by_source=counts,
        examples=tuple(examples),
        gallery=tuple(_gallery(workspace, picks, examples)) if picks else (),
        training=losses,
        notes=notes,
        evaluations=tuple(_evaluations(workspace)),
        made=_made(),
    )
    url = workspace.path("report", "index.html")
    files.write_bytes(url, render(page).encode("utf-8", "backslashreplace"))
    if workspace.groundingcap().manifest():
        write_card(workspace, settings.title)  # answers may have been asked for since the merge
    return ReportOutcome(url, page.stats.total.records, _by_reason(page.rejects), round(time.monotonic() - started, 3))


def _counted(tables: list[Table], picks: Picks | None) -> Iterator[Stats]:
    """The figures of each part; `picks` looks at it on the way."""
    for table in tables:
        for part in table.batches():
            if picks:
                picks.add(part)
            yield Stats.of(part)


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


def _added(parts: Iterable[_Sum], nothing: _Sum) -> _Sum:
    """The sum, always of neighbours that have about the same size: adding a small one to a large one costs as much."""
    waiting: list[_Sum] = []
    for number, part in enumerate(parts, 1):
        waiting.append(part)
        while number % 2 == 0:
            last = waiting.pop()
            waiting.append(waiting.pop() + last)
            number //= 2
    while len(waiting) > 1:
        last = waiting.pop()
        waiting.append(waiting.pop() + last)
    return waiting[0] if waiting else nothing


def _rejects(workspace: Workspace) -> tuple[dict[str, RejectCounts], list[Reject]]:
    """Counts by source (those of merge by the source in the id), and the first few of each reason."""
    counts: dict[str, RejectCounts] = {}
    examples: list[Reject] = []
    shown: dict[tuple[str, str, str], int] = {}
    for _, source, table in workspace.reject_tables():
        for part in table.batches():
            for name, rows in _of_sources(source, part):
                counts[name] = counts.get(name, RejectCounts()) + RejectCounts.of(rows)
            for reject in _first_of_each(part):
                key = (reject.stage, reject.level, reject.reason)
                shown[key] = shown.get(key, 0) + 1
                if shown[key] <= EXAMPLES_PER_REASON:
                    examples.append(reject)
    return counts, examples


def _of_sources(source: str, part: pa.Table) -> list[tuple[str, pa.Table]]:
    if source != "all":
        return [(source, part)]
    names = pc.list_element(pc.split_pattern(part["id"], "/", max_splits=1), 0)
    return [(name, part.filter(pc.equal(names, name))) for name in pc.unique(names).to_pylist()]


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


def _gallery(workspace: Workspace, picks: Picks, examples: list[Reject]) -> Iterator[Card]:
    """What was picked, then records that were left out or lost a caption."""
    for record in picks.records:
        yield _card(workspace, record)
    chosen: dict[str, list[Reject]] = {}
    for reject in examples:
        if len(group := chosen.setdefault(reject.reason, [])) < PER_REASON and reject.stage != "ingest":
            group.append(reject)
    # One of each reason, then a second one, so that the last reasons are shown too where there are many.
    turns = [group[turn] for turn in range(PER_REASON) for group in chosen.values() if turn < len(group)]
    found: dict[str, tuple[Record, list[LeftOut]]] = {}
    for record, loss in with_their_records(workspace, turns[:MOST_FOR_REASONS]):
        found.setdefault(record.id, (record, []))[1].append(loss)
    for record, losses in found.values():
        yield _card(workspace, record, losses)


def _card(workspace: Workspace, record: Record, left_out: Iterable[LeftOut] = ()) -> Card:
    try:
        url = files.safe_join(info_of(workspace, record.root).images, record.image)
        return card_of(record, open_image(url, record.orientation), tuple(left_out))
    except (ImageError, MissingError):
        return card_of(record, None, tuple(left_out))


def _losses_of_training(workspace: Workspace) -> tuple[Curve | None, tuple[str, ...]]:
    """The losses of the detector that was trained last, and a note on lines of its log that cannot be read."""
    if not workspace.children("detector"):
        return None, ()
    rows, unread = curve(newest_detector(workspace))
    told = "1 line of the training log is broken" if unread == 1 else f"{unread} lines of the training log are broken"
    notes = (f"{told} and not in the curve.",) if unread else ()
    if not rows:
        return None, notes
    names = list(dict.fromkeys(key for row in rows for key in row if key != "step"))
    steps = tuple(int(row["step"]) for row in rows)
    return Curve(steps, {key: [row.get(key, nan) for row in rows] for key in names}), notes


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
