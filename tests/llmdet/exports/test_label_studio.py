import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given

from llmdet.exports.label_studio import LabelStudio
from llmdet.record import Record, to_batch
from tests.llmdet.example_records import FULL, PETS, few, records


def tasks(out: Path) -> list[dict]:
    return json.loads((out / "tasks.json").read_bytes())


def test_human_boxes_are_an_annotation_and_pseudo_boxes_a_prediction(tmp_path: Path) -> None:
    outcome = LabelStudio().write([to_batch([FULL])], str(tmp_path), {"pets": PETS})
    (task,) = tasks(tmp_path)
    assert task["data"] == {
        "image": "/data/local-files/?d=a/12.jpg",
        "text": "dog. tv. cat. ",
        "caption": "A dog beside a cat.",
        "tags": ["dog", "grass"],
        "id": "pets/12/0",
    }
    cat, dog = task["annotations"][0]["result"]
    assert dog == {
        "id": "2",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": 100,
        "original_height": 80,
        "image_rotation": 0,
        "value": {"x": 1.5, "y": 2.5, "width": 28.75, "height": 47.5, "rotation": 0, "rectanglelabels": ["dog"]},
    }
    assert cat["value"]["rectanglelabels"] == ["cat"]
    (prediction,) = task["predictions"]
    assert (prediction["score"], prediction["result"][0]["score"]) == (0.5, 0.5)
    assert prediction["result"][0]["meta"] == {"text": ['a "brown" dog\non grass']}
    assert outcome.lost == {
        "negatives": 1, "masks": 1, "annotation ids": 3, "areas": 1, "spans": 2, "captions after the first": 1
    }  # fmt: skip


def test_interface_names_every_label_and_fits_the_results(tmp_path: Path) -> None:
    LabelStudio(images="none").write([to_batch([FULL])], str(tmp_path), {"pets": PETS})
    view = ElementTree.fromstring((tmp_path / "config.xml").read_text())
    (labels,) = view.iter("RectangleLabels")
    assert (labels.get("name"), labels.get("toName"), view.find("Image").get("value")) == ("label", "image", "$image")
    assert [label.get("value") for label in labels] == ["cat", "dog", "tv"]


@few
@given(record=records())
def test_percents_give_the_pixels_back(tmp_path: Path, record: Record) -> None:
    LabelStudio().write([to_batch([record])], str(tmp_path), {"pets": PETS})
    (task,) = tasks(tmp_path)
    rows = [row for part in task["annotations"] + task["predictions"] for row in part["result"]]
    rows.sort(key=lambda row: int(row["id"]))
    for row, box in zip(rows, record.boxes, strict=True):
        x, y, w, h = (row["value"][key] for key in ("x", "y", "width", "height"))
        sides = (row["original_width"] / 100, row["original_height"] / 100)
        got = (x * sides[0], y * sides[1], (x + w) * sides[0], (y + h) * sides[1])
        assert got == pytest.approx(box.xyxy, abs=1e-9)
