"""LVIS: photos found by their address, names cleaned, negatives only where the annotators looked."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.lvis import Lvis, clean_name
from llmdet.validate import faults

IMAGE = {
    "id": 391895,
    "width": 640,
    "height": 360,
    "license": 3,
    "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg",
    "neg_category_ids": [3, 4],
    "not_exhaustive_category_ids": [1],
}
CATEGORIES = [
    {"id": 1, "name": "bow_(weapon)", "frequency": "r", "synset": "bow.n.04", "def": "shoots", "synonyms": ["bow"]},
    {"id": 2, "name": "bow_(decorative_ribbons)", "frequency": "f"},
    {"id": 3, "name": "aerosol_can", "frequency": "c"},
    {"id": 4, "name": "flip-flop_(sandal)", "frequency": "c"},
    {"id": 5, "name": "zebra", "frequency": "f"},
]
ANNOTATIONS = [
    {
        "id": 1,
        "image_id": 391895,
        "category_id": 1,
        "area": 6.5,
        "bbox": [10, 12, 98.25, 214],
        "segmentation": [[1, 2, 3, 4, 5, 6]],
    },
    {
        "id": 2,
        "image_id": 391895,
        "category_id": 2,
        "area": 7.5,
        "bbox": [20, 12, 9, 21],
        "segmentation": [[1, 2, 3, 4, 5, 6]],
    },
]


def read(folder: Path, *images: Any, **fields: Any) -> tuple[list[Record], list[Reject]]:
    path = folder / "lvis.json"
    path.write_bytes(orjson.dumps({"images": images, "annotations": ANNOTATIONS, "categories": CATEGORIES}))
    items = list(Lvis(annotations=str(path), images=str(folder), **fields).read())
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Reject)]


def names(record: Record, spans: Any) -> list[str]:
    return sorted(record.text[slice(*span)] for span in spans)


def test_a_photo_lies_where_its_address_says(tmp_path: Path) -> None:
    (record,), left = read(tmp_path, IMAGE)
    assert left == []
    assert record.image == "train2017/000000391895.jpg"
    # v0.5 names the file of 2014, though its address is of 2017.
    (older,), _ = read(tmp_path, {**IMAGE, "file_name": "COCO_train2014_000000391895.jpg"})
    assert older.image == "train2017/000000391895.jpg"
    assert older.extra["file_name"] == "COCO_train2014_000000391895.jpg"
    (bare,), _ = read(tmp_path, {**IMAGE, "coco_url": None, "file_name": "COCO_train2014_000000391895.jpg"})
    assert bare.image == "000000391895.jpg"


def test_text_has_names_with_boxes_and_those_known_to_be_absent(tmp_path: Path) -> None:
    (record,), _ = read(tmp_path, IMAGE)
    assert sorted(record.text.split(". ")) == ["", "aerosol can", "bow", "flip-flop"]
    assert names(record, record.negatives) == ["aerosol can", "flip-flop"]
    assert [(r.category_id, r.phrases, len(r.boxes)) for r in record.regions] == [(1, ("bow",), 1), (2, ("bow",), 1)]
    assert not record.exhaustive
    assert faults(record) == []


def test_what_federated_evaluation_needs_is_kept(tmp_path: Path) -> None:
    (record,), _ = read(tmp_path, IMAGE)
    assert record.extra["neg_category_ids"] == [3, 4]
    assert record.extra["not_exhaustive_category_ids"] == [1]
    assert record.extra["coco_url"] == IMAGE["coco_url"]
    category = Lvis(annotations=str(tmp_path / "lvis.json"), images="").info().categories[0]
    assert (category.id, category.name) == (1, "bow")
    assert category.extra == {
        "original_name": "bow_(weapon)",
        "frequency": "r",
        "synset": "bow.n.04",
        "def": "shoots",
        "synonyms": ["bow"],
    }


def test_a_name_that_nobody_looked_for_is_no_negative(tmp_path: Path) -> None:
    (record,), _ = read(tmp_path, IMAGE, negatives="all")
    assert sorted(record.text.split(". ")) == ["", "aerosol can", "bow", "flip-flop", "zebra"]
    assert names(record, record.negatives) == ["aerosol can", "flip-flop"]


def test_a_name_with_a_box_is_no_negative_though_its_other_meaning_is_absent(tmp_path: Path) -> None:
    (record,), _ = read(tmp_path, {**IMAGE, "neg_category_ids": [2, 3, 77]}, verified=True)
    assert names(record, record.negatives) == ["aerosol can"]


def test_verified_names_stay_out_on_demand(tmp_path: Path) -> None:
    (record,), _ = read(tmp_path, IMAGE, verified=False)
    assert (record.text, record.negatives) == ("bow. ", ())


@pytest.mark.parametrize(
    "change",
    [
        {"coco_url": None},
        {"coco_url": 7},
        {"coco_url": "http://images.cocodataset.org"},
        {"coco_url": "train2017/1.jpg"},
        {"neg_category_ids": "3"},
        {"neg_category_ids": [None]},
        {"not_exhaustive_category_ids": {"3": 1}},
    ],
)
def test_a_bad_image_row_is_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    records, left = read(tmp_path, {**IMAGE, **change})
    assert records == []
    assert (left[0].level, left[0].kind, left[0].reason) == ("record", "fault", "row_malformed")
    assert [r.reason for r in left[1:]] == ["image_unknown"] * 2


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("aerosol_can", "aerosol can"),
        ("flip-flop_(sandal)", "flip-flop"),
        ("railcar_(part_of_a_train)", "railcar"),
        ("a_(b)_c_(d)_e", "a e"),
        ("Dixie_cup", "Dixie cup"),
    ],
)
def test_clean_name(name: str, clean: str) -> None:
    assert clean_name(name) == clean


def test_real_half_equals_the_reference_conversion(samples: Path) -> None:
    reader = Lvis(annotations=str(samples / "lvis" / "lvis_v1_style_part_a.json"), images=str(samples / "lvis"))
    items = list(reader.read())
    assert Counter(type(item) for item in items) == {Record: 49}
    original = {category.id: category.extra["original_name"] for category in reader.info().categories}
    assert len(original) == 1203
    lines = [json.loads(line) for line in (samples / "odvg" / "lvis_v1_style_part_a_od.jsonl").read_text().splitlines()]
    boxes = 0
    for record, line in zip(items, lines, strict=True):
        assert isinstance(record, Record)
        assert faults(record) == []
        assert (record.image, record.width, record.height) == (line["filename"], line["width"], line["height"])
        found = sorted(
            (box.order, list(box.xyxy), region.category_id, original[region.category_id or 0])
            for region in record.regions
            for box in region.boxes
        )
        expected = line["detection"]["instances"]
        assert [row[1:] for row in found] == [(i["bbox"], i["label"] + 1, i["category"]) for i in expected]
        boxes += len(found)
    assert boxes == 353


def test_the_real_table_has_its_frequencies_and_clean_names(samples: Path) -> None:
    rows = json.loads((samples / "lvis" / "lvis_v1_categories_1203.json").read_text())
    reader = Lvis(annotations=str(samples / "lvis" / "lvis_v1_style_part_a.json"), images="")
    assert [c.extra["original_name"] for c in reader.info().categories] == [row["name"] for row in rows]
    assert Counter(row["frequency"] for row in rows) == {"r": 337, "c": 461, "f": 405}
    assert all(c.name == c.name.strip() and not set("_()") & set(c.name) for c in reader.info().categories)


def test_version_0_5_gives_the_same_photos_and_boxes(samples: Path) -> None:
    def facts(name: str) -> list[Any]:
        records = list(Lvis(annotations=str(samples / "lvis" / name), images=str(samples / "lvis")).read())
        return [(r.image, sorted(b.xyxy for b in r.boxes)) for r in records if isinstance(r, Record)]

    older = facts("lvis_val_part_a.json")
    assert older == facts("lvis_v1_style_part_a.json")
    photos = {path.name for path in (samples / "lvis" / "val2017").iterdir()}
    assert photos
    assert photos <= {Path(image).name for image, _ in older}
