"""Visual Genome: descriptions as records of their own, objects as names, sizes and folders from image_data."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmdet.errors import FormatError, MissingError
from llmdet.record import Box, Record, Region, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.visual_genome import LICENCE, VisualGenome
from llmdet.validate import faults

LAMP = {
    "region_id": 2871,
    "image_id": 61,
    "phrase": "A lamp on the desk.",
    "x": 40,
    "y": 12,
    "width": 88,
    "height": 130,
}
CHAIR = {
    "region_id": 2872,
    "image_id": 61,
    "phrase": " the chair",
    "x": 0,
    "y": 50,
    "width": 30,
    "height": 60,
    "synsets": [],
}
AGAIN = {
    "region_id": 2873,
    "image_id": 61,
    "phrase": "a lamp on the desk.",
    "x": 140,
    "y": 12,
    "width": 20,
    "height": 30,
}
DATA = [
    {
        "image_id": 61,
        "width": 800,
        "height": 600,
        "coco_id": None,
        "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/61.jpg",
    },
    {"image_id": 62, "width": 200, "height": 100, "url": "https://cs.stanford.edu/people/rak248/VG_100K/62.jpg"},
    {"image_id": 63, "width": "wide", "height": 100},
    "x",
]
OBJECTS = [
    {"object_id": 5, "names": ["lamp", "light"], "synsets": ["lamp.n.02"], "x": 44, "y": 14, "w": 80, "h": 121},
    {"object_id": 6, "names": ["desk"], "x": 0, "y": 100, "w": 500, "h": 300, "attributes": ["brown", "wide"]},
    {"object_id": 7, "names": ["lamp"], "x": 300, "y": 14, "w": 20, "h": 20},
]


def reader(folder: Path, document: Any, data: Any = DATA, **fields: Any) -> VisualGenome:
    (folder / "vg.json").write_text(document if isinstance(document, str) else json.dumps(document))
    if data is not None:
        (folder / "image_data.json").write_text(json.dumps(data))
        fields["image_data"] = str(folder / "image_data.json")
    return VisualGenome(annotations=str(folder / "vg.json"), images=str(folder), **fields)


def split(source: VisualGenome) -> tuple[list[Record], list[Reject]]:
    items = list(source.read())
    records = [i for i in items if isinstance(i, Record)]
    assert from_batch(to_batch(records)) == records
    return records, [i for i in items if isinstance(i, Reject)]


def test_each_phrase_is_a_record_and_equal_ones_share_it(tmp_path: Path) -> None:
    (lamp, chair), left = split(reader(tmp_path, [{"id": 61, "regions": [LAMP, CHAIR, AGAIN]}]))
    assert left == []
    assert faults(lamp) == faults(chair) == []
    assert (lamp.id, lamp.kind, lamp.image, lamp.width, lamp.height) == (
        "visual_genome/61/2871",
        "grounding",
        "VG_100K_2/61.jpg",
        800,
        600,
    )
    assert lamp.text == "A lamp on the desk."
    assert lamp.regions == (
        Region(
            ("A lamp on the desk",),
            ((0, 18),),
            (
                Box((40.0, 12.0, 128.0, 142.0), 0, annotation_id="2871"),
                Box((140.0, 12.0, 160.0, 42.0), 2, annotation_id="2873"),
            ),
        ),
    )
    assert (chair.text, chair.regions[0].spans, chair.extra) == (
        "the chair",
        ((0, 9),),
        {"annotations": {"1": {"synsets": []}}},
    )
    assert lamp.licence == LICENCE


def test_layouts_of_photos(tmp_path: Path) -> None:
    document = [{"id": 62, "regions": [CHAIR]}]
    assert split(reader(tmp_path, document))[0][0].image == "VG_100K/62.jpg"
    assert split(reader(tmp_path, document, layout="flat"))[0][0].image == "62.jpg"
    (record,), _ = split(reader(tmp_path, document, data=None))
    assert (record.image, record.width, record.height) == ("62.jpg", 0, 0)


def test_objects_are_a_text_of_names(tmp_path: Path) -> None:
    (record,), left = split(reader(tmp_path, [{"image_id": 61, "objects": OBJECTS}]))
    assert left == []
    assert faults(record) == []
    assert (record.id, record.kind, record.negatives, record.exhaustive) == (
        "visual_genome/61/objects",
        "detection",
        (),
        False,
    )
    assert sorted(record.text.split(". ")) == ["", "desk", "lamp"]
    assert {region.phrases[0]: [box.annotation_id for box in region.boxes] for region in record.regions} == {
        "lamp": ["5", "7"],
        "desk": ["6"],
    }
    assert record.extra == {
        "annotations": {
            "0": {"names": ["lamp", "light"], "synsets": ["lamp.n.02"]},
            "1": {"attributes": ["brown", "wide"]},
        }
    }


def test_attributes_are_read_as_objects_are(tmp_path: Path) -> None:
    (record,), _ = split(reader(tmp_path, [{"image_id": 61, "attributes": OBJECTS}]))
    assert record.extra["annotations"]["1"] == {"attributes": ["brown", "wide"]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (5, "row_malformed"),
        ({**CHAIR, "phrase": None}, "row_malformed"),
        ({**CHAIR, "phrase": ["a"]}, "row_malformed"),
        ({**CHAIR, "phrase": "\ud800"}, "text_not_unicode"),
        ({**CHAIR, "phrase": " . "}, "phrase_empty"),
        ({**CHAIR, "x": "0"}, "box_malformed"),
        ({**CHAIR, "width": None}, "box_malformed"),
        ({**CHAIR, "width": 0}, "box_below_one_pixel"),
        ({**CHAIR, "x": 900}, "box_outside_image"),
        ({**CHAIR, "x": 10**400}, "box_malformed"),
        ({**CHAIR, "region_id": [1]}, "row_malformed"),
    ],
)
def test_a_bad_description_costs_itself(tmp_path: Path, row: Any, reason: str) -> None:
    (record,), left = split(reader(tmp_path, [{"id": 61, "regions": [row, LAMP]}]))
    assert record.text_id == "2871"
    assert [(r.level, r.kind, r.reason) for r in left] == [("annotation", "fault", reason)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (5, "row_malformed"),
        ({"names": [], "x": 0, "y": 0, "w": 9, "h": 9}, "row_malformed"),
        ({"names": [" "], "x": 0, "y": 0, "w": 9, "h": 9}, "phrase_empty"),
        ({"names": ["a"], "x": 0, "y": 0, "w": 9}, "box_malformed"),
    ],
)
def test_a_bad_object_costs_itself(tmp_path: Path, row: Any, reason: str) -> None:
    (record,), left = split(reader(tmp_path, [{"image_id": 61, "objects": [row, OBJECTS[1]]}]))
    assert record.text == "desk. "
    assert [(r.level, r.kind, r.reason) for r in left] == [("annotation", "fault", reason)]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (7, "row_malformed"),
        ({"id": 62}, "row_malformed"),
        ({"id": 62, "regions": {}}, "row_malformed"),
        ({"id": None, "regions": []}, "row_malformed"),
        ({"id": 64, "regions": [CHAIR]}, "image_unknown"),
        ({"id": 63, "regions": [CHAIR]}, "image_unknown"),  # its size in image_data is a text
        ({"id": 61, "regions": [CHAIR]}, "image_repeated"),
    ],
)
def test_a_bad_item_costs_its_photo(tmp_path: Path, item: Any, reason: str) -> None:
    records, left = split(reader(tmp_path, [{"id": 61, "regions": [LAMP]}, item, {"id": 62, "regions": [CHAIR]}]))
    assert [record.image_id for record in records] == ["61", "62"]
    assert [(r.level, r.kind, r.reason) for r in left] == [("record", "fault", reason)]


@pytest.mark.parametrize("document", ["{}", "x", "", [{"id": 4, "qas": []}], [5]])
def test_another_file_is_refused_in_one_line(tmp_path: Path, document: Any) -> None:
    with pytest.raises(FormatError, match=r"vg\.json") as caught:
        split(reader(tmp_path, document))
    assert "\n" not in str(caught.value)


def test_image_data_must_be_what_it_says(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="image_data"):
        split(reader(tmp_path, [{"id": 61, "regions": [LAMP]}], data=[{"a": 1}]))
    with pytest.raises(MissingError, match=r"none\.json"):
        list(VisualGenome(annotations=str(tmp_path / "none.json"), images="").read())


def test_question_answers_are_refused(samples: Path) -> None:
    with pytest.raises(FormatError, match="is not of Visual Genome: expected items with regions"):
        split(VisualGenome(annotations=str(samples / "gqa_vg" / "question_answers.json"), images=""))
