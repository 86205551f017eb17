from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import DamagedError
from llmdet.prompts.prompt import Ask
from pipelines.engines.engine import Answer, Identity, Request, fingerprint_of, request_id, seed_of
from pipelines.ledger import Found, Ledger, entry, ids_of
from tests.pipelines.fakes import FakeImage

ASK = Ask("Describe.")


def key(number: int, half: int = 7) -> bytes:
    """A request id with a chosen first half."""
    return half.to_bytes(8, "big") + number.to_bytes(8, "big")


def row(identity: bytes, text: str = "", error: str = "", attempt: int = 0) -> tuple[object, ...]:
    return entry(Request(identity, "image", ASK, attempt), "r", Answer(text, error))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "image-0123"))


def test_an_empty_ledger_holds_nothing(ledger: Ledger) -> None:
    found = ledger.index()
    assert (ledger.names(), len(found.ids), ledger.next_epoch()) == ([], 0, 0)
    assert found.positions(ids_of([key(1), key(2)])).tolist() == [-1, -1]
    assert ledger.answers(found, [key(1)]) == [[]]


def test_answers_come_in_the_order_of_the_question(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(i, half=i % 3), f"text {i}") for i in range(20)])
    ledger.append(0, 1, [row(key(i, half=i % 3), f"text {i}") for i in range(20, 30)])
    wanted = [29, 3, 99, 0, 3, 21]
    found = ledger.answers(ledger.index(), [key(i, half=i % 3) for i in wanted])
    texts = [[one["text"] for one in rows] for rows in found]
    assert texts == [["text 29"], ["text 3"], [], ["text 0"], ["text 3"], ["text 21"]]


def test_ids_that_agree_in_their_first_half_are_told_apart(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(i), str(i)) for i in (2, 0, 3, 1)])
    found = ledger.index()
    assert found.positions(ids_of([key(i) for i in (0, 1, 2, 3, 4)])).tolist() == [0, 1, 2, 3, -1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=16, max_size=16), unique=True), st.binary(min_size=16, max_size=16))
def test_positions_finds_what_is_there_and_nothing_else(ids: list[bytes], other: bytes) -> None:
    ordered = sorted(ids)
    zeros = np.zeros(len(ids), np.int32)
    found = Found(np.asfortranarray(ids_of(ordered)), zeros, zeros, zeros, zeros.astype(bool))
    expected = [ordered.index(one) for one in ids] + [ordered.index(other) if other in ids else -1]
    assert found.positions(ids_of([*ids, other])).tolist() == expected


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([row(key(1), error="down"), row(key(1), "late")], "late"),  # an answer before an error
        ([row(key(1), "early"), row(key(1), error="down")], "early"),
        ([row(key(1), "zero"), row(key(1), "one", attempt=1)], "one"),  # then the highest attempt
        ([row(key(1), "two", attempt=2), row(key(1), "one", attempt=1)], "two"),
        ([row(key(1), "zero"), row(key(1), error="down", attempt=1)], "zero"),
        ([row(key(1), "first"), row(key(1), "second")], "first"),  # then the first committed
        ([row(key(1), "a", attempt=1), row(key(1), "b", attempt=1), row(key(1), "c")], "a"),
    ],
)
@pytest.mark.parametrize("apart", [True, False])
def test_the_answer_that_counts(ledger: Ledger, rows: list[tuple[object, ...]], counts: str, apart: bool) -> None:
    for epoch, group in enumerate([[one] for one in rows] if apart else [rows]):
        ledger.append(epoch, 0, [*group, row(key(epoch + 10), "another")])
    ((answer,),) = ledger.answers(ledger.index(), [key(1)])
    assert answer["text"] == counts


def test_the_answers_of_all_attempts_stand_behind_the_one_that_counts(ledger: Ledger) -> None:
    first = [row(key(1), "a0"), row(key(2), "b0"), row(key(3), "c0"), row(key(1), "a0 again")]
    ledger.append(0, 0, first)
    ledger.append(1, 0, [row(key(1), "a1", attempt=1), row(key(3), error="down", attempt=1)])
    ledger.append(2, 0, [row(key(1), "a2", attempt=2)])
    found = ledger.answers(ledger.index(attempts=True), [key(i) for i in (3, 1, 9, 2, 1)])
    texts = [[one["text"] or one["error"] for one in rows] for rows in found]
    assert texts == [["c0", "down"], ["a2", "a1", "a0"], [], ["b0"], ["a2", "a1", "a0"]]


def test_errors_are_not_ok(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(1), error="down"), row(key(2), "fine")])
    assert ledger.index().ok.tolist() == [False, True]


def test_an_index_of_some_files_does_not_know_later_ones(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(1), "one")])
    names = ledger.names()
    ledger.append(1, 0, [row(key(2), "two")])
    assert len(ledger.index(names).ids) == 1
    assert len(ledger.index().ids) == 2
    assert ledger.names() == ["part-00000-000000.parquet", "part-00001-000000.parquet"]
    assert ledger.next_epoch() == 2


