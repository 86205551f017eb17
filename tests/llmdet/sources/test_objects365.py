"""Objects365: cut file names, right names, one of two names, photos that nobody has."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from llmdet.errors import FormatError
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.objects365 import Objects365
from llmdet.validate import faults

IMAGES = [
    {"id": 420917, "file_name": "images/v1/patch8/objects365_v1_00420917.jpg", "width": 100, "height": 80, "url": "u"},
    {"id": 908726, "file_name": "images/v2/patch9/objects365_v2_00908726.jpg", "width": 100, "height": 80},
    {"id": 6, "file_name": "images/v2/patch9/objects365_v2_00000006.jpg", "width": 100, "height": 80},
]
CATEGORIES = [
    {"id": 9, "name": "Cabinet/shelf"},
    {"id": 38, "name": "Moniter/TV"},
    {"id": 3, "name": "Cigar/Cigarette "},
    {"id": 4, "name": "Chair"},
]
BOXES = [
    {
        "id": 1,
        "image_id": 420917,
        "category_id": 9,
        "bbox": [1, 2, 30, 40],
        "area": 1200,
        "iscrowd": 0,
        "isfake": 0,
        "isreflected": 0,
    },
    {
        "id": 2,
        "image_id": 420917,
        "category_id": 38,
        "bbox": [5, 2, 30, 40],
        "area": 1200,
        "iscrowd": 0,
        "isfake": 1,
        "isreflected": 0,
    },
    {
        "id": 3,
        "image_id": 420917,
        "category_id": 38,
        "bbox": [9, 2, 30, 40],
        "area": 1200,
        "iscrowd": 0,
        "isfake": 0,
        "isreflected": 1,
    },
    {
        "id": 4,
        "image_id": 420917,
        "category_id": 4,
        "bbox": [9, 2, 30, 40],
        "area": 1200,
        "iscrowd": 1,
        "isfake": 0,
        "isreflected": 0,
    },
]


def reader(folder: Path, **fields: Any) -> Objects365:
    path = folder / "objects.json"
    path.write_bytes(orjson.dumps({"images": IMAGES, "annotations": BOXES, "categories": CATEGORIES}))
    return Objects365(annotations=str(path), images=str(folder), **fields)


def read(folder: Path, **fields: Any) -> tuple[list[Record], list[Reject]]:
    items = list(reader(folder, **fields).read())
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Reject)]


def test_prefixes_are_cut_and_marks_are_kept(tmp_path: Path) -> None:
    (record, other), left = read(tmp_path)
    assert record.image == "patch8/objects365_v1_00420917.jpg"
    assert record.extra == {
        "url": "u",
        "file_name": "images/v1/patch8/objects365_v1_00420917.jpg",
        "annotations": {"1": {"isfake": 1}, "2": {"isreflected": 1}},
    }
    assert [(r.id, r.level, r.kind, r.reason) for r in left] == [
        ("objects365/420917/0#4", "annotation", "policy", "crowd"),
        ("objects365/908726/0", "record", "policy", "photo_known_missing"),
    ]
    assert other.image_id == "6"
    assert faults(record) == faults(other) == []


def test_the_first_version_misses_other_photos(tmp_path: Path) -> None:
    records, left = read(tmp_path, version="v1")
    assert [record.image_id for record in records] == ["420917", "908726"]
    assert [r.id for r in left if r.level == "record"] == ["objects365/6/0"]


def test_a_text_says_one_of_two_names(tmp_path: Path) -> None:
    said = set()
    for seed in range(20):
        (record, _), _ = read(tmp_path, seed=seed)
        phrases = {region.category_id: region.phrases[0] for region in record.regions}
        assert "/" not in record.text
        assert record.text.count(". ") == 4
        said.add((phrases[9], phrases[38]))
    assert said == {(a, b) for a in ("Cabinet", "shelf") for b in ("Monitor", "TV")}
    assert read(tmp_path, seed=3) == read(tmp_path, seed=3)


def test_first_name_and_whole_name(tmp_path: Path) -> None:
    (first, _), _ = read(tmp_path, alternatives="first")
    assert sorted(first.text.split(". ")) == ["", "Cabinet", "Chair", "Cigar", "Monitor"]
    (whole, _), _ = read(tmp_path, alternatives="keep")
    assert sorted(whole.text.split(". ")) == ["", "Cabinet/shelf", "Chair", "Cigar/Cigarette", "Monitor/TV"]


def test_categories_keep_the_published_name(tmp_path: Path) -> None:
    found = [(c.id, c.name, c.extra["original_name"]) for c in reader(tmp_path).info().categories]
    assert found == [
        (3, "Cigar/Cigarette", "Cigar/Cigarette "),
        (4, "Chair", "Chair"),
        (9, "Cabinet/shelf", "Cabinet/shelf"),
        (38, "Monitor/TV", "Moniter/TV"),
    ]


@pytest.mark.parametrize(
    "rows", ["38,Moniter/TV,Screen\n4,Chair,Seat\n", "moniter/tv,Screen\nChair,Seat\n", "38,x,Screen\n4,x,Seat"]
)
def test_names_from_a_csv(tmp_path: Path, rows: str) -> None:
    (tmp_path / "fix.csv").write_text(rows)
    found = reader(tmp_path, corrections=str(tmp_path / "fix.csv")).info().categories
    assert [category.name for category in found] == ["Cigar/Cigarette", "Seat", "Cabinet/shelf", "Screen"]


@pytest.mark.parametrize("rows", ["one\n", "a,b,c,d\n", "x,old,new\n", "1,old,\n"])
def test_another_csv_is_refused(tmp_path: Path, rows: str) -> None:
    (tmp_path / "fix.csv").write_text(rows)
    with pytest.raises(FormatError, match=r"fix\.csv: expected rows"):
        reader(tmp_path, corrections=str(tmp_path / "fix.csv")).info()


def test_pictures_and_mirror_images_are_left_out_on_demand(tmp_path: Path) -> None:
    (record, _), left = read(tmp_path, fake="drop", reflected="drop")
    assert [box.annotation_id for box in record.boxes] == ["1"]
    assert [(r.kind, r.reason) for r in left if r.level == "annotation"] == [
        ("policy", "fake"),
        ("policy", "reflected"),
        ("policy", "crowd"),
    ]
    # Nothing that was left out counts as absent.
    assert {record.text[slice(*span)] for span in record.negatives} <= {"Cigar", "Cigarette"}
