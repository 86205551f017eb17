"""What every exporter has in common: what it writes, what it counts, and how lines become files."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.exports.pictures import Pictures
from llmdet.flat import Flat
from llmdet.record import SCHEMA, Record, check_schema, from_batch
from llmdet.sources.source import SourceInfo

Sources = Mapping[str, SourceInfo]
Images = Literal["none", "copy", "link"]
SUFFIXES: dict[files.Compression | None, str] = {None: "", "gzip": ".gz", "zstd": ".zst"}

THREADS = 2
ROWS_AT_ONCE = 4096  # of a batch: its text stays in the cache, and the memory of an export is bounded

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. Parts add up."""

    files: tuple[str, ...] = ()  # relative to the folder that was written to
    records: int = 0
    boxes: int = 0
    lost: dict[str, int] = field(default_factory=dict)  # what the format could not hold, counted

    def __add__(self, other: Exported) -> Exported:
        lost = dict(self.lost)
        for key, count in other.lost.items():
            lost[key] = lost.get(key, 0) + count
        return Exported(self.files + other.files, self.records + other.records, self.boxes + other.boxes, lost)


@dataclass(slots=True)
class Tally:
    """A running `Exported`."""

    records: int = 0
    boxes: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def add(self, boxes: int) -> None:
        """One more record, with so many boxes."""
        self.records += 1
        self.boxes += boxes

    def lose(self, what: str, count: int = 1) -> None:
        """So many things that the format cannot hold."""
        if count:
            self.lost[what] += count

    def exported(self, *files: str) -> Exported:
        """What was written in all."""
        return Exported(files, self.records, self.boxes, dict(self.lost))


class Exporter(Protocol):
    """A frozen dataclass that writes one format; its fields are its whole configuration."""

    cannot_hold: ClassVar[str]  # one sentence for the user

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        """Write batches of `llmdet.record.SCHEMA`, in their order, into the folder `out` (any fsspec URL).

        `sources` describes the sources by name: categories for label maps, addresses of image folders.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """Base of the formats that are one JSON object per record.

    Subclasses say `encode` (lines of a batch) and `count` (what those lines hold and lose); both are pure, so that
    parts may be encoded anywhere and put one after the other.
    """

    stem: ClassVar[str]
    split: str | None = None  # only records of this split
    images: Images = "none"  # "copy" and "link" put pictures below images/<root>/ and name them so in the lines
    shard_records: int | None = None  # at most this many records a file; None: one file
    compression: files.Compression | None = None

    def encode(self, batch: pa.RecordBatch, sources: Sources | None = None) -> bytes:
        """The lines of a batch, each with its line end."""
        raise NotImplementedError

    def count(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Exported:
        """What `encode` writes of a batch, and what it cannot."""
        raise NotImplementedError

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        """Write the lines to `<stem>.jsonl` (with shards: `<stem>-00000.jsonl`, ...), each file all or nothing."""
        total = Exported()
        pictures = Pictures(out, self.images, sources)
        for number, shard in enumerate(shards(selected(batches, self.split), self.shard_records)):
            placed = (pictures.place(batch) for batch in shard)
            lines = ahead(lambda batch: (self.encode(batch, sources), self.count(batch, sources)), placed)
            total += self._write_file("" if self.shard_records is None else f"-{number:05d}", lines, out)
        return self._finish(out, sources, total) + Exported(pictures.written, lost=pictures.lost)

    @property
    def by_parts(self) -> bool:
        """Whether parts of a table may be encoded anywhere, for `write_lines`: nothing goes on from part to part."""
        return self.images == "none" and self.shard_records is None

    def lines(self, part: pa.Table, sources: Sources) -> tuple[pa.Buffer, Exported]:
        """The lines of a part of a table, and what they hold and lose."""
        pieces, total = [], Exported()
        for batch in selected(part.to_batches(), self.split):
            pieces.append(self.encode(batch, sources))
            total += self.count(batch, sources)
        return pa.py_buffer(b"".join(pieces)), total

    def write_lines(self, parts: Iterable[tuple[pa.Buffer, Exported]], out: str, sources: Sources) -> Exported:
        """Write what `lines` made of each part, in this order: the same file as `write` makes of the whole."""
        return self._finish(out, sources, self._write_file("", parts, out))

    def _write_file(self, number: str, lines: Iterable[tuple[bytes | pa.Buffer, Exported]], out: str) -> Exported:
        name = f"{self.stem}{number}.jsonl{SUFFIXES[self.compression]}"
        total = Exported((name,))
        with files.open_atomic(files.join(out, name), self.compression) as file:
            for data, counted in lines:
                file.write(data)
                total += counted
        return total

    def _finish(self, out: str, sources: Sources, written: Exported) -> Exported:
        """What comes after the lines; a format with further files writes them here."""
        remove_old(out, self.stem, written.files)
        return written

    def filenames(self, batch: pa.RecordBatch) -> pa.Array:
        """The name of each record's picture as the lines say it."""
        if self.images == "none":
            return batch.column("image")
        return pc.binary_join_element_wise(batch.column("root"), batch.column("image"), "/")


