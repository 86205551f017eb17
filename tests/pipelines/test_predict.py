"""Pictures that are looked at: what is drawn and written, in which order, and what must not be replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import detector.looks
from detector import checkpoint
from detector.config import quickstart_model
from detector.predict import Detections, Detector
from llmdet.errors import MissingError, SettingError
from llmdet.questions import Question, ask
from pipelines.predict import PredictSettings, predict


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands for a detector: finds each phrase twice, one box in the other's place; the sizes of its batches."""
    batches: list[int] = []

    def find(model: object, images: list[Image.Image], question: Question, **options: Any) -> list[Detections]:
        batches.append(len(images))
        found = []
        for image in images:
            width, height = image.size
            boxes = [[0.0, 0.0, width, height], [0.0, 0.0, width - 1, height], [3.0, 3.0, 3.5, 9.0]] * 2
            labels = np.array([0, 0, 0, 1, 1, 1]) % len(question.phrases)
            scores = np.linspace(0.9, 0.4, 6)
            found.append(Detections(np.array(boxes), scores, labels, question.phrases).above(options["threshold"]))
        return found

    monkeypatch.setattr(Detector, "load", lambda folder, device, captions: None)
    monkeypatch.setattr(detector.looks, "find", find)
    return batches


def photo(path: Path, width: int = 32, height: int = 24) -> bytes:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (width, height), "red").save(path)
    return path.read_bytes()


def test_a_picture_is_never_replaced_by_its_drawing(scripted: list[int], tmp_path: Path) -> None:
    before = photo(tmp_path / "a.jpg")
    found = predict([str(tmp_path)], "dog", "any", f"{tmp_path}/")
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert found.images[0].drawn == str(tmp_path / "a-2.jpg")
    assert (tmp_path / "a-2.jpg").is_file()


def test_pictures_of_one_name_get_a_drawing_each(scripted: list[int], tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.jpg"):
        photo(tmp_path / name)
    found = predict([str(tmp_path / "x"), str(tmp_path / "y")], "dog", "any", str(tmp_path / "out"))
    assert [Path(one.drawn).name for one in found.images] == ["a.jpg", "a-2.jpg"]


def test_boxes_come_with_the_places_of_their_phrases_and_without_those_below_a_pixel(
    scripted: list[int], tmp_path: Path
) -> None:
    photo(tmp_path / "a.png")
    question = ask("A dog and a cup.", "grounding", parser="pattern")
    (one,) = predict([str(tmp_path / "a.png")], question, "any", str(tmp_path / "out")).images
    assert one.phrases == ["A dog", "A dog", "a cup", "a cup"]
    assert one.spans == [[(0, 5)], [(0, 5)], [(10, 15)], [(10, 15)]]
    assert one.labels == [0, 0, 1, 1]
    assert (one.width, one.height) == (32, 24)
    assert one.scores == pytest.approx([0.9, 0.8, 0.6, 0.5])


def test_suppression_is_within_a_phrase(scripted: list[int], tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    settings = PredictSettings(nms_iou=0.5, threshold=0.0)
    (one,) = predict([str(tmp_path / "a.png")], "dog. cup.", "any", str(tmp_path / "out"), settings).images
    assert one.phrases == ["dog", "cup"]
    assert one.scores == pytest.approx([0.9, 0.6])


def test_what_cannot_be_opened_costs_itself_only(scripted: list[int], tmp_path: Path) -> None:
    for name in ("in/a.png", "in/c.png"):
        photo(tmp_path / name)
    (tmp_path / "in/b.jpg").write_bytes(b"no picture")
    settings = PredictSettings(batch_size=2, formats=())
    found = predict([str(tmp_path / "in")], "dog", "any", str(tmp_path / "out"), settings).images
    assert [Path(one.image).name for one in found] == ["a.png", "b.jpg", "c.png"]
    assert [bool(one.boxes) for one in found] == [True, False, True]
    assert found[1].error.startswith("image_unreadable: ")
    assert scripted == [1, 1]  # batches of two, of which one is none
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]


def test_the_threshold_is_the_checkpoints_own(scripted: list[int], tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    folder = tmp_path / "detector"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "thresholds.json").write_text('{"detection": 0.85}')
    found = predict([str(tmp_path / "a.png")], "dog", str(folder), str(tmp_path / "out"))
    assert (found.threshold, found.images[0].scores) == (0.85, [0.9])


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 2.0}, {"nms_iou": -1.0}, {"top_k": 0}, {"workers": -1}, {"formats": ("xml",)}, {"every": "x"}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SettingError, match=name):
        PredictSettings(**wrong).check()


def test_no_picture_and_no_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no pictures in"):
        predict([str(tmp_path)], "dog", "any", str(tmp_path / "out"))
    with pytest.raises(SettingError, match="names nothing"):
        predict([str(tmp_path)], " . ", "any", str(tmp_path / "out"))


@pytest.mark.slow
def test_actors_say_what_one_process_says(ray_local: None, tmp_path: Path) -> None:
    checkpoint.write_model(tmp_path, checkpoint.start(quickstart_model(), 0))
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
    question = ask("A dog and a red cup.", "grounding", parser="pattern")
    found = [
        predict(
            [str(tmp_path / "in")],
            question,
            str(tmp_path),
            str(tmp_path / "out"),
            PredictSettings(threshold=0.0, workers=workers),
        ).images
        for workers in (0, 1)
    ]
    assert len(found[0]) == 3
    for here, there in zip(*found, strict=True):
        assert (here.image, here.labels, here.drawn) == (there.image, there.labels, there.drawn)
        assert np.array(here.boxes) == pytest.approx(np.array(there.boxes), abs=1e-3)
        assert here.scores == pytest.approx(there.scores, abs=1e-6)
        assert [[tuple(span) for span in spans] for spans in there.spans] == here.spans
