"""JSON text made from Arrow columns: each function takes columns and returns a column of JSON fragments.

Writing a million records through dicts costs more than everything else that export does. Here a key is joined to a
whole column at once, floats go through orjson's shortest-digits printer in one call, and no Python object is made per
row. The fragments compose: `objects({"phrase": strings(phrases), "bbox": arrays(rows(xyxy), offsets)})`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet.flat import Offsets

# What JSON wants escaped inside a string; everything else may stand as UTF-8.
_ESCAPED = r'["\\\x00-\x1f]'
_CLOSE = ord("]")


def rows(values: NDArray[np.float64] | NDArray[np.int32]) -> pa.Array:
    """`(n, k)` numbers to n texts `[a,b,...]`; floats in the fewest digits that read back to the same double."""
    if not len(values):
        return pa.array([], pa.string())
    dumped = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    text = np.frombuffer(dumped, dtype=np.uint8)[1:-1]
    closes = np.flatnonzero(text == _CLOSE)
    keep = np.ones(len(text), dtype=bool)
    keep[closes[:-1] + 1] = False  # the commas between rows
    offsets = np.zeros(len(closes) + 1, dtype=np.int32)
    offsets[1:] = closes + 1 - np.arange(len(closes))
    return pa.StringArray.from_buffers(len(closes), pa.py_buffer(offsets), pa.py_buffer(text[keep]))


def integers(column: pa.Array) -> pa.Array:
    """Whole numbers as JSON numbers; null stays null."""
    return column.cast(pa.string())


def strings(column: pa.Array) -> pa.Array:
    """Texts in quotes, escaped; null stays null."""
    quoted = pc.binary_join_element_wise('"', column, '"', "")
    escape = pc.match_substring_regex(column, _ESCAPED).fill_null(False)
    if not pc.any(escape).as_py():
        return quoted
    escaped = [orjson.dumps(text).decode() for text in column.filter(escape).to_pylist()]
    return pc.replace_with_mask(quoted, escape, pa.array(escaped, pa.string()))


def arrays(items: pa.Array, offsets: Offsets) -> pa.Array:
    """Fragments gathered to `[a,b,...]`, one per list."""
    return pc.binary_join_element_wise("[", _joined(items, offsets), "]", "")


def one_or_many(items: pa.Array, offsets: Offsets) -> pa.Array:
    """The fragment itself where a list has one, `[a,b,...]` otherwise: ODVG's way with boxes and phrases."""
    joined = _joined(items, offsets)
    single = pa.array(np.diff(offsets) == 1)
    return pc.if_else(single, joined, pc.binary_join_element_wise("[", joined, "]", ""))


def objects(members: Mapping[str, pa.Array]) -> pa.Array:
    """`{"key":value,...}` for every row. A key is left out where its value is null; the first one never may be."""
    parts: list[pa.Array | str] = []
    for index, (key, column) in enumerate(members.items()):
        prefix = ("," if index else "{") + orjson.dumps(key).decode() + ":"
        if column.null_count:
            parts.append(pc.binary_join_element_wise(prefix, column, "").fill_null(""))
        else:
            parts += [prefix, column]
    return pc.binary_join_element_wise(*parts, "}", "")


def lines(column: pa.Array) -> bytes:
    """Each fragment with a line end, as UTF-8."""
    if not len(column):
        return b""
    ended = pc.binary_join_element_wise(column, "\n", "")
    offsets = np.frombuffer(ended.buffers()[1], dtype=np.int32)
    first, last = offsets[ended.offset], offsets[ended.offset + len(ended)]
    return bytes(memoryview(ended.buffers()[2])[first:last])


def _joined(items: pa.Array, offsets: Offsets) -> pa.Array:
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), ",")
