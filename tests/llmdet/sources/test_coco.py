"""COCO instances: rows by hand with exact records and reasons, then real files with known counts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmdet import rejects
from llmdet.errors import FormatError, MissingError
from llmdet.record import Box, Record, Region, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.coco import ADDRESS, LICENCE, Coco
from llmdet.sources.lvis import Lvis
from llmdet.sources.objects365 import Objects365
from llmdet.sources.v3det import V3Det
from llmdet.validate import faults

CROWD = {"counts": [10, 5, 985], "size": [20, 50]}
# Gaps in ids, categories out of order, no info and no licenses, an image without annotations.
DOCUMENT: dict[str, Any] = {
    "images": [
        {
            "id": 9,
            "file_name": "000000000009.jpg",
            "width": 50,
            "height": 20,
            "coco_url": "http://h/9.jpg",
            "license": 3,
        },
        {"id": 400, "file_name": "sub/b.jpg", "width": 8, "height": 6},
    ],
    "annotations": [
        {
            "id": 11,
            "image_id": 9,
            "category_id": 90,
            "bbox": [1, 2, 3.5, 4],
            "area": 9.25,
            "iscrowd": 0,
            "segmentation": [[1, 2, 4.5, 2, 4.5, 6]],
        },
        {
            "id": 908400255165,
            "image_id": 9,
            "category_id": 1,
            "bbox": [0, 0, 50, 20],
            "area": 5,
            "iscrowd": 1,
            "segmentation": CROWD,
        },
        {
            "id": 12,
            "image_id": 9,
            "category_id": 13,
            "bbox": [10, 5, 6, 6],
            "area": 30,
            "iscrowd": 0,
            "segmentation": [],
        },
        {
            "id": 13,
            "image_id": 9,
            "category_id": 90,
            "bbox": [20.5, 5, 6, 6],
            "area": 36,
            "attributes": {"shade": True},
        },
    ],
    "categories": [
        {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
        {"id": 1, "name": "person"},
        {"id": 13, "name": "stop sign"},
    ],
}


def source(folder: Path, document: Any, **fields: Any) -> Coco:
    path = folder / "instances.json"
    path.write_bytes(document if isinstance(document, bytes) else orjson.dumps(document))
    return Coco(annotations=str(path), images=str(folder), **fields)


def split(items: Any) -> tuple[list[Record], list[Reject]]:
    listed = list(items)
    return [i for i in listed if isinstance(i, Record)], [i for i in listed if isinstance(i, Reject)]


def changed(images: Any = (), annotations: Any = (), **more: Any) -> dict[str, Any]:
    return {
        **DOCUMENT,
        "images": [*DOCUMENT["images"], *images],
        "annotations": [*DOCUMENT["annotations"], *annotations],
        **more,
    }


def test_a_photo_becomes_one_record_of_names_and_boxes(tmp_path: Path) -> None:
    (record, empty), left = split(source(tmp_path, DOCUMENT, negatives="dynamic").read())
    first, second = ("toothbrush", "stop sign") if record.text.startswith("tooth") else ("stop sign", "toothbrush")
    assert record.text == f"{first}. {second}. "
    spans = {first: (0, len(first)), second: (len(first) + 2, len(record.text) - 2)}
    mask = "[[1,2,4.5,2,4.5,6]]"
    regions = {
        "toothbrush": Region(
            ("toothbrush",),
            (spans["toothbrush"],),
            (
                Box((1.0, 2.0, 4.5, 6.0), 0, annotation_id="11", area=9.25, mask=mask),
                Box((20.5, 5.0, 26.5, 11.0), 3, annotation_id="13", area=36.0),
            ),
            90,
        ),
        "stop sign": Region(
            ("stop sign",), (spans["stop sign"],), (Box((10.0, 5.0, 16.0, 11.0), 2, annotation_id="12", area=30.0),), 13
        ),
    }
    assert record == Record(
        id="coco/9/0",
        source="coco",
        image_id="9",
        text_id="0",
        kind="detection",
        image="000000000009.jpg",
        root="coco",
        width=50,
        height=20,
        text=record.text,
        regions=(regions[first], regions[second]),
        negatives=(),
        exhaustive=False,  # a crowd of persons was left out
        licence=LICENCE,
        origin=ADDRESS,
        extra={"coco_url": "http://h/9.jpg", "license": 3, "annotations": {"3": {"attributes": {"shade": True}}}},
    )
    assert left == [
        Reject(
            "coco/9/0#908400255165",
            "annotation",
            "policy",
            "ingest",
            "crowd",
            "iscrowd 1 stands for a group of objects",
        )
    ]
    assert (empty.id, empty.text, empty.regions, empty.exhaustive, empty.image) == (
        "coco/400/0",
        "",
        (),
        True,
        "sub/b.jpg",
    )


def test_all_names_are_in_the_text_and_absent_ones_are_negatives(tmp_path: Path) -> None:
    (record, empty), _ = split(source(tmp_path, DOCUMENT).read())
    assert sorted(record.text.split(". ")) == ["", "person", "stop sign", "toothbrush"]
    # There is a crowd of persons without a box: "person" is not absent.
    assert record.negatives == ()
    assert sorted(empty.text[slice(*span)] for span in empty.negatives) == ["person", "stop sign", "toothbrush"]


def test_crowds_are_kept_on_demand_with_their_run_lengths(tmp_path: Path) -> None:
    (record, _), left = split(source(tmp_path, DOCUMENT, crowd="keep").read())
    assert left == []
    crowd = record.boxes[1]
    assert (crowd.annotation_id, crowd.crowd, json.loads(crowd.mask or "")) == ("908400255165", True, CROWD)
    assert record.exhaustive


def test_masks_are_left_out_on_demand(tmp_path: Path) -> None:
    (record, _), _ = split(source(tmp_path, DOCUMENT, masks=False).read())
    assert {box.mask for box in record.boxes} == {None}


def test_the_seed_and_the_record_decide_the_order_of_names(tmp_path: Path) -> None:
    names = [{"id": number, "name": f"name {number}"} for number in range(30)]
    document = changed(categories=[*DOCUMENT["categories"][:0], *names, {"id": 90, "name": "toothbrush"}])
    one, again, other = (split(source(tmp_path, document, seed=seed).read())[0] for seed in (1, 1, 2))
    assert [record.text for record in one] == [record.text for record in again]
    assert one[0].text != other[0].text
    assert one[0].text != one[1].text


def test_licence_of_a_photo_is_the_one_that_its_row_names(tmp_path: Path) -> None:
    licenses = [
        {"id": 3, "name": "Attribution-NonCommercial-NoDerivs License", "url": "u"},
        {"name": "no id"},
        7,
        {"id": []},
    ]
    (record, other), _ = split(source(tmp_path, changed(licenses=licenses)).read())
    assert record.licence == "Attribution-NonCommercial-NoDerivs License"
    assert other.licence == LICENCE


def test_info_lists_categories_by_id(tmp_path: Path) -> None:
    info = source(tmp_path, DOCUMENT).info()
    assert [(c.id, c.name, c.extra) for c in info.categories] == [
        (1, "person", {}),
        (13, "stop sign", {}),
        (90, "toothbrush", {"supercategory": "indoor"}),
    ]
    assert (info.name, info.format, info.licence) == ("coco", "coco", LICENCE)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (7, "row_malformed"),
        (None, "row_malformed"),
        ({"image_id": 9, "category_id": 1}, "box_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": "1 2 3 4"}, "box_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, 3]}, "box_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, "3", 4]}, "box_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, True, 4]}, "box_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, None, 4]}, "box_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, 0.5, 4]}, "box_below_one_pixel"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, -5, 4]}, "box_below_one_pixel"),
        ({"image_id": 9, "category_id": 1, "bbox": [50, 2, 5, 4]}, "box_outside_image"),
        ({"image_id": 9, "category_id": 2, "bbox": [1, 2, 3, 4]}, "category_unknown"),
        ({"image_id": 9, "category_id": "1", "bbox": [1, 2, 3, 4]}, "category_unknown"),
        ({"image_id": 9, "category_id": [1], "bbox": [1, 2, 3, 4]}, "category_unknown"),
        ({"image_id": 9, "category_id": True, "bbox": [1, 2, 3, 4]}, "category_unknown"),
        ({"image_id": 9, "bbox": [1, 2, 3, 4]}, "category_unknown"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "area": "9"}, "row_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": "0"}, "row_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": "x"}, "mask_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [["1"]]}, "mask_malformed"),
        ({"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": {"counts": 5}}, "mask_malformed"),
        ({"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}, "image_unknown"),
        ({"image_id": [9], "category_id": 1, "bbox": [1, 2, 3, 4]}, "image_unknown"),
        ({"category_id": 1, "bbox": [1, 2, 3, 4]}, "image_unknown"),
    ],
)
def test_a_bad_annotation_is_left_out_with_its_reason(tmp_path: Path, row: Any, reason: str) -> None:
    records, left = split(source(tmp_path, changed(annotations=[row]), crowd="keep").read())
    assert [(r.level, r.kind, r.stage, r.reason) for r in left] == [("annotation", "fault", "ingest", reason)]
    assert left[0].detail
    assert sum(len(record.boxes) for record in records) == 4


def test_ignored_annotations_are_a_choice(tmp_path: Path) -> None:
    row = {"id": 77, "image_id": 400, "category_id": 1, "bbox": [1, 2, 3, 4], "ignore": 1}
    (_, record), left = split(source(tmp_path, changed(annotations=[row]), crowd="keep").read())
    assert [(r.id, r.kind, r.reason) for r in left] == [("coco/400/0#77", "policy", "ignored")]
    assert sorted(record.text[slice(*span)] for span in record.negatives) == ["stop sign", "toothbrush"]


@pytest.mark.parametrize(
    "row",
    [
        5,
        None,
        [],
        {},
        {"id": 5, "width": 4, "height": 4},
        {"id": 5, "file_name": "a.jpg", "width": "4", "height": 4},
        {"id": 5, "file_name": "a.jpg", "width": 0, "height": 4},
        {"id": 5, "file_name": "a.jpg", "width": -4, "height": 4},
        {"id": 5, "file_name": "a.jpg", "width": 4.5, "height": 4},
        {"id": 5, "file_name": "a.jpg", "width": 2**40, "height": 4},
        {"id": 5, "file_name": "a.jpg", "width": True, "height": 4},
        {"id": 5, "file_name": ["a.jpg"], "width": 4, "height": 4},
        {"id": None, "file_name": "a.jpg", "width": 4, "height": 4},
        {"id": [5], "file_name": "a.jpg", "width": 4, "height": 4},
    ],
)
def test_a_bad_image_row_is_left_out_and_the_rest_is_read(tmp_path: Path, row: Any) -> None:
    records, left = split(source(tmp_path, changed(images=[row]), crowd="keep").read())
    assert [record.image_id for record in records] == ["9", "400"]
    assert [(r.level, r.kind, r.reason) for r in left] == [("record", "fault", "row_malformed")]


def test_an_image_id_that_stands_twice_is_read_once(tmp_path: Path) -> None:
    records, left = split(source(tmp_path, changed(images=[DOCUMENT["images"][0]]), crowd="keep").read())
    assert len(records) == 2
    assert [(r.id, r.level, r.reason) for r in left] == [("coco/9/0", "record", "image_repeated")]


def test_names_that_stand_for_two_categories_have_one_span(tmp_path: Path) -> None:
    document = changed(categories=[{"id": 90, "name": "bow"}, {"id": 13, "name": " bow "}, {"id": 1, "name": "hat"}])
    (record, _), _ = split(source(tmp_path, document).read())
    assert sorted(record.text.split(". ")) == ["", "bow", "hat"]
    assert [region.category_id for region in record.regions] == [13, 90]
    assert record.regions[0].spans == record.regions[1].spans
    assert faults(record) == []


def test_a_category_without_a_name_costs_its_boxes(tmp_path: Path) -> None:
    document = changed(
        categories=[{"id": 90, "name": " "}, {"id": 13, "name": "stop sign"}, {"id": 1, "name": "person"}]
    )
    (record, _), left = split(source(tmp_path, document, crowd="keep").read())
    assert [r.reason for r in left] == ["category_unnamed"] * 2
    assert sorted(record.text.split(". ")) == ["", "person", "stop sign"]
    assert faults(record) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json", r"is not JSON \(line 1, column 1"),
        (b"[]", "is not COCO instances"),
        (b'{"images": [], "annotations": {}, "categories": []}', "is not COCO instances"),
        (b'{"info": {}, "images": []}', "is not COCO instances"),
        (b'{"images": [], "annotations": [], "categories": []}', "empty list of categories"),
        (b'{"images": [], "annotations": [], "categories": [{"name": "a"}]}', r"categories\[0\]"),
        (b'{"images": [], "annotations": [], "categories": [{"id": "1", "name": "a"}]}', r"categories\[0\]"),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": 5}]}',
            r"categories\[1\]",
        ),
        (b'{"images": [], "annotations": [], "categories": ["a"]}', r"categories\[0\]"),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "stands twice",
        ),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    reader = source(tmp_path, content)
    with pytest.raises(FormatError, match=message) as caught:
        list(reader.read())
    assert "instances.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(FormatError, match=message):
        reader.info()


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.json"):
        list(Coco(annotations=str(tmp_path / "none.json"), images=str(tmp_path)).read())


def test_coco_tiny_has_80_records_804_boxes_and_11_crowds(samples: Path) -> None:
    folder = samples / "coco" / "coco_tiny_val"
    annotations = folder / "annotations" / "instances_val2017.json"
    records, left = split(Coco(annotations=str(annotations), images=str(folder / "val2017")).read())
    assert len(records) == 80
    assert sum(len(record.boxes) for record in records) == 804
    assert Counter((r.level, r.kind, r.reason) for r in left) == {("annotation", "policy", "crowd"): 11}
    assert [fault for record in records for fault in faults(record)] == []
    assert from_batch(to_batch(records)) == records
    assert all(record.text.count(". ") == 80 for record in records)


def test_coco_tiny_equals_the_reference_conversion(samples: Path) -> None:
    folder = samples / "coco" / "coco_tiny_val"
    reader = Coco(annotations=str(folder / "annotations" / "instances_val2017.json"), images=str(folder / "val2017"))
    labels = {category.id: rank for rank, category in enumerate(reader.info().categories)}
    found = [
        (
            record.image,
            record.width,
            record.height,
            sorted(
                (b.order, list(b.xyxy), labels[r.category_id or 0], r.phrases[0])
                for r in record.regions
                for b in r.boxes
            ),
        )
        for record in split(reader.read())[0]
    ]
    lines = [json.loads(line) for line in (samples / "odvg" / "coco_tiny_val_od.jsonl").read_text().splitlines()]
    assert len(found) == len(lines)
    for (image, width, height, said), line in zip(found, lines, strict=True):
        assert (image, width, height) == (line["filename"], line["width"], line["height"])
        assert [tuple(row[1:]) for row in said] == [
            (i["bbox"], i["label"], i["category"]) for i in line["detection"]["instances"]
        ]


def test_layouts_of_other_tools_are_read(samples: Path) -> None:
    folder = samples / "formats_misc" / "datumaro" / "coco_dataset" / "coco_instances"
    reader = Coco(annotations=str(folder / "annotations" / "instances_val.json"), images=str(folder / "images" / "val"))
    (record,), (crowd,) = split(reader.read())
    assert (record.image_id, record.width, record.height, record.image) == ("40", 5, 10, "b.jpg")
    assert [(box.xyxy, box.area) for box in record.boxes] == [((0.0, 0.0, 1.0, 2.0), 2.0)]
    assert record.extra["annotations"] == {"0": {"attributes": {"x": 1, "y": "hello"}}}
    assert crowd.reason == "crowd"


def test_any_value_in_any_place_is_a_record_or_a_reject(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    wild: list[Any] = [
        None,
        True,
        -1,
        0,
        1.5,
        2**31,
        2**63,
        1e308,
        "",
        "1",
        "\u0130",
        [],
        [1],
        [["1"]],
        deep,
        {},
        {"a": None},
    ]
    image = {**DOCUMENT["images"][0], "neg_category_ids": [1], "url": "u"}
    annotation = {**DOCUMENT["annotations"][0], "isfake": 0}
    images = [{**image, "id": 1000, **{key: value}} for key in image for value in wild]
    for number, row in enumerate(images, 1000):
        row["id"] = number if row["id"] == 1000 else row["id"]
    annotations = [{**annotation, "image_id": row["id"]} for row in images]
    annotations += [{**annotation, key: value} for key in annotation for value in wild]
    path = tmp_path / "instances.json"
    path.write_bytes(json.dumps(changed(images, annotations)).encode())
    for reader in (Coco, Lvis, V3Det, Objects365):
        records, left = split(reader(annotations=str(path), images="", crowd="keep").read())
        assert len(records) + sum(r.level == "record" for r in left) == len(images) + 2
        boxes = sum(len(record.boxes) for record in records)
        assert boxes + sum(r.level == "annotation" for r in left) == len(annotations) + 4
        assert boxes > len(wild)
        assert [fault for record in records for fault in faults(record)] == []
        assert from_batch(to_batch(records)) == records
        assert rejects.from_batch(rejects.to_batch(left)) == left
