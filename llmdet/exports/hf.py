"""A Hugging Face data set: `load_dataset(folder)` loads it, and a card says what it is.

    README.md                  card: where each split lies, sources with licence and address, columns
    data/train-00000.parquet   one row a record; `image` is an Image feature or a path

Columns are those of a Record. With pictures, `image` is `{bytes, path}` and decodes to a PIL image, its path being the
record's; without, `image` is that path as text. Loses nothing; a picture that is missing has no bytes and is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llmdet import card, files
from llmdet.exports.exporter import Exported, Sources, Tally, selected
from llmdet.exports.pictures import Pictures
from llmdet.flat import Flat
from llmdet.record import SCHEMA

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES = orjson.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
_ROWS_AT_ONCE = 200  # of a row group with pictures: some 30 MB


@dataclass(frozen=True, kw_only=True)
class Hf:
    """Writes `data/<split>-00000.parquet`, ... and `README.md`; no split is called train."""

    cannot_hold: ClassVar[str] = "a Hugging Face data set holds the whole record"

    split: str | None = None
    images: Literal["none", "copy"] = "none"  # "copy" puts the pictures into the parquet files
    shard_records: int | None = 5000
    name: str = "GroundingCap"

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        pictures, tally = Pictures(out, "none", sources), Tally()
        schema = _schema(self.images)
        written: dict[str, _Split] = {}
        with ExitStack() as stack:
            for batch in selected(batches, self.split):
                for name, part in _by_split(batch):
                    split = written.setdefault(name, _Split(out, name, schema, self.shard_records, stack))
                    for rows in _slices(part, _ROWS_AT_ONCE if self.images == "copy" else None):
                        split.write(_with_pictures(rows, pictures) if self.images == "copy" else rows)
                tally.records += batch.num_rows
                tally.boxes += len(Flat.of(batch).boxes)
            for split in written.values():
                split.close()
        tally.lost.update(pictures.lost)
        counts = {name: split.rows for name, split in written.items()}
        files.write_bytes(files.join(out, "README.md"), _card(self.name, counts, sources).encode())
        return tally.exported("README.md", *(name for split in written.values() for name in split.names))


@dataclass(slots=True)
class _Split:
    """The files of one split, one of them open."""

    out: str
    name: str
    schema: pa.Schema
    shard_records: int | None
    stack: ExitStack  # closes what is open when the export fails
    names: list[str] = field(default_factory=list)
    rows: int = 0
    _room: int = 0
    _open: ExitStack | None = None
    _writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows, beginning a new file where the last one is full."""
        while batch.num_rows:
            writer = self._writer or self._begin()
            part = batch if self.shard_records is None else batch.slice(0, self._room)
            writer.write_batch(part)
            self.rows, self._room = self.rows + part.num_rows, self._room - part.num_rows
            if self._room == 0 and self.shard_records is not None:
                self.close()
            batch = batch.slice(part.num_rows)

    def _begin(self) -> pq.ParquetWriter:
        self.names.append(f"data/{self.name}-{len(self.names):05d}.parquet")
        self._open = self.stack.enter_context(ExitStack())
        file = self._open.enter_context(files.open_atomic(files.join(self.out, self.names[-1])))
        self._writer = self._open.enter_context(pq.ParquetWriter(file, self.schema, compression="zstd"))
        self._room = self.shard_records or 0
        return self._writer

    def close(self) -> None:
        """Finish the open file."""
        if self._open is not None:
            self._open.close()
        self._open = self._writer = None


def _schema(images: Literal["none", "copy"]) -> pa.Schema:
    if images == "none":
        return SCHEMA
    place = SCHEMA.get_field_index("image")
    schema = SCHEMA.set(place, pa.field("image", _PICTURE))
    return schema.with_metadata({**SCHEMA.metadata, b"huggingface": _FEATURES})


def _by_split(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows of each split, which Hugging Face wants to be called by word characters."""
    splits = batch.column("split").dictionary_encode()
    names = [re.sub(r"\W+", "_", split or "") or "train" for split in splits.dictionary.to_pylist()]
    column = pa.array(names, pa.string()).take(splits.indices)
    for name in dict.fromkeys(names):
        yield name, batch.filter(pc.equal(column, name))


def _slices(batch: pa.RecordBatch, size: int | None) -> Iterator[pa.RecordBatch]:
    step = size or max(1, batch.num_rows)
    for start in range(0, batch.num_rows, step):
        yield batch.slice(start, step)


def _with_pictures(batch: pa.RecordBatch, pictures: Pictures) -> pa.RecordBatch:
    """The same rows with `{bytes, path}` for the path."""
    columns = [batch.column(name).to_pylist() for name in ("root", "source", "image")]
    data = [pictures.read(root, source, image) for root, source, image in zip(*columns, strict=True)]
    picture = pa.StructArray.from_arrays([pa.array(data, pa.binary()), batch.column("image")], fields=list(_PICTURE))
    return batch.set_column(batch.schema.get_field_index("image"), pa.field("image", _PICTURE), picture)


def _card(name: str, counts: dict[str, int], sources: Sources) -> str:
    head = ["---", f"pretty_name: {orjson.dumps(name).decode()}", "task_categories:", "- object-detection"]
    head += ["- image-to-text", "configs:", "- config_name: default"]
    head += ["  data_files:"] if counts else ["  data_files: []"]
    for split in counts:
        head += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    rows = [f"| {split} | {count} |" for split, count in counts.items()]
    body = [
        *head,
        "---",
        "",
        f"# {name}",
        "",
        "Images with a grounding text, boxes that are tied to spans of it, and captions. Made by llmdet-data.",
        "",
        "| split | records |",
        "|---|---|",
        *rows,
        "",
        *card.origins(sources),
        "",
        *card.leaks(sources),
        "",
        "One row is one text of one image. `text[start:end]` for each of `regions.spans` is the phrase of the region;",
        "`regions.boxes.xyxy` are pixels, as the source gave them, never clipped. `captions` are about the whole",
        "image, each with its `provenance`; `extra` and `provenance` are JSON.",
    ]
    return "\n".join(body) + "\n"
