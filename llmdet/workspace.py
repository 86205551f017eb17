"""The directory (any fsspec URL) that a run owns: tables as parquet parts, one manifest per table.

Commit protocol: a part is written under a temporary name, synced and renamed (one PUT on object stores); the manifest
goes last and is what readers trust. The name of a part carries the fingerprint of what made it, so that a stage
that was killed finds its own finished parts and never mistakes an older run's for them.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import DamagedError, FormatError, MissingError
from llmdet.record import Record, from_batch
from llmdet.seal import seal, sha256_of_whole

MANIFEST = "manifest.json"
# A part is one row group: it is read whole, and every further group costs each column a page.
ROW_GROUP = 65_536
# Columns of few values; a dictionary for the others is built in vain and then thrown away.
_REPEATED = (
    "kind",
    "source",
    "root",
    "orientation",
    "split",
    "licence",
    "origin",
    "phrases",
    "provenance",
    "stage",
    "reason",
)


@dataclass(frozen=True, slots=True)
class Part:
    """One parquet file of a table."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """The file of a part, which is what was once written."""

    data: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished table is made of and how it was made."""

    stage: str
    fingerprint: str  # hash of inputs and settings: the same fingerprint means that there is nothing to do
    parts: tuple[Part, ...]
    counts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)  # table -> fingerprint
    info: dict[str, Any] = field(default_factory=dict)  # records: SourceInfo of the source

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class Table:
    """A folder of parquet parts with a manifest."""

    url: str

    def manifest(self) -> Manifest | None:
        """The committed manifest, or None for a table that is not finished. Raises FormatError for a broken one."""
        url = files.join(self.url, MANIFEST)
        if not files.exists(url):
            return None
        try:
            value = files.read_json(url)
            return Manifest(**{**value, "parts": tuple(Part(**part) for part in value["parts"])})
        except (TypeError, KeyError) as error:
            raise FormatError(
                f"{url} is not a manifest of this version ({error}); remove it to make the table again"
            ) from error

    def require(self, hint: str) -> Manifest:
        manifest = self.manifest()
        if manifest is None:
            raise MissingError(f"no finished table at {self.url}; {hint}")
        return manifest

    def part_name(self, index: int, fingerprint: str) -> str:
        return f"part-{index:05d}-{fingerprint}.parquet"

    def write_part(self, index: int, fingerprint: str, data: pa.RecordBatch | pa.Table | Sealed) -> Part:
        """Write one part all or nothing; a sealed file is passed on as it is."""
        name = self.part_name(index, fingerprint)
        url = files.join(self.url, name)
        if isinstance(data, Sealed):
            rows = pq.ParquetFile(io.BytesIO(data.data)).metadata.num_rows
            return Part(name, rows, files.write_bytes(url, data.data, data.sha256))
        return Part(name, data.num_rows, files.write_bytes(url, to_parquet(data)))

    def listing(self) -> list[str]:
        """Names of all part files, sorted; temporary files of a killed writer are not among them."""
        fs, path = url_to_fs(self.url)
        if not fs.exists(path):
            return []
        names = (posixpath.basename(entry) for entry in fs.ls(path, detail=False, refresh=True))
        return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))

    def commit(self, manifest: Manifest) -> None:
        """Make a table visible, then remove the parts that it no longer names, and what killed writers left."""
        files.write_json(files.join(self.url, MANIFEST), asdict(manifest))
        fs, path = url_to_fs(self.url)
        named = {part.name for part in manifest.parts}
        for entry in fs.ls(path, detail=False, refresh=True):
            name = posixpath.basename(entry)
            if name.startswith(("part-", ".part-")) and name not in named:
                fs.rm_file(posixpath.join(path, name))

    def remove(self) -> None:
        """Remove a table: first the manifest, so that no reader sees half of it."""
        fs, path = url_to_fs(self.url)
        for name in (MANIFEST, *self.listing()):
            if fs.exists(posixpath.join(path, name)):
                fs.rm_file(posixpath.join(path, name))

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One part. Raises DamagedError for a file that is not as it was written."""
        return read_part(files.join(self.url, name), columns)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The parts of the committed table in order, one at a time."""
        for part in self.require("run the stage before this one").parts:
            yield self.read(part.name, columns)

    def records(self) -> Iterator[Record]:
        """Every record of a table of records, in order."""
        for table in self.batches():
            yield from from_batch(table)

    def damaged(self) -> list[str]:
        """Names of parts whose bytes are not what was written and what the manifest promises."""
        manifest = self.manifest()
        bad = []
        for part in manifest.parts if manifest else ():
            url = files.join(self.url, part.name)
            if not files.exists(url) or sha256_of_whole(files.read_bytes(url)) != part.sha256:
                bad.append(part.name)
        return bad


