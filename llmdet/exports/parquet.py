"""Parquet with the Record schema as it is: everything that a Record has, for polars, pandas, DuckDB and ourselves.

One row is one record; `regions` is a list of structs with phrases, spans and boxes. Loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from llmdet import files
from llmdet.exports.exporter import Exported, Images, Sources, remove_old, selected, shards
from llmdet.exports.pictures import Pictures
from llmdet.flat import Flat
from llmdet.record import SCHEMA
from llmdet.workspace import repeated


@dataclass(frozen=True, kw_only=True)
class Parquet:
    """Writes `records-00000.parquet`, ...; pictures, where wanted, below `images/<root>/`."""

    cannot_hold: ClassVar[str] = "parquet holds the whole record"

    split: str | None = None
    images: Images = "none"
    shard_records: int | None = None  # at most this many records a file; None: one file

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        total = Exported()
        pictures = Pictures(out, self.images, sources)
        for number, shard in enumerate(shards(selected(batches, self.split), self.shard_records)):
            name = f"records-{number:05d}.parquet"
            with (
                files.open_atomic(files.join(out, name)) as file,
                pq.ParquetWriter(file, SCHEMA, compression="zstd", use_dictionary=repeated(SCHEMA)) as writer,
            ):
                for batch in shard:
                    writer.write_batch(pictures.place(batch))
                    total += Exported((), batch.num_rows, len(Flat.of(batch).boxes))
            total += Exported((name,))
        remove_old(out, "records", total.files)
        return total + Exported(pictures.written, lost=pictures.lost)
