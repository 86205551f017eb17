"""merge: every source's records become one table, `groundingcap/`, in the order of the recipe.

Texts are never changed here. The work is on Arrow columns; no record is decoded.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from llmdet import files, validate
from llmdet.card import card
from llmdet.errors import MissingError, SettingError
from llmdet.record import from_batch
from llmdet.rejects import Reject
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Table, Workspace, fingerprint, from_parquet
from pipelines.cluster import cluster
from pipelines.lease import hold
from pipelines.parts import Outcome, PartOutput, Progress, Row, StageTables, outcome_of, run_parts


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """Which sources, how much of each, in which order, and how the set is split."""

    order: tuple[str, ...] = ()  # sources; empty: all, by name
    caps: dict[str, int] = field(default_factory=dict)  # at most n records of a source: the first n
    splits: dict[str, float] = field(default_factory=dict)  # name -> share, by a hash of the image; the rest is "train"


def merge(workspace: Workspace, settings: MergeSettings | None = None, progress: Progress | None = None) -> Outcome:
    """Merge the captions of all sources (or their records, where captions were not made) into `groundingcap/`.

    Raises MissingError when nothing was ingested, SettingError for a source that is not there.
    """
    settings = settings or MergeSettings()
    started = time.monotonic()
    names = _order(workspace, settings)
    inputs = {name: best_table(workspace, name) for name in names}
    fingerprints = {name: table.require("run ingest again").fingerprint for name, table in inputs.items()}
    tables = StageTables(
        "merge",
        workspace.groundingcap(),
        workspace.rejects("merge", "all"),
        fingerprint({"inputs": [[name, fingerprints[name]] for name in names], "settings": asdict(settings)}),
    )
    done = tables.done()
    if done:
        return outcome_of(done.counts, done.counts["seconds"], skipped=True)
    with hold(tables.table.url) as held, cluster():
        rows = run_parts(_items(inputs, settings), _Merge(tables, settings), progress=progress)
        held.check()
        outcome = tables.commit(rows, started=started, settings=asdict(settings), inputs=fingerprints)
        _write_card(workspace, names, outcome.records)
        return outcome


def _write_card(workspace: Workspace, names: list[str], records: int) -> None:
    """`groundingcap/README.md`: licences, origins, and which evaluation photos were looked for."""
    infos = {name: workspace.records(name).require("run ingest again").info for name in names}
    sources = {name: SourceInfo.from_dict(info) for name, info in infos.items()}
    title = f"Data set in {workspace.url.rstrip('/').rsplit('/', 1)[-1]}"
    files.write_bytes(files.join(workspace.groundingcap().url, "README.md"), card(title, sources, records).encode())


def _order(workspace: Workspace, settings: MergeSettings) -> list[str]:
    there = workspace.sources()
    if not there:
        raise MissingError(f"no records in {workspace.url}; run: llmdet-data ingest")
    unknown = [name for name in (*settings.order, *settings.caps) if name not in there]
    if unknown:
        raise SettingError(f"merge names the sources {unknown}, the workspace has {there}")
    return list(settings.order) or there


def best_table(workspace: Workspace, source: str) -> Table:
    """The captions of a source, or its records where refine was not run.

    Raises MissingError where neither is there, and for captions of other records than those that are there now.
    """
    captions, records = workspace.captions(source), workspace.best_records(source)
    there = records.require(f"run: llmdet-data ingest --source {source}").fingerprint
    made = captions.manifest()
    if made is None:
        return records
    if made.inputs.get("records", there) != there:
        raise MissingError(
            f"the captions of {source} were made from other records than those that are there now; "
            f"run: llmdet-data refine --source {source}"
        )
    return captions


def outdated(workspace: Workspace) -> list[str]:
    """Sources whose records or captions were made anew after the merge, or of which it took none though it took all."""
    merged = workspace.groundingcap().manifest()
    if merged is None:
        return []
    chosen = merged.settings.get("order") or workspace.sources()
    return [name for name in chosen if _newest(workspace, name) != merged.inputs.get(name)]


def _newest(workspace: Workspace, source: str) -> str:
    made = workspace.captions(source).manifest() or workspace.best_records(source).manifest()
    return made.fingerprint if made else ""


def _items(inputs: dict[str, Table], settings: MergeSettings) -> list[Row]:
    items: list[Row] = []
    for name, table in inputs.items():
        parts = table.require("run ingest again").parts
        starts = np.cumsum([0, *(part.rows for part in parts)]).tolist()
        for part, (start, _) in zip(parts, pairwise(starts), strict=True):
            left = max(0, settings.caps[name] - start) if name in settings.caps else None
            items.append({"index": len(items), "url": table.url, "part": part.name, "keep": left})
    return items


_CHECKED = ["id", "width", "height", "text", "regions", "negatives"]  # what the validator looks at


@dataclass(frozen=True)
class _Merge:
    """The work on one part of one source."""

    tables: StageTables
    settings: MergeSettings

    def __call__(self, item: Row) -> Row:
        return self.tables.adopt(item["index"]) or self.tables.write(item["index"], self._output(item))

    def _output(self, item: Row) -> PartOutput:
        data = files.read_bytes(files.join(item["url"], item["part"]))
        untouched = item["keep"] is None and not self.settings.splits
        if untouched and _good(from_parquet(data, _CHECKED)).all():
            return PartOutput(data)  # nothing changes: the file is passed on
        table = from_parquet(data)
        keep = table.num_rows if item["keep"] is None else item["keep"]
        over = table["id"].slice(keep).to_pylist()
        left_out = [Reject(identity, "record", "policy", "merge", "over_cap", "the source's cap") for identity in over]
        kept, faults = _sound(table.slice(0, keep))
        return PartOutput(_with_splits(kept, self.settings.splits), [*left_out, *faults])


def _good(table: pa.Table) -> NDArray[np.bool_]:
    """Which records hold what the data model promises, (n,)."""
    return np.concatenate([np.ones(0, np.bool_), *(validate.sound(batch) for batch in table.to_batches())])


def _sound(table: pa.Table) -> tuple[pa.Table, list[Reject]]:
    """The sound records, and a reject for each other one."""
    good = _good(table)
    if good.all():
        return table, []
    broken = [(record, validate.faults(record)) for record in from_batch(table.filter(pa.array(~good)))]
    rejects = [
        Reject(record.id, "record", "fault", "merge", found[0].split(":")[0], "; ".join(found[:3]))
        for record, found in broken
    ]
    return table.filter(pa.array(good)), rejects


def _with_splits(table: pa.Table, splits: dict[str, float]) -> pa.Table:
    """Give every record a split by a hash of its picture, so that one photo is never on both sides."""
    if not splits:
        return table
    frame = pl.from_arrow(table.select(["image_sha256", "root", "image"]))
    assert isinstance(frame, pl.DataFrame)
    keys = frame.select(pl.coalesce("image_sha256", pl.concat_str("root", "image", separator="/"))).to_series()
    column = pa.array([split_of(key, splits) for key in keys], pa.string())
    return table.set_column(table.schema.get_field_index("split"), "split", column)


def split_of(key: str, splits: dict[str, float]) -> str:
    """The split of a picture: the hash of its key as a number in [0, 1) against the cumulated shares."""
    place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
    for name, share in splits.items():
        if place < share:
            return name
        place -= share
    return "train"
