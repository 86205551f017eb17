"""Records to batches: order, targets, and photos that cannot be used."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector import checkpoint
from detector.config import CaptionSettings, DataSettings, TrainSettings
from detector.data import Batches, GroundingDataset, TrainData, loader, targets_of
from detector.pixels import Pixels
from detector.samplers import StepSampler, order_of
from detector.train import compute_loss
from llmdet.errors import MissingError, SettingError
from llmdet.record import Box, Record, Region, to_batch
from llmdet.workspace import to_parquet
from tests.detector import example_run


def dataset(data: TrainData, **settings: Any) -> GroundingDataset:
    pixels = Pixels(64, 64)
    return GroundingDataset(data, checkpoint.tiny_tokenizer(), pixels, 256, 0, DataSettings(**settings))


def batches_of(data: GroundingDataset, settings: TrainSettings, readers: int = 0) -> Batches:
    return loader(data, StepSampler(order_of(data.table, settings), settings), queries=30, readers=readers)


def record(text: str, regions: tuple[Region, ...]) -> Record:
    return Record("s/1/0", "s", "1", "0", "grounding", "a.jpg", "w", 100, 50, text, regions)


def test_targets_are_clipped_normalised_and_point_at_their_phrase() -> None:
    regions = (
        Region(("dogs",), ((4, 8),), (Box((10.0, 5.0, 30.0, 25.0)), Box((90.0, 40.0, 120.0, 60.0)))),
        Region(("a red cup",), ((9, 18),), (Box((0.0, 0.0, 50.0, 50.0)),)),
    )
    encoded, boxes, region, _ = targets_of(record("Two dogs a red cup", regions), checkpoint.tiny_tokenizer(), 256)
    assert boxes.tolist() == [
        pytest.approx([0.2, 0.3, 0.2, 0.4]),
        pytest.approx([0.95, 0.9, 0.1, 0.2]),
        pytest.approx([0.25, 0.5, 0.5, 1.0]),
    ]
    assert region.tolist() == [0, 0, 1]
    words = checkpoint.tiny_tokenizer().convert_ids_to_tokens(encoded.ids.tolist())
    assert [word for word, hit in zip(words, encoded.tokens[1], strict=True) if hit] == ["a", "red", "cup"]


def test_crowds_unusable_boxes_and_lost_phrases_have_no_target() -> None:
    box = Box((10.0, 5.0, 30.0, 25.0))
    regions = (
        Region(("dog",), ((0, 3),), (box, Box(box.xyxy, crowd=True), Box((float("nan"), 0.0, 9.0, 9.0)))),
        Region(("cat",), ((5, 8),), (box,)),
    )
    encoded, boxes, region, _ = targets_of(record("dog. cat. ", regions), checkpoint.tiny_tokenizer(), 4)
    assert encoded.lost == (1,)
    assert region.tolist() == [0]
    assert len(boxes) == 1


def test_batches_hold_padded_samples_and_an_image_without_boxes(tmp_path: Path) -> None:
    data = dataset(example_run.data(tmp_path))
    batches = list(batches_of(data, example_run.settings(3)))
    assert Counter(name for batch in batches for name in batch.names) == Counter(f"w/{n}/0" for n in range(6))
    for batch in batches:
        assert batch.pixel_values.shape == (2, 3, 64, 64)
        assert (batch.input_ids > 0).equal(batch.attention_mask.bool())
        for row, name in enumerate(batch.names):
            true = sum(len(region.boxes) for region in data.table[int(name.split("/")[1])].regions)
            assert batch.targets.counts[row] == true
            hits = batch.targets.tokens_BNT[row, : batch.targets.counts[row]].sum(-1)
            assert hits.tolist() == [2.0] * true  # colour and shape
    assert 0 in [count for batch in batches for count in batch.targets.counts]


def test_a_broken_and_a_missing_photo_are_named_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = dataset(example_run.data(tmp_path))
    (tmp_path / "images/000000000002.jpg").write_bytes(b"not a picture")
    (tmp_path / "images/000000000003.jpg").unlink()
    assert [data[0, row].id for row in (1, 2)] == ["w/3/0"] * 2  # the next row whose photo opens
    with caplog.at_level(logging.WARNING):
        shown = [name for batch in batches_of(data, example_run.settings(9)) for name in batch.names]  # 3 epochs
    assert len(shown) == 18
    messages = [entry.getMessage() for entry in caplog.records if "photo" in entry.getMessage()]
    messages.sort()
    assert len(messages) == 2
    assert "w/1/0" in messages[0]
    assert "image_unreadable" in messages[0]
    assert "w/2/0" in messages[1]
    assert "image_missing" in messages[1]


def test_a_folder_without_any_photo_ends_in_one_error(tmp_path: Path) -> None:
    data = example_run.data(tmp_path)
    with pytest.raises(MissingError, match="6 photos in a row cannot be used"):
        dataset(TrainData(data.records, {"w": str(tmp_path / "elsewhere")}))[0, 0]
    with pytest.raises(MissingError, match=r"known: \['other'\]"):
        dataset(TrainData(data.records, {"other": str(tmp_path)}))[0, 0]
    with pytest.raises(MissingError, match="none are there"):
        dataset(TrainData(str(tmp_path / "empty"), {}))


def test_pixels_of_a_sample_are_those_of_its_photo(tmp_path: Path) -> None:
    from PIL import Image

    data = dataset(example_run.data(tmp_path))
    with Image.open(tmp_path / "images/000000000001.jpg") as image:
        assert np.array_equal(data[0, 0].pixels, Pixels(64, 64)(image))


EVERYTHING = {
    "short_sides": (48, 64, 80),
    "long_side": 96,
    "flip": 0.5,
    "group_by_aspect": True,
    "negatives": "dynamic",
    "weights": {"w": 1.5},
}


@pytest.mark.parametrize("decoded_rows", [2, 100])
def test_batches_are_the_same_whatever_the_number_of_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded_rows: int
) -> None:
    monkeypatch.setenv("LLMDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("detector.records.DECODED_ROWS", decoded_rows)
    data = dataset(example_run.data(tmp_path), **EVERYTHING)
    settings = replace(example_run.settings(7), data=data.settings)
    alone, read = list(batches_of(data, settings)), list(batches_of(data, settings, readers=2))
    assert len(alone) == len(read) == 7
    for one, other in zip(alone, read, strict=True):
        assert (one.names, one.words, one.notes) == (other.names, other.words, other.notes)
        assert one.pixel_values.equal(other.pixel_values)
        assert one.input_ids.equal(other.input_ids)
        assert one.targets.boxes_BN4.equal(other.targets.boxes_BN4)
    assert len({batch.pixel_values.shape[-1] for batch in alone}) > 1


def test_sizes_are_drawn_for_each_sample_and_again_in_each_epoch(tmp_path: Path) -> None:
    data = dataset(example_run.data(tmp_path), short_sides=(48, 64, 80), long_side=64)
    sides = [[data[epoch, row].pixels.shape[1] for row in range(6)] for epoch in range(4)]
    assert {side for epoch in sides for side in epoch} == {48, 64}  # the photos are square: 80 is too long
    assert len({*map(tuple, sides)}) > 1


def test_a_mirrored_photo_has_mirrored_boxes_and_its_own_words(tmp_path: Path) -> None:
    given = example_run.data(tmp_path)
    straight, turned = dataset(given)[0, 0], dataset(given, flip=1.0)[0, 0]
    assert np.array_equal(turned.pixels, straight.pixels[:, :, ::-1])
    assert turned.boxes[:, 0].tolist() == pytest.approx((1 - straight.boxes[:, 0]).tolist(), abs=1e-6)
    assert np.array_equal(turned.boxes[:, 1:], straight.boxes[:, 1:])
    assert np.array_equal(turned.ids, straight.ids)


@pytest.mark.parametrize(
    "wrong", [{"flip": 1.5}, {"short_sides": (0,)}, {"long_side": -1}, {"negative_names": -1}, {"flip": float("nan")}]
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=rf"data\..*{next(iter(wrong))}"):
        DataSettings(**wrong)


def odd_data(folder: Path) -> TrainData:
    """Three records with everything that is odd."""
    given = example_run.data(folder, 3)
    first, second, third = example_run.records(3)
    box = Box((10.0, 10.0, 60.0, 60.0))
    many = replace(first, text="red circle. ", regions=(Region(("red circle",), ((0, 10),), (box,) * 400),))
    text = "".join(f"a red circle near a blue square {n}. " for n in range(300))
    spans = [(at, at + 12) for at in range(len(text)) if text.startswith("a red circle", at)]
    long = replace(
        second, kind="grounding", text=text, regions=tuple(Region(("a red circle",), (s,), (box,)) for s in spans)
    )
    for old in Path(given.records).iterdir():
        old.unlink()
    (Path(given.records) / "part-00000.parquet").write_bytes(to_parquet(to_batch([many, long, third])))
    return given


def test_odd_records_are_named_once_and_trained_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(odd_data(tmp_path))
    asked = example_run.settings(6, captions=CaptionSettings())
    with caplog.at_level(logging.WARNING):
        batches = list(batches_of(data, asked))
    counts = {name: count for batch in batches for name, count in zip(batch.names, batch.targets.counts, strict=True)}
    assert counts["w/0/0"] == 400
    assert 10 < counts["w/1/0"] < 40
    assert counts["w/2/0"] == 0
    said = sorted(entry.getMessage() for entry in caplog.records)
    assert len(said) == 4
    assert said[0] == "w/0/0 has 400 boxes, more than the 30 queries of the model"
    assert any(line.startswith("w/1/0: ") and "of 300 boxes are left out" in line for line in said)
    assert any("no image caption" in line for line in said)
    assert any("w/2/0 and maybe others have no box" in line for line in said)


def test_400_boxes_and_none_give_a_finite_loss(tmp_path: Path) -> None:
    settings = example_run.settings(1, batch_size=3)
    (batch,) = batches_of(dataset(odd_data(tmp_path)), settings)
    assert sorted(batch.targets.counts)[0] == 0
    model = checkpoint.start(example_run.MODEL, 0).model.train()
    loss = compute_loss(model, batch, settings)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert np.isfinite(float(loss.total.detach()))
