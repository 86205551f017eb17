import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.exports.coco import FIRST_FREE_ID, Coco
from llmdet.record import Box, Record, Region, to_batch
from llmdet.sources.coco import Coco as CocoSource
from llmdet.sources.source import Category, SourceInfo
from tests.llmdet.example_records import FULL, PETS, SENTENCE, few, records


def written(records: list[Record], out: Path, sources: dict[str, SourceInfo], **options: object) -> dict:
    Coco(**options).write([to_batch(records)], str(out), sources)  # type: ignore[arg-type]
    return json.loads((out / "instances.json").read_bytes())


def test_one_source_keeps_its_ids_and_what_it_said_of_images(tmp_path: Path) -> None:
    assert written([FULL], tmp_path, {"pets": PETS}) == {
        "info": {"description": "pets"},
        "licenses": [],
        "images": [
            {
                "id": 12,
                "file_name": "a/12.jpg",
                "height": 80,
                "width": 100,
                "coco_url": "http://images.cocodataset.org/train2017/12.jpg",
            }
        ],
        "annotations": [
            {
                "id": 32, "image_id": 12, "category_id": 7, "bbox": [5.0, 6.0, 2.5, 74.0], "area": 185.0,
                "iscrowd": 0, "segmentation": [], "score": 0.5,
            },
            {
                "id": 33, "image_id": 12, "category_id": 2, "bbox": [0.1, 0.2, 49.9, 59.8], "area": 49.9 * 59.8,
                "iscrowd": 0, "segmentation": [],
            },
            {
                "id": 31, "image_id": 12, "category_id": 7, "bbox": [1.5, 2.0, 28.75, 38.0], "area": 700.5,
                "iscrowd": 0, "segmentation": [[1.5, 2, 30, 2, 30, 40]],
            },
        ],
        "categories": [{"id": 2, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "tv"}],
    }  # fmt: skip


def test_several_sources_are_numbered_anew_and_phrases_become_categories(tmp_path: Path) -> None:
    flickr = SourceInfo("flickr", "flickr30k", "", "", "")
    document = written([FULL, SENTENCE], tmp_path, {"pets": PETS, "flickr": flickr})
    assert [image["id"] for image in document["images"]] == [1, 2]
    assert [row["id"] for row in document["annotations"]] == [1, 2, 3, 4]
    assert document["categories"][3] == {"id": 10, "name": "a man"}
    assert [row["category_id"] for row in document["annotations"]] == [7, 2, 7, 10]


def test_texts_of_one_image_share_it_and_a_box_has_its_own_id_once(tmp_path: Path) -> None:
    again = replace(FULL, id="pets/12/1", text_id="1")
    document = written([FULL, again], tmp_path, {"pets": PETS})
    assert [image["id"] for image in document["images"]] == [12]
    assert [row["id"] for row in document["annotations"]] == [
        32, 33, 31, FIRST_FREE_ID + 1, FIRST_FREE_ID + 2, FIRST_FREE_ID + 3
    ]  # fmt: skip


def test_names_of_several_sources_are_one_class(tmp_path: Path) -> None:
    zoo = SourceInfo("zoo", "coco", "", "", "", (Category(1, "lion"), Category(2, "dog")))
    region = Region(("dog",), ((0, 3),), (Box((0.0, 0.0, 9.0, 9.0)),), 2)
    dog = Record("zoo/1/0", "zoo", "1", "0", "detection", "1.jpg", "zoo", 10, 20, "dog. ", (region,))
    document = written([FULL, dog], tmp_path, {"pets": PETS, "zoo": zoo})
    assert document["categories"] == [
        {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "tv"}, {"id": 4, "name": "lion"}
    ]  # fmt: skip
    assert [row["category_id"] for row in document["annotations"]] == [2, 1, 2, 2]


def test_what_is_lost_is_counted(tmp_path: Path) -> None:
    outcome = Coco().write([to_batch([FULL, SENTENCE])], str(tmp_path), {"pets": PETS})
    assert (outcome.records, outcome.boxes, outcome.files) == (2, 4, ("instances.json",))
    assert outcome.lost == {
        "image captions": 2, "tags": 2, "negatives": 1, "box captions": 1, "pseudo marks": 1, "sentences": 1
    }  # fmt: skip


def source_of(folder: Path) -> CocoSource:
    return CocoSource(annotations=str(folder), images="", crowd="keep")


def test_real_annotations_come_back_as_identical_records(samples: Path, tmp_path: Path) -> None:
    source = source_of(samples / "coco/coco_tiny_val/annotations/instances_val2017.json")
    before = [item for item in source.read() if isinstance(item, Record)]
    assert sum(len(record.boxes) for record in before) == 815
    Coco().write([to_batch(before)], str(tmp_path), {"coco": source.info()})
    after = list(source_of(tmp_path / "instances.json").read())
    assert after == before
    assert source_of(tmp_path / "instances.json").info().categories == source.info().categories


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
def test_pycocotools_loads_the_export(samples: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    original = samples / "coco/coco_tiny_val/annotations/instances_val2017.json"
    source = source_of(original)
    Coco().write(
        [to_batch([item for item in source.read() if isinstance(item, Record)])], str(tmp_path), {"coco": source.info()}
    )
    with contextlib.redirect_stdout(io.StringIO()):
        ours, theirs = COCO(str(tmp_path / "instances.json")), COCO(str(original))
    assert ours.getCatIds() == theirs.getCatIds()
    assert sorted(ours.getAnnIds()) == sorted(theirs.getAnnIds())
    for key in theirs.getAnnIds():
        mine, other = ours.anns[key], theirs.anns[key]
        assert mine["bbox"] == other["bbox"]
        assert (ours.annToMask(mine) == theirs.annToMask(other)).all()


@few
@given(many=st.lists(records("detection"), max_size=3, unique_by=lambda record: record.image_id))
def test_boxes_of_any_record_come_back(tmp_path: Path, many: list[Record]) -> None:
    document = written(many, tmp_path, {"pets": PETS})
    for record in many:
        rows = [row for row in document["annotations"] if row["image_id"] == int(record.image_id)]
        assert len(rows) == len(record.boxes)
        for row, box in zip(rows, record.boxes, strict=True):
            x, y, w, h = row["bbox"]
            x1, y1, x2, y2 = box.xyxy
            assert (x, y) == (x1, y1)
            assert abs(x + w - x2) <= 1e-12 * max(1, abs(x1), abs(x2))
            assert abs(y + h - y2) <= 1e-12 * max(1, abs(y1), abs(y2))
            assert row["iscrowd"] == box.crowd
    assert len({row["id"] for row in document["annotations"]}) == len(document["annotations"])