def test_a_ledger_may_be_on_an_object_store() -> None:
    ledger = Ledger("memory://ledger-test/image-0123")
    assert len(ledger.index().ids) == 0
    ledger.append(0, 0, [row(key(1), "one"), row(key(2), error="down")])
    ledger.append(1, 0, [row(key(2), "two")])
    found = [one["text"] for (one,) in ledger.answers(ledger.index(), [key(2), key(1)])]
    assert (found, ledger.next_epoch()) == (["two", "one"], 2)


def test_what_a_driver_committed_is_found_again(ledger: Ledger) -> None:
    rows = [row(key(1), "one"), row(key(2), error="down")]
    assert ledger.committed(0, 3) is None
    ledger.append(0, 3, rows)
    assert ledger.committed(0, 3) == rows
    assert ledger.committed(1, 3) is None


def test_a_million_ids_cost_16_bytes_each_and_are_searched_without_a_copy(ledger: Ledger) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**63, (1_000_000, 2), dtype=np.uint64)
    ids = ids[np.lexsort((ids[:, 1], ids[:, 0]))]
    zeros = np.zeros(len(ids), np.int32)
    found = Found(np.asfortranarray(ids), zeros, zeros, zeros, zeros.astype(bool))
    assert found.ids.nbytes == 16_000_000
    assert found.ids[:, 0].flags.contiguous  # a strided column would be copied by every search
    assert found.positions(ids[[5, 999_999]]).tolist() == [5, 999_999]


def test_the_index_of_a_ledger_is_laid_out_for_searching(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(i), "x") for i in range(5)])
    assert ledger.index().ids[:, 0].flags.contiguous


def test_a_damaged_file_is_named_with_what_to_do(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(1), "one")])
    Path(ledger.url, "part-00000-000000.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(
        DamagedError, match=r"part-00000-000000\.parquet is damaged: .*doctor --verify --remove-damaged"
    ):
        ledger.index()


def test_temporary_files_of_killed_writers_are_no_answers(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(1), "one")])
    Path(ledger.url, ".part-00000-000001.parquet.1a2b3c4d").write_bytes(b"half")
    assert ledger.names() == ["part-00000-000000.parquet"]


def test_a_request_is_known_by_ledger_picture_text_and_schema() -> None:
    base = request_id("l", "picture", Ask("text", "schema"))
    assert len(base) == 16
    assert base == request_id("l", "picture", Ask("text", "schema", boxes=(1, 2)))
    others = {
        request_id("m", "picture", Ask("text", "schema")),
        request_id("l", "other", Ask("text", "schema")),
        request_id("l", "picture", Ask("texts", "schema")),
        request_id("l", "picture", Ask("text", "")),
        request_id("l", "picturet", Ask("ext", "schema")),  # the border between two parts counts
    }
    assert len(others | {base}) == 6


def test_a_fingerprint_depends_on_all_that_answers_depend_on() -> None:
    identity = Identity("e", "1", "m", "r", {"temperature": 0.0}, {"pixels": 1})
    prints = {
        fingerprint_of(FakeImage(), identity),
        fingerprint_of(FakeImage(version="2"), identity),
        fingerprint_of(FakeImage(), Identity("f", "1", "m", "r", {"temperature": 0.0}, {"pixels": 1})),
        fingerprint_of(FakeImage(), Identity("e", "1", "n", "r", {"temperature": 0.0}, {"pixels": 1})),
        fingerprint_of(FakeImage(), Identity("e", "1", "m", "s", {"temperature": 0.0}, {"pixels": 1})),
        fingerprint_of(FakeImage(), Identity("e", "1", "m", "r", {"temperature": 0.1}, {"pixels": 1})),
        fingerprint_of(FakeImage(), Identity("e", "1", "m", "r", {"temperature": 0.0}, {"pixels": 2})),
    }
    assert len(prints) == 7
    assert {len(one) for one in prints} == {16}


def test_seeds_differ_by_attempt_and_base_and_fit_31_bits() -> None:
    seeds = {seed_of(base, key(1), attempt) for base in (-1, 0, 1) for attempt in range(50)}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(0, key(1), 0) == seed_of(0, key(1), 0)


def test_what_is_answered_costs_sixteen_bytes_a_request_in_memory(ledger: Ledger) -> None:
    ledger.append(0, 0, [row(key(i), "text") for i in range(1000)] + [row(key(2000), error="down")])
    ledger.append(1, 0, [row(key(7), "again", attempt=2)])
    answered = ledger.answered()
    assert answered.ids.nbytes == 16 * 1000
    assert answered.ids[:, 0].flags.contiguous  # a search copies nothing
    assert answered.later == {7: 2}
    asked = [key(7), key(0), key(2000), key(999), key(5000)]
    assert answered.attempts(asked) == {key(7): 2, key(0): 0, key(999): 0}
    assert (answered.attempts([]), Ledger(f"{ledger.url}-new").answered().attempts(asked)) == ({}, {})
