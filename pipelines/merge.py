"""merge: every source's records become one table, `groundingcap/`, in the order of the recipe.

Texts are never changed here. The work is on Arrow columns; no record is decoded. What is kept, drawn or
repeated depends on the row, its picture and the settings alone, never on parts or workers.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet import files, leaves, quality, validate
from llmdet.errors import MissingError, SettingError
from llmdet.flat import offsets_of
from llmdet.quality import Quality
from llmdet.record import from_batch
from llmdet.rejects import Reject
from llmdet.workspace import Table, Workspace, fingerprint, from_parquet, read_sealed
from pipelines.lease import hold
from pipelines.parts import Outcome, PartOutput, Progress, Row, StageTables, outcome_of
from pipelines.tasks import in_order, machines

_MOST_COPIES = 100  # of a record


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """Which sources, how much of each, in which order, and how the set is split."""

    order: tuple[str, ...] = ()  # sources; empty: all, by name
    caps: dict[str, int] = field(default_factory=dict)  # at most n records of a source: the first n
    weights: dict[str, float] = field(default_factory=dict)  # after caps: 0.25 a quarter of its photos, 2 each twice
    captions: Literal["all", "first", "longest"] = (
        "all"  # of an image's captions; first: the engine's, where it has one
    )
    splits: dict[str, float] = field(default_factory=dict)  # name -> share, by a hash of the image; the rest is "train"


def merge(workspace: Workspace, settings: MergeSettings | None = None, progress: Progress | None = None) -> Outcome:
    """Merge the captions of all sources (or their records, where captions were not made) into `groundingcap/`.

    Raises MissingError when nothing was ingested, SettingError for a source that is not there.
    """
    from pipelines.card import write_card  # it knows of engines, which the workers of a merge need not import

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
    with hold(tables.table.url) as held, machines(workspace.url):
        rows = _written(_items(inputs, settings), _Merge(tables, settings), progress)
        held.check()
        info = {"quality": _quality(rows, names)}
        outcome = tables.commit(rows, started=started, settings=asdict(settings), inputs=fingerprints, info=info)
        write_card(workspace)
        return outcome


def _written(items: list[Row], work: _Merge, progress: Progress | None) -> list[Row]:
    rows: list[Row] = []
    for row in in_order(work, items):
        rows.append(row)
        if progress:
            progress(len(rows), len(items))
    return rows


def _quality(rows: list[Row], names: list[str]) -> dict[str, dict[str, Any]]:
    """The figures of each source in the merged table."""
    found = {name: [Quality.from_dict(row["quality"]) for row in rows if row["source"] == name] for name in names}
    return {name: reduce(add, parts, Quality()).to_dict() for name, parts in found.items()}


def _order(workspace: Workspace, settings: MergeSettings) -> list[str]:
    there = workspace.sources()
    if not there:
        raise MissingError(f"no records in {workspace.url}; run: llmdet-data ingest")
    unknown = [name for name in (*settings.order, *settings.caps, *settings.weights) if name not in there]
    if unknown:
        raise SettingError(f"merge names the sources {unknown}, the workspace has {there}")
    for name, weight in settings.weights.items():
        if not 0 <= weight <= _MOST_COPIES:
            raise SettingError(f"merge.weights.{name} must be from 0 to {_MOST_COPIES}; got {weight}")
    shares = settings.splits.values()
    if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1 + 1e-9:
        raise SettingError(f"merge.splits are shares from 0 to 1 with a sum of at most 1; got {settings.splits}")
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
            items.append({"index": len(items), "url": table.url, "source": name, "part": part.name, "keep": left})
    return items


@dataclass(frozen=True)
class _Merge:
    """The work on one part of one source."""

    tables: StageTables
    settings: MergeSettings

    def __call__(self, item: Row) -> Row:
        row = self.tables.adopt(item["index"])
        if row:
            figures = Quality.of(self.tables.table.read(row["part"][0], quality.COLUMNS))
        else:
            output, figures = self._output(item)
            row = self.tables.write(item["index"], output)
        return {**row, "source": item["source"], "quality": figures.to_dict()}

    def _output(self, item: Row) -> tuple[PartOutput, Quality]:
        file = read_sealed(files.join(item["url"], item["part"]))
        settings, weight = self.settings, self.settings.weights.get(item["source"], 1.0)
        if item["keep"] is None and weight == 1 and settings.captions == "all" and not settings.splits:
            looked_at = leaves.read(file.data, {*validate.COLUMNS, *quality.COLUMNS})
            good = _good(looked_at)
            if good.all():
                return PartOutput(file), Quality.of(looked_at)  # nothing changes: the file is passed on
            kept, faults = _sound(from_parquet(file.data), good)
            return PartOutput(kept, faults), Quality.of(kept)
        output = self._changed(from_parquet(file.data), item, weight)
        return output, Quality.of(output.data)

    def _changed(self, table: pa.Table, item: Row, weight: float) -> PartOutput:
        settings = self.settings
        keep = table.num_rows if item["keep"] is None else item["keep"]
        left_out = _left_out(table["id"].slice(keep), "over_cap", "the source's cap")
        kept = table.slice(0, keep)
        kept, faults = _sound(kept, _good(kept))
        kept, not_drawn = _weighted(kept, weight)
        kept, not_chosen = _with_captions(kept, settings.captions)
        return PartOutput(_with_splits(kept, settings.splits), [*left_out, *faults, *not_drawn, *not_chosen])


def _left_out(ids: pa.ChunkedArray, reason: str, detail: str) -> list[Reject]:
    return [Reject(identity, "record", "policy", "merge", reason, detail) for identity in ids.to_pylist()]


def _good(table: pa.Table) -> NDArray[np.bool_]:
    """Which records hold what the data model promises, (n,)."""
    return np.concatenate([np.ones(0, np.bool_), *(validate.sound(batch) for batch in table.to_batches())])


def _sound(table: pa.Table, good: NDArray[np.bool_]) -> tuple[pa.Table, list[Reject]]:
    """The sound records, and a reject for each other one."""
    if good.all():
        return table, []
    broken = [(record, validate.faults(record)) for record in from_batch(table.filter(pa.array(~good)))]
    rejects = [
        Reject(record.id, "record", "fault", "merge", found[0].split(":")[0], "; ".join(found[:3]))
        for record, found in broken
    ]
    return table.filter(pa.array(good)), rejects


def _weighted(table: pa.Table, weight: float) -> tuple[pa.Table, list[Reject]]:
    """Each record as often as its weight says: whole copies, and one more for the share of photos that is left over.

    A copy stands behind its record and has `~2`, `~3`, ... at the end of its text id and id.
    """
    if weight == 1 or not table.num_rows:
        return table, []
    # Another hash than that of splits: a quarter of the photos must not be those of a split.
    places = np.array([_place(key, b"weight") for key in _pictures(table)])
    times = int(weight) + (places < weight % 1).astype(np.int64)
    rows = np.repeat(np.arange(table.num_rows), times)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    endings = pa.array([f"~{n + 1}" if n else "" for n in number.tolist()], pa.string())
    drawn = table.take(pa.array(rows))
    for name in ("id", "text_id"):
        column = pc.binary_join_element_wise(drawn[name].combine_chunks(), endings, "")
        drawn = drawn.set_column(drawn.schema.get_field_index(name), drawn.schema.field(name), column)
    return drawn, _left_out(table["id"].filter(pa.array(times == 0)), "not_drawn", f"weight {weight:g}")


def _with_captions(table: pa.Table, choice: Literal["all", "first", "longest"]) -> tuple[pa.Table, list[Reject]]:
    """One caption of each image where not all are wanted: the first, or the first of the longest (in characters)."""
    if choice == "all" or not table.num_rows:
        return table, []
    table = table.combine_chunks()
    column = table["captions"].chunk(0)
    starts, flat = offsets_of(column), column.flatten()
    some = np.diff(starts) > 0
    chosen = starts[:-1][some]
    if choice == "longest":
        sizes = pc.utf8_length(flat.field("text")).to_numpy(zero_copy_only=False)
        chosen = np.array([a + sizes[a:b].argmax() for a, b in pairwise(starts.tolist()) if b > a], np.int64)
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(some, dtype=np.int32)])
    one = pa.ListArray.from_arrays(pa.array(ends), flat.take(pa.array(chosen)), type=column.type)
    lost = np.setdiff1d(np.arange(len(flat)), chosen)
    owner = np.repeat(np.arange(table.num_rows), np.diff(starts))[lost]
    ids = table["id"].take(pa.array(owner)).to_pylist()
    places = (lost - starts[:-1][owner]).tolist()
    rejects = [
        Reject(f"{identity}#image_caption-{place}", "annotation", "policy", "merge", "caption_not_chosen", choice)
        for identity, place in zip(ids, places, strict=True)
    ]
    return table.set_column(table.schema.get_field_index("captions"), table.schema.field("captions"), one), rejects


def _pictures(table: pa.Table) -> list[str]:
    """What tells each record's picture from others."""
    named = pc.binary_join_element_wise(table["root"], table["image"], "/")
    keys: list[str] = pc.coalesce(table["image_sha256"], named).to_pylist()
    return keys


def _with_splits(table: pa.Table, splits: dict[str, float]) -> pa.Table:
    """Give every record a split by a hash of its picture, so that one photo is never on both sides."""
    if not splits:
        return table
    column = pa.array([split_of(key, splits) for key in _pictures(table)], pa.string())
    return table.set_column(table.schema.get_field_index("split"), "split", column)


def split_of(key: str, splits: dict[str, float]) -> str:
    """The split of a picture: the hash of its key as a number in [0, 1) against the cumulated shares."""
    place = _place(key)
    for name, share in splits.items():
        if place < share:
            return name
        place -= share
    return "train"


def _place(key: str, purpose: bytes = b"") -> float:
    """The hash of a key as a number in [0, 1); another one for each purpose."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, person=purpose).digest(), "big") / 2**64