@dataclass(frozen=True, slots=True)
class Workspace:
    """Names of the tables of a run (design: Workspace)."""

    url: str

    @classmethod
    def at(cls, url: str) -> Workspace:
        return cls(files.absolute(url))

    def records(self, source: str) -> Table:
        return self._table("records", source)

    def grounded(self, source: str) -> Table:
        return self._table("grounded", source)

    def captions(self, source: str) -> Table:
        return self._table("captions", source)

    def asks(self, source: str) -> Table:
        return self._table("asks", source)

    def groundingcap(self) -> Table:
        return self._table("groundingcap")

    def rejects(self, stage: str, source: str) -> Table:
        return self._table("rejects", stage, source)

    def responses(self, source: str, task: str, fingerprint: str) -> str:
        return files.join(self.url, "responses", source, f"{task}-{fingerprint}")

    def path(self, *parts: str) -> str:
        return files.join(self.url, *parts)

    def _table(self, *parts: str) -> Table:
        return Table(files.join(self.url, *parts))

    def sources(self) -> list[str]:
        """Names of the sources that were ingested, sorted."""
        return [name for name in self.children("records") if self.records(name).manifest()]

    def best_records(self, source: str) -> Table:
        """The records of a source with pseudo boxes where `ground` was run, as ingested otherwise.

        Raises MissingError for pseudo boxes of other records than those that are there now.
        """
        grounded, records = self.grounded(source), self.records(source)
        made, there = grounded.manifest(), records.manifest()
        if made is None:
            return records
        if there and made.inputs.get("records", there.fingerprint) != there.fingerprint:
            raise MissingError(
                f"the pseudo boxes of {source} were made for other records than those that are there now; "
                f"run: llmdet-data ground --source {source}, or remove {grounded.url}"
            )
        return grounded

    def children(self, *parts: str) -> list[str]:
        fs, path = url_to_fs(self.path(*parts))
        if not fs.exists(path):
            return []
        return sorted(
            posixpath.basename(e["name"].rstrip("/"))
            for e in fs.ls(path, detail=True, refresh=True)
            if e["type"] == "directory"
        )

    def reject_tables(self) -> list[tuple[str, str, Table]]:
        """(stage, source, table) of every finished table of rejects."""
        found = []
        for stage in self.children("rejects"):
            for source in self.children("rejects", stage):
                table = self.rejects(stage, source)
                if table.manifest():
                    found.append((stage, source, table))
        return found


def to_parquet(data: pa.RecordBatch | pa.Table) -> bytes:
    """A batch or table as the bytes of one sealed parquet file; the same data gives the same bytes."""
    table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP, use_dictionary=repeated(table.schema))
    return seal(sink.getvalue())


def from_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of a parquet file, or some columns of it; a leaf of a nested one is named as parquet spells it.

    Without threads: parts are read side by side, and each reader has one core.
    """
    return pq.ParquetFile(io.BytesIO(data)).read(columns=columns, use_threads=False)


def read_part(url: str, columns: list[str] | None = None) -> pa.Table:
    """The table of a part, or some of its columns. Raises DamagedError where it is not as it was written."""
    return from_parquet(read_sealed(url).data, columns)


def read_sealed(url: str) -> Sealed:
    """The file of a part. Raises DamagedError where it is not as it was written."""
    data = files.read_bytes(url)
    digest = sha256_of_whole(data)
    if digest is None:
        raise DamagedError(
            f"{url} is damaged: its checksum does not fit its content; find all such files, and take them out of the "
            "way, with: llmdet-data doctor --verify --remove-damaged"
        )
    return Sealed(data, digest)


@lru_cache(maxsize=16)
def repeated(schema: pa.Schema) -> list[str]:
    """Paths of the columns that deserve a dictionary in parquet, nested ones too, as parquet spells them."""
    leaves = pq.ParquetFile(io.BytesIO(_empty(schema))).schema
    paths = [leaves.column(i).path for i in range(len(leaves))]
    return [path for path in paths if any(step in _REPEATED for step in path.split("."))]


def _empty(schema: pa.Schema) -> bytes:
    sink = io.BytesIO()
    pq.write_table(schema.empty_table(), sink)
    return sink.getvalue()


def concat(batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema) -> pa.Table:
    """Batches and tables one after the other; an empty table of the schema where there is none."""
    tables = [pa.Table.from_batches([b]) if isinstance(b, pa.RecordBatch) else b for b in batches]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def fingerprint(value: Any) -> str:
    """A hash of JSON-like settings and inputs; the order of keys does not matter."""
    return files.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))[:16]
