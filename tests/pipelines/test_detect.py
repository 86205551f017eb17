"""Questions about photos: which orientation a detector sees, and which answers are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.asked import Asked
from detector.predict import Detections
from llmdet.errors import ImageError
from pipelines import detect
from pipelines.detect import Asking, Question, answers, opened

NAMES = (Asked("dog"), Asked("cat"))


class Sizes:
    """Stands for a detector: finds the whole picture as a cat, with its width as score."""

    class parts:
        class pixels:
            short_side, long_side = 8, 16

    def prompts(self, names: Any, most: int | None = None) -> list[str]:
        return ["one"] * (len(names) if most == 1 else 1)

    def detect(self, images: list[Image.Image], names: Any, **options: Any) -> list[Detections]:
        score = [np.array([image.width / 100]) for image in images]
        return [
            Detections(np.array([[0.0, 0.0, *image.size]]), score[i], np.ones(1, np.int64), names)
            for i, image in enumerate(images)
        ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs work in this process with the stand-in; how many batches each call had."""
    told: list[int] = []
    monkeypatch.setattr(detect, "_detector", lambda checkpoint, device: Sizes())

    def run(items: list[Any], work: Any, **options: Any) -> list[Any]:
        told.append(sum(len(item["batches"]) for item in items))
        return [work(item) for item in items]

    monkeypatch.setattr(detect, "run_parts", run)
    return told


def photos(folder: Path, *widths: int) -> list[Question]:
    for number, width in enumerate(widths):
        Image.new("RGB", (width, 48)).save(folder / f"{number}.png")
    return [Question(str(folder / f"{number}.png"), (width, 48)) for number, width in enumerate(widths)]


def test_a_photo_is_turned_as_its_annotations_were(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    address = str(tmp_path / "a.jpg")
    assert opened(Question(address)).size == (64, 48)
    assert opened(Question(address, (64, 48))).size == (64, 48)
    assert opened(Question(address, (48, 64))).size == (48, 64)
    with pytest.raises(ImageError, match="annotations say 47x64"):
        opened(Question(address, (47, 64)))


def test_answers_come_in_the_order_of_questions_and_are_asked_once(tmp_path: Path, asked: list[int]) -> None:
    asking = Asking(checkpoint="any", parts=str(tmp_path / "parts"), names=NAMES, batch_size=2, names_per_prompt=1)
    questions = photos(tmp_path, 20, 30, 20, 20, 30)  # batches 0 2, 3, 1 4
    detect.ask([asking], [questions], workers=1)
    (found,) = answers(asking, questions)
    assert found.found.image.tolist() == [0, 1, 2, 3, 4]
    assert found.found.score.tolist() == [0.2, 0.3, 0.2, 0.2, 0.3]
    assert found.found.box.tolist() == [[0, 0, width, 48] for width in (20, 30, 20, 20, 30)]
    assert found.found.category.tolist() == [1] * 5
    assert (found.numbers, found.errors) == (range(5), {})
    assert found.facts == {"short_side": 8, "long_side": 16, "prompts": 2}
    os.unlink(tmp_path / "parts" / "part-000000-01.parquet")
    detect.ask([asking], [questions], workers=1)
    detect.ask([asking], [questions], workers=1)
    assert asked == [3, 1, 0]


def test_a_photo_that_was_not_there_is_asked_again(tmp_path: Path, asked: list[int]) -> None:
    asking = Asking(checkpoint="any", parts=str(tmp_path / "parts"), names=NAMES)
    questions = photos(tmp_path, 20, 30)
    os.rename(tmp_path / "1.png", tmp_path / "away.png")
    detect.ask([asking], [questions], workers=1)
    (found,) = answers(asking, questions)
    assert found.found.image.tolist() == [0]
    assert found.errors[1].startswith("image_missing: ")
    os.rename(tmp_path / "away.png", tmp_path / "1.png")
    detect.ask([asking], [questions], workers=1)
    (found,) = answers(asking, questions)
    assert (found.found.image.tolist(), found.errors) == ([0, 1], {})
    assert asked == [2, 1]
