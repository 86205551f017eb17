"""Records to batches: order, targets, and photos that cannot be used."""

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import orjson
import pytest

from detector import checkpoint
from detector.data import GroundingDataset, RecordTable, StepSampler, TrainData, epoch_order, loader, targets_of
from detector.pixels import Pixels
from llmdet.errors import MissingError
from llmdet.record import Box, Record, Region
from llmdet.workspace import Manifest, Part, Table
from tests.detector import example_run


def dataset(data: TrainData) -> GroundingDataset:
    return GroundingDataset(data, checkpoint.tiny_tokenizer(), Pixels(64, 64), limit=256, seed=0)


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


def test_each_epoch_shows_every_row_once_in_its_own_order() -> None:
    settings = example_run.settings(9)  # 18 draws of 6 rows: three epochs
    draws = [draw for step in StepSampler(6, settings) for draw in step]
    for epoch in range(3):
        rows = [row for number, row in draws if number == epoch]
        assert rows == epoch_order(6, settings.seed, epoch).tolist()
        assert sorted(rows) == list(range(6))
    assert epoch_order(6, 0, 0).tolist() != epoch_order(6, 0, 1).tolist()


def test_continuing_and_sharing_give_the_same_stream() -> None:
    settings = example_run.settings(9)
    whole = list(StepSampler(7, settings))
    assert list(StepSampler(7, settings, first=4)) == whole[4:]
    shares = [list(StepSampler(7, settings, rank=rank, world=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


def test_batches_hold_padded_samples_and_an_image_without_boxes(tmp_path: Path) -> None:
    data = dataset(example_run.data(tmp_path))
    batches = list(loader(data, StepSampler(len(data), example_run.settings(3)), queries=30, readers=0))
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


def test_a_large_table_reads_the_same_records_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = example_run.data(tmp_path)
    whole = dataset(data).table
    monkeypatch.setattr("detector.data.DECODED_ROWS", 2)
    single = dataset(data).table
    assert single.decoded is None
    assert whole.decoded is not None
    assert [single[row] for row in range(6)] == [whole[row] for row in range(6)] == example_run.records(6)


def test_parts_that_the_manifest_does_not_name_are_not_trained_on(tmp_path: Path) -> None:
    """They are those of a merge that was killed."""
    folder = example_run.data(tmp_path).records
    table = Table(folder)
    first, stray = table.listing()
    rows = table.read(first).num_rows
    table_of_first = Manifest("merge", "f", (Part(first, rows, ""),))
    (tmp_path / "records" / "manifest.json").write_bytes(orjson.dumps(asdict(table_of_first)))
    assert len(RecordTable(folder)) == rows
    assert (tmp_path / "records" / stray).is_file()


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Brackets, stars and question marks are patterns to a file system that looks for files."""
    place = tmp_path / "a [1] *?"
    place.mkdir()
    assert len(RecordTable(example_run.data(place).records + "/")) == 6


def test_a_broken_and_a_missing_photo_are_named_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = dataset(example_run.data(tmp_path))
    (tmp_path / "images/000000000002.jpg").write_bytes(b"not a picture")
    (tmp_path / "images/000000000003.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        names = [data[epoch, 1].id for epoch in range(3)] + [data[0, 2].id]
    assert names == ["w/3/0"] * 4  # the next row whose photo opens
    messages = [entry.getMessage() for entry in caplog.records]
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
