"""Which requests have an answer. Append-only parquet files; the directory name is the fingerprint.

A file is named `part-<epoch>-<chunk>.parquet` after the driver's lease and its unit of work, and is renamed into place
whole; no two drivers ever share an epoch, so no file is ever written twice. The order of names is the order of
commitment: inside one attempt the first committed answer counts.
"""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from llmdet import files
from llmdet.workspace import read_part, to_parquet
from pipelines.engines.engine import Answer, Request

SCHEMA = pa.schema(
    [
        ("request_id", pa.binary(16)),
        ("record_id", pa.string()),
        ("attempt", pa.int32()),
        ("text", pa.string()),
        ("error", pa.string()),
        ("detail", pa.string()),
        ("finish", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
    ],
    metadata={"llmdet.schema_version": "1"},
)

# 16 bytes of a request id as two numbers: sorts fast, and costs exactly 16 bytes each in memory.
Ids = NDArray[np.uint64]  # (n, 2)


def ids_of(requests: Sequence[bytes]) -> Ids:
    """Request ids as numbers that sort as the bytes do."""
    return np.frombuffer(b"".join(requests), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def entry(request: Request, record_id: str, answer: Answer) -> tuple[object, ...]:
    """One row of `SCHEMA`."""
    return (
        request.id,
        record_id,
        request.attempt,
        answer.text,
        answer.error or None,
        answer.detail or None,
        answer.finish,
        answer.prompt_tokens,
        answer.cached_tokens,
        answer.answer_tokens,
    )


def new_look() -> str:
    """A name for one look into ledgers, for what workers remember of it: who deletes a ledger and asks again gets
    files of the same names, with other answers."""
    return uuid.uuid4().hex


def _positions(ids: Ids, wanted: Ids) -> NDArray[np.int64]:
    """Index of each wanted id among sorted ones, -1 where it is not there."""
    at = np.searchsorted(ids[:, 0], wanted[:, 0])
    result = np.full(len(wanted), -1, dtype=np.int64)
    open_ = np.arange(len(wanted))
    # Ids that agree in their first halves are neighbours: one turn is enough but once in 2^64 draws.
    while len(open_ := open_[at[open_] < len(ids)]):
        here = ids[at[open_]]
        found = (here == wanted[open_]).all(axis=1)
        result[open_[found]] = at[open_[found]]
        open_ = open_[~found & (here[:, 0] == wanted[open_, 0])]
        at[open_] += 1
    return result


@dataclass(frozen=True)
class Answered:
    """Which requests have an answer, 16 bytes each; what was answered again is rare and stands apart."""

    ids: Ids  # sorted
    later: dict[int, int]  # index -> attempt, where it is not the first

    def attempts(self, requests: Sequence[bytes]) -> dict[bytes, int]:
        """The attempt that answered each request which has an answer."""
        if not requests or not len(self.ids):
            return {}
        at = _positions(self.ids, ids_of(requests)).tolist()
        return {request: self.later.get(p, 0) for request, p in zip(requests, at, strict=True) if p >= 0}


@dataclass(frozen=True)
class Found:
    """Where the answers are: sorted ids, and for each the file and row of the answer that counts."""

    ids: Ids
    file: NDArray[np.int32]
    row: NDArray[np.int32]
    attempt: NDArray[np.int32]
    ok: NDArray[np.bool_]
    names: tuple[str, ...] = field(default=())
    look: str = field(default_factory=new_look)

    def positions(self, wanted: Ids) -> NDArray[np.int64]:
        """Index of each wanted id, -1 where it is not there."""
        return _positions(self.ids, wanted)

    def runs(self, wanted: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(number of the wanted id, index) of everything that is known of the wanted ids; what is of one id stands
        together, in the order of the index."""
        first = self.positions(wanted)
        asked, at = np.flatnonzero(first >= 0), first[first >= 0]
        found = [np.stack([asked, at])]
        # Further attempts of a request stand behind its first: few requests have any.
        while len(at):
            at = at + 1
            more = np.flatnonzero(at < len(self.ids))
            more = more[(self.ids[at[more]] == wanted[asked[more]]).all(axis=1)]
            asked, at = asked[more], at[more]
            found.append(np.stack([asked, at]))
        both = np.concatenate(found, axis=1)
        both = both[:, np.argsort(both[0], kind="stable")]
        return both[0], both[1]


@dataclass(frozen=True)
class Ledger:
    """The answers of one task under one fingerprint."""

    url: str

    def append(self, epoch: int, chunk: int, rows: list[tuple[object, ...]]) -> None:
        """Commit the answers of one unit of work, all or nothing; what `committed` finds must not be appended again."""
        columns = [pa.array(column, f.type) for column, f in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
        batch = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        files.write_bytes(files.join(self.url, _name(epoch, chunk)), to_parquet(batch))

    def committed(self, epoch: int, chunk: int) -> list[tuple[object, ...]] | None:
        """The rows of a unit of work that this driver committed before (Ray repeats tasks whose worker died)."""
        if not files.exists(files.join(self.url, _name(epoch, chunk))):
            return None
        return list(zip(*(column.to_pylist() for column in self.read(_name(epoch, chunk)).columns), strict=True))

    def next_epoch(self) -> int:
        """One more than any epoch in the names of files."""
        return max((int(name.split("-")[1]) for name in self.names()), default=-1) + 1

    def names(self) -> list[str]:
        fs, path = url_to_fs(self.url)
        if not fs.exists(path):
            return []
        names = (posixpath.basename(entry) for entry in fs.ls(path, detail=False, refresh=True))
        return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))

    def index(self, names: Sequence[str] | None = None, *, attempts: bool = False) -> Found:
        """All request ids of the ledger (or of some of its files) with the answer that counts: an answer before an
        error, then the highest attempt, then the first committed. With `attempts` the one that counts of each attempt,
        in that order."""
        names = self.names() if names is None else names
        parts = [self._keys(name) for name in names]
        ids = np.concatenate([p[0] for p in parts]) if parts else np.empty((0, 2), np.uint64)
        attempt = np.concatenate([p[1] for p in parts]) if parts else np.empty(0, np.int32)
        ok = np.concatenate([p[2] for p in parts]) if parts else np.empty(0, np.bool_)
        sizes = [len(p[1]) for p in parts]
        file = np.repeat(np.arange(len(names), dtype=np.int32), sizes)
        row = np.concatenate([np.arange(n, dtype=np.int32) for n in sizes]) if sizes else np.empty(0, np.int32)
        order = np.lexsort((row, file, -attempt, ~ok, ids[:, 1], ids[:, 0]))
        ids = ids[order]
        first = np.ones(len(ids), np.bool_)
        first[1:] = (ids[1:] != ids[:-1]).any(axis=1)
        if attempts:
            first[1:] |= (attempt[order][1:] != attempt[order][:-1]) | (ok[order][1:] != ok[order][:-1])
        keep = order[first]
        # By column: a search in the first halves would copy all of them each time otherwise.
        return Found(np.asfortranarray(ids[first]), file[keep], row[keep], attempt[keep], ok[keep], tuple(names))

    def answered(self) -> Answered:
        """Which requests have an answer now, and from which attempt."""
        found = self.index()
        attempt = found.attempt[found.ok]
        later = np.flatnonzero(attempt)
        return Answered(
            np.asfortranarray(found.ids[found.ok]), dict(zip(later.tolist(), attempt[later].tolist(), strict=True))
        )

    def _keys(self, name: str) -> tuple[Ids, NDArray[np.int32], NDArray[np.bool_]]:
        table = self.read(name, ["request_id", "attempt", "error"])
        ids = ids_of(table["request_id"].to_pylist())
        return ids, table["attempt"].to_numpy(), pc.is_null(table["error"]).to_numpy(zero_copy_only=False)

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """One file. Raises DamagedError where it is not as it was written."""
        return read_part(files.join(self.url, name), columns)

    def answers(self, found: Found, wanted: Sequence[bytes]) -> list[list[dict[str, object]]]:
        """The rows of each wanted request, the one that counts first; none where it was never asked."""
        rows: list[list[dict[str, object]]] = [[] for _ in wanted]
        if not wanted:
            return rows
        asked, at = found.runs(ids_of(wanted))
        ordered: list[dict[str, object] | None] = [None] * len(at)
        for number in np.unique(found.file[at]):
            here = np.flatnonzero(found.file[at] == number)
            table = _cached(self, found.names[number], found.look).take(pa.array(found.row[at[here]]))
            for position, row in zip(here.tolist(), table.to_pylist(), strict=True):
                ordered[position] = row
        for request, row in zip(asked.tolist(), ordered, strict=True):
            if row is not None:
                rows[request].append(row)
        return rows


def _name(epoch: int, chunk: int) -> str:
    return f"part-{epoch:05d}-{chunk:06d}.parquet"


@lru_cache(maxsize=4)
def _cached(ledger: Ledger, name: str, look: str) -> pa.Table:
    """Neighbouring records have their answers in the same files."""
    return ledger.read(name)
