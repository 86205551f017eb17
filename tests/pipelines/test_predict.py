"""Drawn pictures: their names, and what they must not replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.predict import Detections, Detector
from pipelines.predict import predict


class Blind:
    """Stands for a detector that finds nothing."""

    def detect(self, images: list[Image.Image], names: tuple[str, ...], **options: Any) -> list[Detections]:
        return [Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), names) for _ in images]


@pytest.fixture(autouse=True)
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Detector, "load", lambda folder: Blind())


def photo(path: Path) -> bytes:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)
    return path.read_bytes()


def test_a_picture_is_never_replaced_by_its_drawing(tmp_path: Path) -> None:
    before = photo(tmp_path / "a.jpg")
    found = predict([str(tmp_path)], "dog", "any", f"{tmp_path}/")
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert found.images[0].drawn == str(tmp_path / "a-2.jpg")
    assert (tmp_path / "a-2.jpg").is_file()


def test_pictures_of_one_name_get_a_drawing_each(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.jpg"):
        photo(tmp_path / name)
    found = predict([str(tmp_path / "x"), str(tmp_path / "y")], "dog", "any", str(tmp_path / "out"))
    assert [Path(one.drawn).name for one in found.images] == ["a.jpg", "a-2.jpg"]
