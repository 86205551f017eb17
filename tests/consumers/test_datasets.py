"""Hugging Face datasets loads what we export, without a network."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llmdet.exports.hf import Hf
from llmdet.record import Record, to_batch
from llmdet.sources.coco import Coco
from llmdet.sources.source import SourceInfo
from llmdet.world import write_world


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, on a machine whose network is gone."""
    found = pytest.importorskip("datasets", reason="datasets is not installed: tests/consumers/requirements.txt")

    def refuse(*args: object) -> None:
        raise AssertionError(f"a connection to {args[-1]} was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return found


def scenes(folder: Path) -> tuple[list[Record], dict[str, SourceInfo]]:
    """Five records in two splits."""
    source = Coco(annotations=str(write_world(folder, 5, 11)), images=str(folder / "images"))
    records = [item for item in source.read() if isinstance(item, Record)]
    return [replace(record, split="val" if n == 3 else "") for n, record in enumerate(records)], {"coco": source.info()}


@pytest.mark.parametrize("streaming", [False, True])
def test_embedded_pictures_decode_to_the_pixels_of_the_files(streaming: bool, datasets: Any, tmp_path: Path) -> None:
    records, sources = scenes(tmp_path / "world")
    Hf(images="copy", shard_records=2).write([to_batch(records)], str(tmp_path / "out"), sources)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"), streaming=streaming)
    assert sorted(loaded) == ["train", "val"]
    rows = [*loaded["train"], *loaded["val"]]
    assert [row["id"] for row in rows] == [records[n].id for n in (0, 1, 2, 4, 3)]
    for row, record in zip(rows, [records[n] for n in (0, 1, 2, 4, 3)], strict=True):
        with Image.open(tmp_path / "world/images" / record.image) as picture:
            assert (np.asarray(row["image"]) == np.asarray(picture)).all()
        assert row["text"] == record.text
        boxes = [tuple(box["xyxy"]) for region in row["regions"] for box in region["boxes"]]
        assert boxes == [box.xyxy for region in record.regions for box in region.boxes]


def test_paths_become_pictures_where_a_reader_says_their_folder(datasets: Any, tmp_path: Path) -> None:
    records, sources = scenes(tmp_path / "world")
    Hf().write([to_batch(records)], str(tmp_path / "out"), sources)
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["image"][:] == [records[n].image for n in (0, 1, 2, 4)]
    folder = sources["coco"].images
    placed = rows.map(lambda row: {"image": f"{folder}/{row['image']}"}).cast_column("image", datasets.Image())
    assert placed[0]["image"].size == (128, 128)
