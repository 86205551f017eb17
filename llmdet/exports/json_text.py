"""JSON text made from Arrow columns: each function takes columns and returns a column of JSON fragments.

Writing a million records through dicts costs more than everything else that export does. Here a key is joined to a
whole column at once, floats go through orjson's shortest-digits printer in one call, and no Python object is made per
row. The fragments compose: `objects({"phrase": strings(phrases), "bbox": arrays(rows(xyxy), offsets)})`. Text is copied
only where it must be: a column may stay in pieces that follow one another in every row, until `joined` is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet.flat import Offsets, utf8

Pieces: TypeAlias = tuple[pa.Array | str, ...]  # a row's text is that of each piece in turn; a text stands in every row
Column: TypeAlias = pa.Array | Pieces

# What JSON wants escaped inside a string; everything else may stand as UTF-8.
_ESCAPED = r'["\\\x00-\x1f]'
_SPACE, _QUOTE, _BACKSLASH, _OPEN, _CLOSE, _COLON = b' "\\[]:'


def rows(values: NDArray[np.float64] | NDArray[np.int32]) -> pa.Array:
    """`(n, k)` numbers to n texts `[a,b,...]`; floats in the fewest digits that read back to the same double."""
    dumped = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    text = np.frombuffer(dumped, dtype=np.uint8)[1:]
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    offsets[1:] = np.flatnonzero(text == _CLOSE)[:-1] + 2
    # Each row with the byte behind it, a comma or the last bracket, which is then cut off.
    return pc.binary_slice(_texts(offsets, pa.py_buffer(text)).view(pa.binary()), 0, -1).view(pa.string())


def arrays_of_rows(values: NDArray[np.float64] | NDArray[np.int32], offsets: Offsets) -> Pieces:
    """`(n, k)` numbers gathered to `[[a,b],[c,d]]`, one per list."""
    if not np.diff(offsets).all():
        return arrays(rows(values), offsets)
    return _runs_of_rows(values, offsets, _OPEN), "]"


def one_or_many_rows(key: str, values: NDArray[np.float64] | NDArray[np.int32], offsets: Offsets) -> Pieces:
    """`"key":[a,b]` where a list has one row, `"key":[[a,b],[c,d]]` where it has several; it must have one."""
    many, name = np.diff(offsets) > 1, orjson.dumps(key).decode()
    texts = _runs_of_rows(values, offsets, np.where(many, _OPEN, _COLON))
    return _either(many, f"{name}:", name), texts, _either(many, "]", "")


def _runs_of_rows(
    values: NDArray[np.float64] | NDArray[np.int32], offsets: Offsets, before: int | NDArray[np.int64]
) -> pa.Array:
    """The rows of each list, `[a,b],[c,d]`, after its byte of `before`; no list may be empty.

    The text of all rows has a bracket or comma where a list begins. That byte is written over, and nothing is moved.
    """
    dumped = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    text = np.array(np.frombuffer(dumped, dtype=np.uint8))
    ends = np.zeros(len(values) + 1, dtype=np.int32)
    ends[1:] = np.flatnonzero(text == _CLOSE)[:-1] + 1
    begins = ends[offsets]
    text[begins[:-1]] = before
    return _texts(begins, pa.py_buffer(text))


def _either(mask: NDArray[np.bool_], yes: str, no: str) -> pa.Array | str:
    if not mask.any():
        return no
    return yes if mask.all() else pa.array([no, yes]).take(pa.array(mask.astype(np.int8)))


def integers(column: pa.Array) -> pa.Array:
    """Whole numbers as JSON numbers; null stays null."""
    return column.cast(pa.string())


def strings(column: pa.Array) -> Column:
    """Texts in quotes, escaped; null stays null."""
    if not _may_need_escapes(column):
        return '"', column, '"'
    escape = pc.match_substring_regex(column, _ESCAPED).fill_null(False)
    escaped = [orjson.dumps(text).decode() for text in column.filter(escape).to_pylist()]
    return pc.replace_with_mask(joined(('"', column, '"')), escape, pa.array(escaped, pa.string()))


def arrays(items: Column, offsets: Offsets) -> Pieces:
    """Fragments gathered to `[a,b,...]`, one per list."""
    return "[", _lists(items, offsets), "]"


def one_or_many(items: Column, offsets: Offsets) -> Pieces:
    """The fragment itself where a list has one, `[a,b,...]` otherwise: ODVG's way with boxes and phrases."""
    many = np.diff(offsets) != 1
    if not many.any():
        return _pieces(items)
    return _either(many, "[", ""), _lists(items, offsets), _either(many, "]", "")


def objects(members: Mapping[str, Column], first: Pieces = ()) -> Pieces:
    """`{"key":value,...}` for every row, after a `first` member that is text with its key already.

    A key is left out where its value is null; the first one never may be.
    """
    pieces: list[pa.Array | str] = ["{", *first]
    for index, (key, column) in enumerate(members.items()):
        prefix = ("," if index or first else "") + orjson.dumps(key).decode() + ":"
        value = _pieces(column)
        if any(not isinstance(piece, str) and piece.null_count for piece in value):
            pieces.append(joined((prefix, *value)).fill_null(""))
        else:
            pieces += [prefix, *value]
    return *pieces, "}"


def joined(column: Column) -> pa.Array:
    """The text of each row in one piece; null where a piece is null."""
    pieces: list[pa.Array | str] = []
    for piece in _pieces(column):
        if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += piece
        elif not isinstance(piece, str) or piece:
            pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else pc.binary_join_element_wise(*pieces, "")


def lines(column: Column) -> pa.Buffer:
    """Each fragment with a line end, as UTF-8."""
    data, offsets = utf8(joined((*_pieces(column), "\n")))
    return pa.py_buffer(data[offsets[0] : offsets[-1]])


def _pieces(column: Column) -> Pieces:
    return column if isinstance(column, tuple) else (column,)


def _may_need_escapes(column: pa.Array) -> bool:
    """Whether a byte of the texts is one that JSON wants escaped."""
    data, offsets = utf8(column)
    text = data[offsets[0] : offsets[-1]]
    return bool((text < _SPACE).any() or (text == _QUOTE).any() or (text == _BACKSLASH).any())


def _lists(items: Column, offsets: Offsets) -> pa.Array:
    """The items of each list with commas between. Rows of one column lie end to end, so lists of them do too."""
    comma = np.ones(offsets[-1], dtype=np.int32)
    comma[offsets[1:][np.diff(offsets) > 0] - 1] = 0
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(comma, dtype=np.int32)])
    data, begins = utf8(joined((*_pieces(items), _texts(ends, pa.py_buffer(b"," * ends[-1])))))
    return _texts(begins[offsets], pa.py_buffer(data))


def _texts(offsets: Offsets, data: pa.Buffer) -> pa.Array:
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(np.ascontiguousarray(offsets)), data)
