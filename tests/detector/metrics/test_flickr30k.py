"""Flickr30k recalls against MDETR's evaluator on real sentences, and by hand."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from detector.metrics import flickr30k
from llmdet.errors import FormatError, ImageError, MissingError

BOX = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
SENTENCES = (
    "[/EN#1/people/other Two boys] climb [/EN#2/scene a hill] in [/EN#3/clothing caps] .\nNothing is named here .\n"
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """One photo: entity 1 has two boxes side by side, 2 has one, 3 none."""
    objects = [BOX.format(1, 0, 0, 10, 10), BOX.format(1, 10, 0, 20, 10), BOX.format(2, 0, 50, 100, 100)]
    size = "<size><width>100</width><height>100</height><depth>3</depth></size>"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    (tmp_path / "Annotations/77.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")
    (tmp_path / "Sentences/77.txt").write_text(SENTENCES)
    (tmp_path / "test.txt").write_text("77\n")
    return tmp_path


def predicted(boys: list[list[float]], hill: list[list[float]], **changes: Any) -> dict[str, Any]:
    return {"image_id": 77, "sentence_id": 0, "boxes": [boys, hill]} | changes


@pytest.mark.parametrize("split", ["val", "test"])
def test_real_sentences_have_the_recalls_of_mdetrs_evaluator(samples: Path, split: str) -> None:
    expected = json.loads((samples / f"eval/flickr30k/{split}_expected.json").read_text())["recall"]
    predictions = json.loads((samples / f"eval/flickr30k/{split}_preds.json").read_text())
    folder = str(samples / "flickr30k")
    photos = {row["image_id"] for row in predictions}
    for truth in (flickr30k.read(folder, split), flickr30k.read(folder, predicted=photos)):
        assert flickr30k.evaluate(truth, predictions) == expected


def test_the_folder_and_its_archive_hold_the_same(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("packed")
    with tarfile.open(folder / "all.tar.gz", "w:gz") as archive:
        for name in ("Annotations", "Sentences"):
            archive.add(photo / name, name)
    (folder / "test.txt").write_text("77\n")
    packed, plain = flickr30k.read(str(folder / "all.tar.gz"), "test"), flickr30k.read(str(photo), "test")
    assert list(packed) == list(plain) == [("77", 0)]
    assert [one.boxes.tolist() for one in packed["77", 0]] == [one.boxes.tolist() for one in plain["77", 0]]
    assert [one.types for one in plain["77", 0]] == [("people", "other"), ("scene",)]


def test_any_box_needs_one_of_several_and_the_merged_box_goes_around_them(photo: Path) -> None:
    truth = flickr30k.read(str(photo), "test")
    wrong = [200.0, 200.0, 210.0, 210.0]
    recalls = flickr30k.evaluate(truth, [predicted([[0, 0, 10, 10], wrong], [wrong, [0, 50, 100, 75]])])
    # The first box of the boys is one of the two boys, and just half of the box around both; the hill comes second,
    # also at an IoU of just 0.5.
    assert recalls["any_box"]["R@1"] == {"all": 0.5, "people": 1, "other": 1, "scene": 0}
    assert recalls["any_box"]["R@5"] == {"all": 1, "people": 1, "other": 1, "scene": 1}
    assert recalls["merged_boxes"] == recalls["any_box"]
    below = flickr30k.evaluate(truth, [predicted([[0, 0, 9, 10]], [[0, 50, 100, 74]])])
    assert below["any_box"]["R@-1"] == {"all": 0.5, "people": 1, "other": 1, "scene": 0}
    assert below["merged_boxes"]["R@-1"] == {"all": 0, "people": 0, "other": 0, "scene": 0}


def test_a_phrase_without_predicted_boxes_is_not_found(photo: Path) -> None:
    recalls = flickr30k.evaluate(flickr30k.read(str(photo), "test"), [predicted([], [[0, 50, 100, 100]])])
    assert recalls["any_box"]["R@10"]["all"] == 0.5


def test_rank_ten_does_not_see_the_eleventh_box(photo: Path) -> None:
    wrong, right = [200.0, 200.0, 210.0, 210.0], [0.0, 50.0, 100.0, 100.0]
    recalls = flickr30k.evaluate(flickr30k.read(str(photo), "test"), [predicted([], [*[wrong] * 10, right])])
    assert [recalls["any_box"][f"R@{rank}"]["scene"] for rank in (1, 5, 10, -1)] == [0, 0, 0, 1]


def test_tallies_of_workers_add_up_and_do_not_count_twice(samples: Path) -> None:
    truth = flickr30k.read(str(samples / "flickr30k"), "val")
    predictions = json.loads((samples / "eval/flickr30k/val_preds.json").read_text())
    workers = [flickr30k.Tally() for _ in range(3)]
    for number, prediction in enumerate(predictions):
        workers[number % 3].add(truth, prediction)
        workers[number % 3].add(truth, prediction)
    first, *others = workers
    for other in others:
        first.merge(other)
    assert first.recalls() == flickr30k.evaluate(truth, predictions)
    with pytest.raises(ValueError, match="were counted by two workers"):
        first.merge(others[0])


def test_missing_and_misshapen_predictions_are_refused(photo: Path) -> None:
    truth = flickr30k.read(str(photo), "test")
    with pytest.raises(FormatError, match="1 of 1 sentences have no prediction; sentence 0 of image 77"):
        flickr30k.evaluate(truth, [])
    with pytest.raises(FormatError, match="has 2 phrases with boxes; the prediction has boxes for 1"):
        flickr30k.evaluate(truth, [predicted([], [], boxes=[[]])])
    for boxes in ([[[1, 2, 3]], []], [[[1, 2, 3, float("nan")]], []], None):
        with pytest.raises(FormatError, match="a prediction needs image_id, sentence_id and boxes"):
            flickr30k.evaluate(truth, [predicted([], [], boxes=boxes)])


def test_photos_that_cannot_be_found_are_named(photo: Path) -> None:
    with pytest.raises(FormatError, match="none of test has them all"):
        flickr30k.read(str(photo), predicted={"77", "78"})
    (photo / "test.txt").unlink()
    assert list(flickr30k.read(str(photo), predicted={"77"})) == [("77", 0)]
    with pytest.raises(MissingError, match=r"no test\.txt"):
        flickr30k.read(str(photo))
    with pytest.raises(MissingError, match="99"):
        flickr30k.read(str(photo), predicted={"99"})
    with pytest.raises(ImageError, match="path_outside_root"):
        flickr30k.read(str(photo), predicted={"../../secret"})
