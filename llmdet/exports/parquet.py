"""Parquet with the Record schema as it is: everything that a Record has, for polars, pandas, DuckDB and ourselves.

One row is one record; `regions` is a list of structs with phrases, spans and boxes. Loses nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from llmdet import files, leaves
from llmdet.exports.exporter import Exported, Images, Sources, remove_old, selected, shards
from llmdet.exports.pictures import Pictures
from llmdet.flat import Flat
from llmdet.record import SCHEMA, check_schema
from llmdet.workspace import Sealed, repeated, to_parquet

_STEM = "records"
_BOXES = "regions.list.element.boxes.list.element.crowd"  # a small leaf that every box has


@dataclass(frozen=True, kw_only=True)
class Parquet:
    """Writes `records-00000.parquet`, ...; pictures, where wanted, below `images/<root>/`."""

    cannot_hold: ClassVar[str] = "parquet holds the whole record"

    split: str | None = None
    images: Images = "none"
    shard_records: int | None = None  # at most this many records a file; None: files as the workspace has them

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        total = Exported()
        pictures = Pictures(out, self.images, sources)
        for number, shard in enumerate(shards(selected(batches, self.split), self.shard_records)):
            name = _name(number)
            with (
                files.open_atomic(files.join(out, name)) as file,
                pq.ParquetWriter(file, SCHEMA, compression="zstd", use_dictionary=repeated(SCHEMA)) as writer,
            ):
                for batch in shard:
                    writer.write_batch(pictures.place(batch))
                    total += Exported((), batch.num_rows, len(Flat.of(batch).boxes))
            total += Exported((name,))
        remove_old(out, _STEM, total.files)
        return total + Exported(pictures.written, lost=pictures.lost)

    @property
    def by_parts(self) -> bool:
        """Whether files of a table of records may be taken as they are."""
        return self.split is None and self.images == "none" and self.shard_records is None

    def write_part(self, number: int, part: Sealed, out: str) -> Exported:
        """Write one file of a table of records, unchanged where its types are those of this version."""
        file, url = pq.ParquetFile(io.BytesIO(part.data)), files.join(out, _name(number))
        check_schema(file.schema_arrow)
        boxes = leaves.counts(file).get(_BOXES)
        if boxes is None:
            batches = file.read(columns=[_BOXES], use_threads=False).to_batches()
            boxes = sum(len(Flat.of(batch).boxes) for batch in batches)
        if file.schema_arrow.equals(SCHEMA):
            files.write_bytes(url, part.data, part.sha256)
        else:
            files.write_bytes(url, to_parquet(file.read(columns=SCHEMA.names).select(SCHEMA.names).cast(SCHEMA)))
        return Exported((_name(number),), file.metadata.num_rows, boxes)

    def finish_parts(self, written: Iterable[Exported], out: str) -> Exported:
        """What all parts are together, and what an earlier export left in the folder is removed."""
        total = sum(written, Exported())
        remove_old(out, _STEM, total.files)
        return total


def _name(number: int) -> str:
    return f"{_STEM}-{number:05d}.parquet"
