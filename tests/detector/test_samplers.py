"""Which record comes when."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.config import DataSettings
from detector.records import RecordTable
from detector.samplers import Order, StepSampler, order_of
from llmdet.errors import SettingError
from llmdet.record import Record, to_batch
from llmdet.workspace import to_parquet
from tests.detector import example_run


def test_each_epoch_shows_every_row_once_in_its_own_order() -> None:
    settings = example_run.settings(9)  # 18 draws of 6 rows: three epochs
    draws = [draw for step in StepSampler(Order(6, 0, 2), settings) for draw in step]
    orders = [[row for number, row in draws if number == epoch] for epoch in range(3)]
    assert [sorted(rows) for rows in orders] == [list(range(6))] * 3
    assert orders == [np.random.default_rng((0, epoch)).permutation(6).tolist() for epoch in range(3)]
    assert orders[0] != orders[1]


WEIGHTS = np.array([0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 2.5, 2.5])
UPRIGHT = np.arange(11) % 3 == 0  # 4 upright, 7 others


@pytest.mark.parametrize(
    "order",
    [
        Order(7, 0, 2),
        Order(8, 0, 2, weights=WEIGHTS),
        Order(11, 0, 2, upright=UPRIGHT),
        Order(8, 0, 2, weights=WEIGHTS, upright=UPRIGHT[:8]),
    ],
)
def test_continuing_and_sharing_give_the_same_stream(order: Order) -> None:
    settings = example_run.settings(25)
    whole = list(StepSampler(order, settings))
    assert list(StepSampler(order, settings, first=14)) == whole[14:]
    shares = [list(StepSampler(order, settings, rank=rank, world=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


def test_weights_say_how_often_a_row_comes_and_its_copies_differ() -> None:
    order = Order(8, 0, 2, weights=WEIGHTS)
    assert order.length == 2 + 1 + 5  # 0.5 * 4, 1 * 1, 2.5 * 2
    counts = np.zeros(8)
    for number in range(50):
        rows, copies = order.epoch(number)
        assert len(rows) == order.length
        assert len({*zip(rows.tolist(), copies.tolist(), strict=True)}) == order.length
        assert set(copies[rows < 6].tolist()) == {0}
        counts += np.bincount(rows, minlength=8)
    assert counts[0] == 0
    assert counts[5] == 50
    assert counts[1:5].sum() == 100
    assert counts[1:5].min() > 12
    assert counts[6] + counts[7] == 250
    draws = [draw for step in StepSampler(order, example_run.settings(4)) for draw in step]
    assert len(set(draws)) == 8
    assert {len(draw) for draw in draws} == {2, 3}


def test_batches_are_of_one_kind_but_for_the_last_rows_of_each() -> None:
    order = Order(11, 3, 2, upright=UPRIGHT)
    assert order.length == 12
    for number in range(20):
        rows, _ = order.epoch(number)
        kinds = UPRIGHT[rows.reshape(-1, 2)]
        assert (kinds[:, 0] != kinds[:, 1]).sum() <= 1  # seven others: one is left over
        assert sorted(set(rows.tolist())) == list(range(11))
    assert order.epoch(0)[0].tolist() != order.epoch(1)[0].tolist()
    few = Order(1, 0, 4, upright=np.array([True]))
    assert few.epoch(0)[0].tolist() == [0, 0, 0, 0]


def table(folder: Path, splits: Sequence[str] = ("", "", "")) -> RecordTable:
    def one(number: int, source: str, width: int) -> Record:
        return Record(f"{source}/{number}/0", source, str(number), "0", "grounding", "a.jpg", "w", width, 50, "dog")

    rows = [one(0, "gqa", 40), one(1, "gqa", 50), one(2, "coco", 60)]
    rows = [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]
    (folder / "part-00000.parquet").write_bytes(to_parquet(to_batch(rows)))
    return RecordTable(str(folder))


@pytest.mark.parametrize("decoded_rows", [0, 100])
def test_weights_and_shapes_are_those_of_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded_rows: int
) -> None:
    monkeypatch.setattr("detector.records.DECODED_ROWS", decoded_rows)
    data = DataSettings(weights={"coco": 3.0}, group_by_aspect=True)
    order = order_of(table(tmp_path), replace(example_run.settings(1), data=data))
    assert order.weights is not None
    assert order.upright is not None
    assert order.weights.tolist() == [1.0, 1.0, 3.0]
    assert order.upright.tolist() == [True, False, False]
    plain = order_of(table(tmp_path), example_run.settings(1))
    assert (plain.weights, plain.upright) == (None, None)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"cocoa": 2.0}, r"not there: \['cocoa'\]; there are \['coco', 'gqa'\]"),
        ({"coco": -1.0}, r"must be numbers from 0 on; got \{'coco': -1.0\}"),
        ({"coco": float("nan")}, "must be numbers"),
        ({"coco": 0.0, "gqa": 0.0}, "leave nothing to train on"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(tmp_path: Path, weights: dict[str, float], said: str) -> None:
    settings = replace(example_run.settings(1), data=DataSettings(weights=weights))
    with pytest.raises(SettingError, match=said):
        order_of(table(tmp_path), settings)


@pytest.mark.parametrize(
    ("splits", "data", "weights"),
    [
        (("", "train", "trainval"), DataSettings(), None),
        (("train", "val", ""), DataSettings(), [1.0, 0.0, 1.0]),
        (("train", "val", ""), DataSettings(weights={"gqa": 2.0}), [2.0, 0.0, 1.0]),
        (("train", "val", "test"), DataSettings(splits=("val",)), [0.0, 1.0, 0.0]),
        (("train", "val", "test"), DataSettings(splits=()), None),
    ],
)
def test_records_of_other_splits_are_held_out(
    tmp_path: Path, splits: tuple[str, ...], data: DataSettings, weights: list[float] | None
) -> None:
    order = order_of(table(tmp_path, splits), replace(example_run.settings(1), data=data))
    assert (order.weights if order.weights is None else order.weights.tolist()) == weights
    assert order.learned == [row for row in range(3) if weights is None or weights[row]]


def test_a_table_of_which_all_is_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"leave nothing to train on; the records are of \['test', 'val'\]"):
        order_of(table(tmp_path, ("val", "test", "val")), example_run.settings(1))
