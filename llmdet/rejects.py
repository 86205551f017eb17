"""Losing data is data: every row that is left out is written with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Level = Literal["annotation", "record", "request"]
Kind = Literal["policy", "fault"]

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "level", "kind", "stage", "reason", "detail")],
    metadata={"llmdet.schema_version": "1"},
)


@dataclass(frozen=True, slots=True)
class Reject:
    """One thing that was left out.

    `policy`: we chose so (a crowd box, a leaked image). `fault`: it is broken (a cut jpg, an engine error); faults of
    records and requests count against --max-faults.
    """

    id: str  # of the record, request or annotation
    level: Level
    kind: Kind
    stage: str
    reason: str  # a short word that reports count by
    detail: str = ""


def to_batch(rejects: Sequence[Reject]) -> pa.RecordBatch:
    """Rejects as one Arrow batch with `SCHEMA`."""
    columns = [pa.array([getattr(r, name) for r in rejects], pa.string()) for name in SCHEMA.names]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def from_batch(batch: pa.RecordBatch | pa.Table) -> list[Reject]:
    """The rows of a batch or table with the columns of `SCHEMA`."""
    columns = [batch.column(name).to_pylist() for name in SCHEMA.names]
    return [Reject(*row) for row in zip(*columns, strict=True)]


def by_reason(rejects: Iterable[Reject]) -> dict[str, int]:
    """Counts by reason, most frequent first."""
    return dict(Counter(reject.reason for reject in rejects).most_common())
