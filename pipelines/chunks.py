"""Units of work of caption: images in groups, each with all its records, so that an image is opened by one worker."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from llmdet.record import Record, from_batch
from llmdet.workspace import Manifest, Table
from pipelines.parts import Row


def chunks_of(records: Table, manifest: Manifest, chunk_images: int, shard: tuple[int, int] = (0, 1)) -> list[Row]:
    """Units of work of a shard: rows by part, all records of an image in one unit, images in the source's order."""
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
    chunk_of = images // chunk_images
    edges = np.flatnonzero(np.diff(chunk_of, prepend=-1, append=chunk_of[-1] + 1)) if len(order) else np.array([0])
    names = [part.name for part in manifest.parts]
    chunks = []
    for number, (a, b) in enumerate(pairwise(edges.tolist())):
        if number % shard[1] == shard[0]:
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


def _by_part(parts: Any, rows: Any, names: list[str]) -> list[Row]:
    """Runs of rows of the same part: its name with the first row and their count, or with the rows where they skip."""
    edges = np.flatnonzero(np.diff(parts, prepend=-1, append=-1))
    runs: list[Row] = []
    for a, b in pairwise(edges.tolist()):
        where = [int(rows[a]), b - a]
        neighbours = bool((np.diff(rows[a:b]) == 1).all())
        runs.append({"part": names[parts[a]], **({"slice": where} if neighbours else {"rows": rows[a:b].tolist()})})
    return runs


@lru_cache(maxsize=2)
def _part(table: Table, name: str) -> pa.Table:
    return table.read(name)


def read_run(table: Table, run: Row) -> list[Record]:
    """The records of one run of rows; neighbouring runs share a part, which is read once."""
    whole = _part(table, run["part"])
    return from_batch(whole.slice(*run["slice"]) if "slice" in run else whole.take(run["rows"]))
