"""What every exporter has in common: what it writes, what it counts, and how lines become files."""

from __future__ import annotations

import io
import posixpath
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from llmdet import files, leaves
from llmdet.exports.json_text import Column, lines
from llmdet.exports.pictures import Pictures
from llmdet.flat import Flat
from llmdet.record import SCHEMA, Record, check_schema, from_batch
from llmdet.sources.source import SourceInfo

Sources = Mapping[str, SourceInfo]
Images = Literal["none", "copy", "link"]
SUFFIXES: dict[files.Compression | None, str] = {None: "", "gzip": ".gz", "zstd": ".zst"}

THREADS = 2
ROWS_AT_ONCE = 4096  # of a batch: its text stays in the cache, and the memory of an export is bounded

Lines: TypeAlias = tuple[list[pa.Buffer], "Exported"]  # text of some records, and what it holds and loses
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

    Subclasses say `objects` (the JSON text of each record) and `count` (what those hold and lose); both are pure, so
    that parts may be encoded anywhere and put one after the other.
    """

    stem: ClassVar[str]
    split: str | None = None  # only records of this split
    images: Images = "none"  # "copy" and "link" put pictures below images/<root>/ and name them so in the lines
    shard_records: int | None = None  # at most this many records a file; None: one file
    compression: files.Compression | None = None

    @property
    def leaves(self) -> frozenset[str] | None:
        """What `objects` looks at, as parquet spells it; None: everything."""
        return None

    def objects(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Column:
        """One JSON object for each record of a batch."""
        raise NotImplementedError

    def count(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Exported:
        """What `objects` holds of a batch, and what it cannot."""
        raise NotImplementedError

    def encode(self, batch: pa.RecordBatch, sources: Sources | None = None) -> bytes:
        """The lines of a batch, each with its line end."""
        return bytes(lines(self.objects(batch, sources)))

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        """Write the lines to `<stem>.jsonl` (with shards: `<stem>-00000.jsonl`, ...), each file all or nothing."""
        total = Exported()
        pictures = Pictures(out, self.images, sources)
        for number, shard in enumerate(shards(selected(batches, self.split), self.shard_records)):
            placed = (pictures.place(batch) for batch in shard)
            made = ahead(lambda batch: self._made([batch], sources), placed)
            total += self._write_file("" if self.shard_records is None else f"-{number:05d}", made, out)
        return self._finish(out, sources, total) + Exported(pictures.written, lost=pictures.lost)

    @property
    def by_parts(self) -> bool:
        """Whether parts of a table may be encoded anywhere, for `write_lines`: nothing goes on from part to part."""
        return self.images == "none" and self.shard_records is None

    def lines(self, data: bytes, sources: Sources) -> Lines:
        """The lines of a parquet file of records, and what they hold and lose."""
        if self.leaves is None or self.split is not None:
            return self._made(selected(leaves.read(data).to_batches(), self.split), sources)
        lost, unsaid = losses_of_file(data)
        table = leaves.read(data, self.leaves | unsaid)
        pieces, counted = self._made(selected(table.to_batches(), None), sources)
        return pieces, counted + Exported(lost=lost)

    def _made(self, batches: Iterable[pa.RecordBatch], sources: Sources) -> Lines:
        made = [(lines(self.objects(batch, sources)), self.count(batch, sources)) for batch in batches]
        return [text for text, _ in made], sum((counted for _, counted in made), Exported())

    def write_lines(self, parts: Iterable[Lines], out: str, sources: Sources) -> Exported:
        """Write what `lines` made of each part, in this order: the same file as `write` makes of the whole."""
        return self._finish(out, sources, self._write_file("", parts, out))

    def _write_file(self, number: str, made: Iterable[Lines], out: str) -> Exported:
        name = f"{self.stem}{number}.jsonl{SUFFIXES[self.compression]}"
        total = Exported((name,))
        with files.open_atomic(files.join(out, name), self.compression) as file:
            for pieces, counted in made:
                file.writelines(pieces)
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


_BOX = "regions.list.element.boxes.list.element"
_ORIGIN = f"{_BOX}.origin"
# The leaf that has a value for each thing that a format may lose, and how many values one has.
_THINGS = {
    "image captions": ("captions.list.element.text", 1),
    "tags": ("tags.list.element", 1),
    "negatives": ("negatives.list.element.list.element", 2),
    "box captions": (f"{_BOX}.caption.text", 1),
    "masks": (f"{_BOX}.mask", 1),
    "scores": (f"{_BOX}.score", 1),
    "annotation ids": (f"{_BOX}.annotation_id", 1),
    "areas": (f"{_BOX}.area", 1),
}


def losses_of_file(data: bytes) -> tuple[dict[str, int], set[str]]:
    """What `losses` finds in a parquet file of records, by the file's own figures; and the leaves that must be read
    for `losses` to find the rest.
    """
    file = pq.ParquetFile(io.BytesIO(data))
    held = leaves.counts(file)
    said = {name: (held.get(leaf), size) for name, (leaf, size) in _THINGS.items()}
    counts = {name: count // size for name, (count, size) in said.items() if count}
    unsaid = {leaf for leaf, _ in _THINGS.values() if held.get(leaf) is None}
    return counts, unsaid if leaves.only(file, _ORIGIN, "human") else {*unsaid, _ORIGIN}


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