def ahead(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Results in the order of the items, `THREADS` of them in the making: Arrow works without the interpreter."""
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def selected(batches: Iterable[pa.RecordBatch], split: str | None) -> Iterator[pa.RecordBatch]:
    """Batches of at most `ROWS_AT_ONCE` in the types of `SCHEMA`, and of one split where one is named."""
    for batch in batches:
        check_schema(batch.schema)
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            part = batch.slice(start, ROWS_AT_ONCE)
            if not part.schema.equals(SCHEMA):
                part = part.select(SCHEMA.names).cast(SCHEMA)
            yield part if split is None else part.filter(pc.equal(part.column("split"), split))


@dataclass(frozen=True, kw_only=True)
class ByRecord:
    """Base of the formats that are written record by record: what they share before the first byte."""

    holds: ClassVar[frozenset[str]] = frozenset()  # of the things that `losses` names
    split: str | None = None  # only records of this split
    images: Images = "none"  # "copy" and "link" put pictures below images/<root>/ and name them so

    def records(self, batches: Iterable[pa.RecordBatch], pictures: Pictures, tally: Tally) -> Iterator[Record]:
        """Each record after its picture was placed; what the format loses of each batch goes to `tally`."""
        for batch in selected(batches, self.split):
            tally.lost.update(losses(batch, Flat.of(batch), self.holds))
            yield from from_batch(pictures.place(batch))
        tally.lost.update(pictures.lost)

    def filename(self, record: Record) -> str:
        """The name of a record's picture as the output says it."""
        return record.image if self.images == "none" else f"{record.root}/{record.image}"


def shards(batches: Iterable[pa.RecordBatch], size: int | None) -> Iterator[Iterator[pa.RecordBatch]]:
    """Batches in groups of at most `size` records; each group must be read before the next. At least one group."""
    source = iter(batches)
    rest: list[pa.RecordBatch] = []  # what is left of the batch that a group ended in

    def group() -> Iterator[pa.RecordBatch]:
        room = size
        while (batch := rest.pop() if rest else next(source, None)) is not None:
            if room is not None and batch.num_rows > room:
                rest.append(batch.slice(room))
                batch = batch.slice(0, room)
            yield batch
            if room is not None:
                room -= batch.num_rows
                if room == 0:
                    return

    while True:
        yield group()
        if not rest:
            following = next(source, None)
            if following is None:
                return
            rest.append(following)


def remove_old(out: str, stem: str, written: tuple[str, ...]) -> None:
    """Remove the numbered shards that an earlier export left in the folder, so that readers of `<stem>-*` see one."""
    fs, path = url_to_fs(out)
    for old in fs.ls(path, detail=False):
        name = posixpath.basename(old)
        if re.fullmatch(rf"{re.escape(stem)}-[0-9]{{5}}\..*", name) and name not in written:
            fs.rm_file(old)


def losses(batch: pa.RecordBatch, flat: Flat, held: frozenset[str]) -> dict[str, int]:
    """How many of each thing a batch has that a format without it loses; `held` names what the format keeps."""
    found = {
        "image captions": lambda: _items(batch.column("captions")),
        "tags": lambda: _items(batch.column("tags")),
        "negatives": lambda: _items(batch.column("negatives")),
        "box captions": lambda: _present(flat.boxes.field("caption")),
        "masks": lambda: _present(flat.boxes.field("mask")),
        "scores": lambda: _present(flat.boxes.field("score")),
        "pseudo marks": lambda: _true(pc.equal(flat.boxes.field("origin"), "pseudo")),
        "annotation ids": lambda: _present(flat.boxes.field("annotation_id")),
        "areas": lambda: _present(flat.boxes.field("area")),
    }
    counts = {name: count() for name, count in found.items() if name not in held}
    return {name: count for name, count in counts.items() if count}


def lost_boxes(flat: Flat) -> dict[str, int]:
    """Crowd boxes and regions without boxes, for the formats that leave both out."""
    crowds = int(flat.crowds().sum())
    empty = int((np.diff(flat.keep_boxes(~flat.crowds()).box_offsets) == 0).sum())
    return {name: count for name, count in (("crowd boxes", crowds), ("regions without boxes", empty)) if count}


def _items(lists: pa.Array) -> int:
    return int(pc.sum(lists.value_lengths()).as_py() or 0)


def _present(column: pa.Array) -> int:
    return len(column) - int(column.null_count)


def _true(column: pa.Array) -> int:
    return int(pc.sum(column).as_py() or 0)
