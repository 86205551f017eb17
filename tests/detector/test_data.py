"""Records to batches: order, targets, and photos that cannot be used."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from detector import checkpoint
from detector.config import TrainSettings
from detector.data import Batches, GroundingDataset, TrainData, loader, targets_of
from detector.pixels import Pixels
from detector.samplers import StepSampler, order_of
from llmdet.errors import MissingError
from llmdet.record import Box, Record, Region
from tests.detector import example_run


def dataset(data: TrainData) -> GroundingDataset:
    return GroundingDataset(data, checkpoint.tiny_tokenizer(), Pixels(64, 64), limit=256, seed=0)


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
