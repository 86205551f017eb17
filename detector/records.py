"""Records for training: opened at once however many there are, and any row of them at any time.

A small table is decoded whole. Of a large one opening reads the manifest alone. When the first row of a part is wanted,
the part is checked and what training needs of it is written as an Arrow file to a folder of this machine, from which
all processes read the few rows around the one that they want: what is in memory then is the system's file cache.

The folder is `llmdet-data/records` in $XDG_CACHE_HOME (`~/.cache`), or in $LLMDET_CACHE; about 2 kB for each record. It
may be removed at any time; files of tables that nobody opened for a week are removed when the next table is opened.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import DamagedError, MissingError
from llmdet.record import Box, Caption, Record, Region, check_schema, from_batch, to_batch
from llmdet.workspace import Part, Table, fingerprint

log = logging.getLogger(__name__)

DECODED_ROWS = 20_000  # of a table up to this size, all records are kept decoded
ROWS_TOGETHER = 32  # of a decoded part, read at once: some 60 kB
OPEN_PARTS = 256  # that a process has open at a time; each takes a file handle
PARTS_IN_MEMORY = 4  # where nothing can be written to the cache
_VERIFY = "llmdet-data doctor --verify --remove-damaged"
UNUSED_S = 7 * 86_400  # after which the files of another table are removed
# What training never looks at, by the names of columns and of fields in them.
_UNUSED = frozenset(
    "raw provenance request_id attempt prompt_tokens answer_tokens links mask annotation_id area score "
    "image_sha256 split licence extra".split()
)


class RecordTable:
    """Records of a folder of parquet parts (those of its manifest, where it has one).

    Those of a large table have only what training needs; other fields are empty. Raises MissingError where there are
    none, DamagedError for a part that is not as it was written (of a large table once a row of it is read).
    """

    def __init__(self, folder: str) -> None:
        self.table = Table(folder.rstrip("/"))
        self.parts = _parts(self.table)
        self.ends = np.cumsum([part.rows for part in self.parts], dtype=np.int64)
        if not self.parts:
            raise MissingError(f"training needs records in {folder}/part-*.parquet; none are there. Run merge first.")
        small = int(self.ends[-1]) <= DECODED_ROWS
        self.decoded = [record for part in self.parts for record in from_batch(self._whole(part))] if small else None
        self.rows = DecodedParts(self.table, self.parts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> Record:
        if self.decoded is not None:
            return self.decoded[row]
        part = int(np.searchsorted(self.ends, row, side="right"))
        start = int(self.ends[part - 1]) if part else 0
        return _record(self.rows.row(part, row - start))

    def columns(self, *names: str) -> Iterator[pa.Table]:
        """At least these columns of all rows, a table at a time; of a nested one the fields that are named too."""
        if self.decoded is not None:
            yield pa.Table.from_batches([to_batch(self.decoded)])
            return
        for part in self.parts:
            yield _some(files.join(self.table.url, part.name), lambda step: step in names)

    def _whole(self, part: Part) -> pa.Table:
        table = self.table.read(part.name)
        _check_rows(table.num_rows, part, self.table)
        return table


class DecodedParts:
    """Rows of a table's parts, from files that the first reader of a part writes."""

    def __init__(self, table: Table, parts: tuple[Part, ...]) -> None:
        self.table, self.parts = table, parts
        self.folder = cache_folder() / fingerprint([table.url, *([p.name, p.rows, p.sha256] for p in parts)])
        self.limit = OPEN_PARTS
        self.open: OrderedDict[int, pa.RecordBatchFileReader | pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: another process opens the files itself."""
        return self.__dict__ | {"open": OrderedDict()}

    def row(self, number: int, row: int) -> dict[str, Any]:
        """A row of a part, both by number."""
        if number not in self.open:
            self.open[number] = self._open(self.parts[number])
            while len(self.open) > self.limit:
                self.open.popitem(last=False)
        self.open.move_to_end(number)
        part = self.open[number]
        if isinstance(part, pa.Table):
            return dict(part.slice(row, 1).to_pylist()[0])
        group, rest = divmod(row, ROWS_TOGETHER)
        return dict(part.get_batch(group).slice(rest, 1).to_pylist()[0])

    def _open(self, part: Part) -> pa.RecordBatchFileReader | pa.Table:
        path = self.folder / f"{part.name}.arrow"
        if not path.exists():
            table = self._decode(part)
            try:
                self._write(path, table)
            except OSError as error:
                if self.limit != PARTS_IN_MEMORY:
                    log.warning("records are read slowly: %s cannot be written to (%s)", self.folder, error)
                self.limit = PARTS_IN_MEMORY
                return table
        return pa.ipc.open_file(pa.OSFile(str(path)))  # a mapped file would soon count as memory of the process

    def _decode(self, part: Part) -> pa.Table:
        with _parquet(files.join(self.table.url, part.name)) as parquet:
            check_schema(parquet.schema_arrow)
            columns = _chosen(parquet, lambda step: step not in _UNUSED)
        table = self.table.read(part.name, columns)
        _check_rows(table.num_rows, part, self.table)
        return table.combine_chunks()  # one chunk, so that every group but the last has all its rows

    def _write(self, path: Path, table: pa.Table) -> None:
        if not self.folder.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            _forget_unused(self.folder)
        os.utime(self.folder)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=ROWS_TOGETHER)
            pa.default_memory_pool().release_unused()
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where decoded parts are kept; see the head of this file."""
    own, base = os.environ.get("LLMDET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    home = Path(own) if own else Path(base or Path.home() / ".cache") / "llmdet-data"
    return home / "records"


def names_by_source(table: RecordTable) -> Mapping[str, pa.Array]:
    """The names that the detection records of each source have boxes of, sorted."""
    found: dict[str, list[pa.Array]] = {}
    for rows in table.columns("source", "kind", "regions", "phrases"):
        rows = rows.filter(pc.equal(rows["kind"], "detection"))
        for source in pc.unique(rows["source"]).to_pylist():
            regions = rows.filter(pc.equal(rows["source"], source))["regions"].combine_chunks()
            found.setdefault(source, []).append(pc.unique(regions.flatten().field("phrases").flatten()))
    unique = {source: pc.unique(pa.chunked_array(names)) for source, names in found.items()}
    return {source: names.take(pc.sort_indices(names)) for source, names in unique.items()}


def _parts(table: Table) -> tuple[Part, ...]:
    """The parts that have rows. A merge that was killed leaves parts beside those of the manifest."""
    manifest = table.manifest()
    if manifest is None:
        found = [_unnamed(table, name) for name in table.listing()]
        return tuple(part for part in found if part.rows)
    for part in manifest.parts:
        _check_file(files.join(table.url, part.name))
    return tuple(part for part in manifest.parts if part.rows)


def _unnamed(table: Table, name: str) -> Part:
    """A part that no manifest speaks of; when it was written stands for its checksum."""
    url = files.join(table.url, name)
    fs, path = url_to_fs(url)
    with _parquet(url) as parquet:
        return Part(name, parquet.metadata.num_rows, str(fs.info(path).get("mtime", "")))


def _check_file(url: str) -> None:
    """Raise MissingError where a part is gone, DamagedError where it has no end; reading it checks the rest."""
    fs, path = url_to_fs(url)
    if "file" not in fs.protocol:
        return  # a request for each of a thousand parts takes longer than reading one
    try:
        with open(path, "rb") as file:
            file.seek(-4, os.SEEK_END)
            whole = file.read() == b"PAR1"
    except FileNotFoundError as error:
        raise MissingError(f"the manifest names {url}, which is not there; run merge again") from error
    except OSError:
        whole = False
    if not whole:
        raise DamagedError(f"{url} is damaged: it has no end; find all such files with: {_VERIFY}")


def _check_rows(rows: int, part: Part, table: Table) -> None:
    if rows != part.rows:
        raise DamagedError(f"{table.url}/{part.name} has {rows} rows, its manifest says {part.rows}; run merge again")


def _some(url: str, keep: Callable[[str], bool]) -> pa.Table:
    """Columns of one part of which only their own bytes are read."""
    with _parquet(url) as parquet:
        return parquet.read(columns=_chosen(parquet, keep), use_threads=False)


@contextlib.contextmanager
def _parquet(url: str) -> Iterator[pq.ParquetFile]:
    """A part of which the footer is read and then what is asked for. Raises DamagedError where it is no such file."""
    fs, path = url_to_fs(url)
    with fs.open(path, "rb") as file:
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise DamagedError(f"{url} is damaged: {error}; find all such files with: {_VERIFY}") from error
        yield parquet


def _chosen(parquet: pq.ParquetFile, keep: Callable[[str], bool]) -> list[str]:
    """Columns of a part, nested ones too, in all steps of whose path `keep` holds."""
    paths = [parquet.schema.column(number).path for number in range(len(parquet.schema))]
    return [
        path for path in paths if all(step in ("list", "element", "item") or keep(step) for step in path.split("."))
    ]


def _forget_unused(folder: Path) -> None:
    """Remove what was written for tables that nobody has opened for long."""
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and time.time() - other.stat().st_mtime > UNUSED_S:
            shutil.rmtree(other, ignore_errors=True)


# --- Rows ----------------------------------------------------------------------------------------------------------
# `from_batch` is made for thousands of rows; for one, dicts are ten times faster.

_PLAIN = ("id", "source", "image_id", "text_id", "kind", "image", "root", "width", "height", "text")


def _record(row: dict[str, Any]) -> Record:
    return Record(
        **{name: row[name] for name in _PLAIN},
        regions=tuple(map(_region, row["regions"] or ())),
        negatives=_spans(row["negatives"]),
        exhaustive=bool(row["exhaustive"]),
        captions=tuple(Caption(caption["text"]) for caption in row["captions"] or ()),
        tags=tuple(row["tags"] or ()),
        flags=tuple(row["flags"] or ()),
        orientation=row["orientation"],
        origin=row["origin"] or "",
    )


def _region(row: dict[str, Any]) -> Region:
    return Region(tuple(row["phrases"]), _spans(row["spans"]), tuple(map(_box, row["boxes"])), row["category_id"])


def _box(row: dict[str, Any]) -> Box:
    caption = Caption(row["caption"]["text"]) if row["caption"] else None
    return Box(tuple(row["xyxy"]), row["order"], row["origin"], crowd=bool(row["crowd"]), caption=caption)


def _spans(rows: Any) -> tuple[tuple[int, int], ...]:
    return tuple((start, end) for start, end in rows or ())
