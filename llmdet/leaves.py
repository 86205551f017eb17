"""Reading records from parquet without what nobody wants of them, and without what they do not hold.

A box has twenty leaves, most of them null in most sources, and a leaf of nulls is decoded box by box like any other.
The file says itself how many values each leaf holds, so that the empty ones can be put in instead of being read.
"""

from __future__ import annotations

import io
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmdet.flat import offsets_of
from llmdet.record import SCHEMA, check_schema

_REGION = "regions.list.element"
# What tells how many regions and boxes there are; a Record has nothing to say this where they are not read.
_ALWAYS = frozenset(
    {
        f"{_REGION}.phrases.list.element",
        f"{_REGION}.spans.list.element.list.element",
        f"{_REGION}.boxes.list.element.xyxy.list.element",
    }
)


def read(data: bytes, leaves: Collection[str] | None = None) -> pa.Table:
    """The records of a parquet file with the columns of `SCHEMA`, but only what `leaves` name (as parquet spells them).

    What they do not name is null, or an empty list. Files of another schema are read whole. Raises FormatError for one
    that holds no records.
    """
    file = pq.ParquetFile(io.BytesIO(data))
    check_schema(file.schema_arrow)
    if not file.schema_arrow.equals(SCHEMA):
        return file.read(use_threads=False)
    held = counts(file)
    chosen = [leaf for leaf in held if (leaves is None or leaf in leaves) and (held[leaf] != 0 or leaf in _ALWAYS)]
    table = file.read(columns=chosen, use_threads=False)
    return pa.Table.from_batches([_complete(batch) for batch in table.to_batches()], schema=SCHEMA)


def counts(file: pq.ParquetFile) -> dict[str, int | None]:
    """How many values that are not null each leaf of a file holds, by path; None where the file does not say."""
    found: dict[str, int | None] = {file.schema.column(i).path: 0 for i in range(len(file.schema))}
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for index, leaf in enumerate(found):
            column = row_group.column(index)
            figures, sofar = column.statistics, found[leaf]
            known = sofar is not None and figures is not None and figures.has_null_count
            found[leaf] = sofar + column.num_values - figures.null_count if known else None
    return found


def only(file: pq.ParquetFile, leaf: str, value: str) -> bool:
    """Whether each value of a leaf is this one, as far as the file says."""
    index = [file.schema.column(i).path for i in range(len(file.schema))].index(leaf)
    groups = [file.metadata.row_group(group).column(index).statistics for group in range(file.metadata.num_row_groups)]
    return all(figures and figures.has_min_max and figures.min == figures.max == value for figures in groups)


def _complete(batch: pa.RecordBatch) -> pa.RecordBatch:
    there = set(batch.schema.names)
    columns = [
        _filled(batch.column(f.name), f.type) if f.name in there else _nothing(f.type, batch.num_rows) for f in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _filled(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array whose structs lack some fields, with all of them."""
    if array.type.equals(kind):
        return array
    mask = array.is_null() if array.null_count else None
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(
            pa.array(offsets_of(array)), _filled(array.flatten(), kind.value_type), type=kind, mask=mask
        )
    there = {f.name for f in array.type}
    fields = [_filled(array.field(f.name), f.type) if f.name in there else _nothing(f.type, len(array)) for f in kind]
    return pa.StructArray.from_arrays(fields, fields=list(kind), mask=mask)


def _nothing(kind: pa.DataType, count: int) -> pa.Array:
    """So many empty lists, or nulls."""
    if not pa.types.is_list(kind):
        return pa.nulls(count, kind)
    return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], kind.value_type), type=kind)
