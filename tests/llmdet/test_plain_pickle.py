import datetime
import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import FormatError, MissingError
from llmdet.plain_pickle import parse, read_plain_pickle

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
PLAIN = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(TEXTS | st.integers(), inner)
        | st.tuples(inner)
        | st.tuples(inner, inner)
        | st.lists(inner).map(tuple)
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_of_every_protocol_come_back(value: Any, protocol: int) -> None:
    found = parse(pickle.dumps(value, protocol))
    assert found == value
    assert repr(found) == repr(value)  # 1 is not True, a list no tuple


def test_values_that_stand_twice_are_shared_as_in_the_file() -> None:
    row = ["a", 1]
    found = parse(pickle.dumps([row, row]))
    assert found[0] is found[1]


def test_keys_that_are_tuples_are_refused_before_anybody_hashes_them() -> None:
    twice = b"q\x00h\x00\x86"  # the tuple on top, paired with itself: 60 of these take 2 ** 60 steps to hash
    with pytest.raises(FormatError, match="a key must be a text or a number, found a tuple"):
        parse(b"\x80\x02})" + twice * 60 + b"K\x01s.")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"S'THE LADY\\'S \\xc3\\xa9'\np0\n.", "THE LADY'S \u00e9"),  # Python 2, protocol 0
        (b'S"it\'s"\n.', "it's"),
        (b"\x80\x02U\x03caf.", "caf"),
        (b"\x80\x02U\x04caf\xe9.", "caf\u00e9"),  # Latin-1, since it is no UTF-8
        (b"\x80\x02T\x05\x00\x00\x00caf\xc3\xa9.", "caf\u00e9"),
        (b"(lp1\n(dp2\nS'ann_id'\np3\nI1719\nsa.", [{"ann_id": 1719}]),
        (b"(I1\nL2L\nF2.5\nt.", (1, 2, 2.5)),
        (b"(dS'a'\nI01\ns.", {"a": True}),
    ],
)
def test_what_python_2_wrote_is_read(data: bytes, expected: Any) -> None:
    assert parse(data) == expected


class Attack:
    """What an attacker pickles: loading it would run a program."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_file_that_would_run_a_program_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    for attack in (
        Attack(os.system, f"touch {mark}"),
        Attack(subprocess.call, ["touch", str(mark)]),
        Attack(eval, "1"),
    ):
        with pytest.raises(FormatError, match="can run any program"):
            parse(pickle.dumps([{"ref_id": 1}, attack], protocol))
    assert not mark.exists()


@pytest.mark.parametrize(
    "value", [{1, 2}, frozenset({1}), b"bytes", bytearray(b"b"), OrderedDict(a=1), datetime.date(2020, 1, 1), print, 1j]
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_nothing_but_plain_values_is_built(value: Any, protocol: int) -> None:
    with pytest.raises(FormatError, match="does more than make lists, dicts, texts and numbers"):
        parse(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x80\x02]",
        b".",
        b"a.",
        b"(.",
        b"]]e.",
        b"0.",
        b"t.",
        b"](a.",
        b"I1\nI2\n.",
        b"]K\x01s.",
        b"}]K\x01s.",
        b"(K\x01d.",
        b"(K\x01u.",
        b"h\x00.",
        b"S'open\n.",
        b"X\x05\x00\x00\x00ab.",
        b"Ix\n.",
        b"(q\x00h\x00.",
        b"K\x01\x86.",
        b"X\x03\x00\x00\x00\xed\xa0\x80.",
        b"\x8a\xff.",
        b"V\\ud800\n.",
        b"I" + b"9" * 9999 + b"\n.",
    ],
)
def test_a_damaged_file_is_one_line(data: bytes) -> None:
    with pytest.raises(FormatError, match="byte"):
        parse(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_format_error(data: bytes) -> None:
    try:
        parse(data)
    except FormatError:
        return


def test_huge_memory_places_and_lengths_allocate_nothing() -> None:
    assert parse(b"K\x01r\xff\xff\xff\xff.") == 1
    with pytest.raises(FormatError, match="damaged"):
        parse(b"\x8d\xff\xff\xff\xff\xff\xff\x00\x00ab.")


def test_a_file_is_read_by_its_address(tmp_path: Path) -> None:
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([1]))
    assert read_plain_pickle(str(tmp_path / "refs(unc).p")) == [1]
    with pytest.raises(MissingError):
        read_plain_pickle(str(tmp_path / "none.p"))
