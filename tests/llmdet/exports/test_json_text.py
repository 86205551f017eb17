import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from llmdet.exports.json_text import (
    Column,
    arrays,
    arrays_of_rows,
    integers,
    joined,
    lines,
    objects,
    one_or_many,
    one_or_many_rows,
    rows,
    strings,
)
from llmdet.flat import offsets_of


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_text_parses_back(texts: list[str]) -> None:
    assert [json.loads(text) for text in joined(strings(pa.array(texts, pa.string()))).to_pylist()] == texts


def test_only_what_json_wants_is_escaped() -> None:
    column = pa.array(['say "hi"\\\n', "\x00\x1f", "café\u2028\x7f", None])
    assert joined(strings(column)).to_pylist() == [
        '"say \\"hi\\"\\\\\\n"',
        '"\\u0000\\u001f"',
        '"café\u2028\x7f"',
        None,
    ]


@given(
    arrays_of.arrays(
        np.float64, st.tuples(st.integers(0, 5), st.just(4)), elements=st.floats(allow_nan=False, allow_infinity=False)
    )
)
def test_every_double_parses_back_to_the_same_bits(values: np.ndarray) -> None:
    parsed = [json.loads(text) for text in rows(values).to_pylist()]
    assert np.array(parsed, dtype=np.float64).reshape(-1, 4).tobytes() == values.tobytes()


def test_whole_doubles_keep_their_point_and_spans_have_none() -> None:
    assert rows(np.array([[26.0, 300.15999999999997]])).to_pylist() == ["[26.0,300.15999999999997]"]
    assert rows(np.array([[0, 3]], dtype=np.int32)).to_pylist() == ["[0,3]"]


def test_lists_are_gathered_by_their_offsets() -> None:
    items, offsets = pa.array(["1", "2", "3"]), np.array([0, 0, 1, 3], dtype=np.int32)
    assert joined(arrays(items, offsets)).to_pylist() == ["[]", "[1]", "[2,3]"]
    assert joined(one_or_many(items, offsets)).to_pylist() == ["[]", "1", "[2,3]"]


@given(st.lists(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 9)), max_size=3)))
def test_rows_are_gathered_as_any_fragments_are(lists: list[list[tuple[float, float]]]) -> None:
    for some in (lists, [one for one in lists if one]):  # an empty list takes another way
        values = np.array([row for one in some for row in one], np.float64).reshape(-1, 2)
        offsets = np.cumsum([0, *(len(one) for one in some)], dtype=np.int32)
        assert [json.loads(text) for text in texts(arrays_of_rows(values, offsets), some)] == [
            [list(row) for row in one] for one in some
        ]


@given(st.lists(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=3), max_size=5))
def test_one_row_stands_alone_after_its_key(lists: list[list[tuple[int, int]]]) -> None:
    values = np.array([row for one in lists for row in one], np.int32).reshape(-1, 2)
    offsets = np.cumsum([0, *(len(one) for one in lists)], dtype=np.int32)
    rest = {"n": integers(pa.array(range(len(lists))))}
    told = texts(objects(rest, one_or_many_rows("bbox", values, offsets)), lists)
    wanted = [{"bbox": one if len(one) > 1 else one[0], "n": number} for number, one in enumerate(lists)]
    assert told == [json.dumps(one, separators=(",", ":")) for one in wanted]


def texts(column: Column, rows: list[Any]) -> list[str]:
    """The text of each row, of which there are as many as `rows`: pieces that are the same in all may stand alone."""
    return joined((*column, pa.array([""] * len(rows), pa.string()))).to_pylist()


def test_offsets_begin_at_zero_in_a_slice_and_null_is_empty() -> None:
    column = pa.array([[1], [2, 3], None, [4]])
    assert offsets_of(column).tolist() == [0, 1, 3, 3, 4]
    assert offsets_of(column.slice(1)).tolist() == [0, 2, 2, 3]
    assert column.slice(1).flatten().to_pylist() == [2, 3, 4]


def test_null_members_are_left_out_of_an_object() -> None:
    members = {"a": integers(pa.array([1, 2])), 'b"': pa.array(["[]", None]), "c": pa.array(['"x"', '"y"'])}
    assert joined(objects(members)).to_pylist() == ['{"a":1,"b\\"":[],"c":"x"}', '{"a":2,"c":"y"}']


def test_lines_of_a_slice_are_its_own() -> None:
    assert bytes(lines(pa.array(["{}", '{"a":1}', "[]"]).slice(1))) == b'{"a":1}\n[]\n'
    assert bytes(lines(pa.array([], pa.string()))) == b""
