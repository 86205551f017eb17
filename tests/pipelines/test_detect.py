"""Photos of queries: which orientation a detector sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.predict import Detections, Detector
from llmdet.errors import FormatError
from pipelines.detect import Query, _Actor
from pipelines.evaluate import CocoSet, EvaluateOutcome, _query


class Sizes:
    """Stands for a detector: finds the whole picture."""

    def detect(self, images: list[Image.Image], names: tuple[str, ...], **options: Any) -> list[Detections]:
        return [
            Detections(np.array([[0.0, 0.0, *image.size]]), np.ones(1), np.zeros(1, np.int64), names)
            for image in images
        ]


def answered(monkeypatch: pytest.MonkeyPatch, photo: Path, size: tuple[int, int] | None) -> dict[str, Any]:
    monkeypatch.setattr(Detector, "load", lambda folder: Sizes())
    query = {"checkpoint": "somewhere", "image": str(photo), "names": ["dog"], "key": 1, "size": size}
    found = _Actor(0.0)._answer({"number": 0, "queries": [query]})["found"]
    assert isinstance(found[0], dict)
    return found[0]


def test_a_photo_is_turned_as_its_annotations_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    assert answered(monkeypatch, tmp_path / "a.jpg", None)["boxes"] == [[0, 0, 64, 48]]
    assert answered(monkeypatch, tmp_path / "a.jpg", (64, 48))["boxes"] == [[0, 0, 64, 48]]
    assert answered(monkeypatch, tmp_path / "a.jpg", (48, 64))["boxes"] == [[0, 0, 48, 64]]


def test_a_photo_of_another_size_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    found = answered(monkeypatch, tmp_path / "a.jpg", (48, 64))
    assert found["boxes"] == []
    assert found["error"].startswith("size_mismatch: annotations say 48x64, ")


def test_evaluation_asks_for_the_annotated_size(tmp_path: Path) -> None:
    one = CocoSet(annotations="truth.json", images=str(tmp_path))
    image = {"id": 5, "file_name": "a.jpg", "width": 48.0, "height": 64}
    query = _query(one, "hub/model", image, ("dog",), [0, 5])
    assert query == Query("hub/model", str(tmp_path / "a.jpg"), ("dog",), [0, 5], size=(48, 64))
    with pytest.raises(FormatError, match=r"truth\.json: image 5 has no file_name"):
        _query(one, "hub/model", {"id": 5, "width": 8, "height": 8}, ("dog",), [0, 5])


def test_figures_of_a_set_without_its_photos_are_no_success() -> None:
    few = EvaluateOutcome("mine", {}, missing={"7": "image_missing: a.jpg"}, images=20)
    assert few.too_many_missing(0.05) == ""
    assert few.too_many_missing(0.04) == (
        "evaluate mine: 1 of 20 photos could not be used (image 7: image_missing: a.jpg)"
    )
    assert EvaluateOutcome("mine", {}).too_many_missing(0.05) == ""  # a result file has no photos
