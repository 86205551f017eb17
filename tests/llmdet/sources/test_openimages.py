"""OpenImages: fractions to pixels, photos opened for their size, groups, rows that come too late."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmdet.errors import FormatError, MissingError
from llmdet.record import Box, Record, Region, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.openimages import LICENCE, OpenImages
from llmdet.validate import faults

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
CLASSES = '/m/01g317,Person\n/m/0hsrw,"Snow, fallen"\n/m/0k4j,Car\n'
DOG = "000a,xclick,/m/01g317,1,0.25,0.75,0.1,0.5,0,1,0,0,0"


def reader(folder: Path, *lines: str, header: str = HEADER, **fields: Any) -> OpenImages:
    for name in ("000a", "000b"):
        Image.new("RGB", (80, 40)).save(folder / f"{name}.jpg")
    if not (folder / "class-descriptions-boxable.csv").exists():
        (folder / "class-descriptions-boxable.csv").write_text(CLASSES)
    (folder / "boxes.csv").write_bytes("\n".join([header, *lines, ""]).encode("utf-8", "surrogateescape"))
    return OpenImages(annotations=str(folder / "boxes.csv"), images=str(folder), **fields)


def split(source: OpenImages) -> tuple[list[Record], list[Reject]]:
    items = list(source.read())
    records = [i for i in items if isinstance(i, Record)]
    assert from_batch(to_batch(records)) == records
    assert [fault for record in records for fault in faults(record)] == []
    return records, [i for i in items if isinstance(i, Reject)]


def test_rows_of_a_photo_become_one_record_in_pixels(tmp_path: Path) -> None:
    lines = [
        DOG,
        "000a,activemil,/m/01g317,1,0,1,0,1,0,0,0,1,0",
        "000b,xclick,/m/0hsrw,1,0.5,0.625,0.5,1,-1,-1,-1,-1,-1",
    ]
    (first, second), left = split(reader(tmp_path, *lines))
    assert left == []
    assert (first.id, first.image, first.width, first.height, first.text) == (
        "openimages/000a/0",
        "000a.jpg",
        80,
        40,
        "Person. ",
    )
    assert first.regions == (
        Region(("Person",), ((0, 6),), (Box((20.0, 4.0, 60.0, 20.0), 0), Box((0.0, 0.0, 80.0, 40.0), 1)), 1),
    )
    assert first.extra["annotations"]["1"] == {
        "Source": "activemil",
        "Confidence": "1",
        "IsOccluded": "0",
        "IsTruncated": "0",
        "IsGroupOf": "0",
        "IsDepiction": "1",
        "IsInside": "0",
    }
    assert (second.text, second.regions[0].category_id, second.regions[0].boxes[0].xyxy) == (
        "Snow, fallen. ",
        2,
        (40.0, 20.0, 50.0, 40.0),
    )
    assert (first.negatives, first.exhaustive, first.licence) == ((), False, LICENCE)


def test_groups_are_left_out_or_kept_as_crowds(tmp_path: Path) -> None:
    group = "000a,xclick,/m/0k4j,1,0.25,0.75,0.1,0.5,0,1,1,0,0"
    (record,), (left,) = split(reader(tmp_path, DOG, group))
    assert (left.id, left.level, left.kind, left.reason) == ("openimages/000a/0#1", "annotation", "policy", "group_of")
    assert record.text == "Person. "
    (record,), none = split(reader(tmp_path, DOG, group, group="keep"))
    assert none == []
    assert [(box.order, box.crowd) for box in record.boxes] == [(0, False), (1, True)]


def test_depictions_are_left_out_on_demand(tmp_path: Path) -> None:
    line = "000a,xclick,/m/0k4j,1,0.25,0.75,0.1,0.5,0,1,0,1,0"
    (record,), (left,) = split(reader(tmp_path, line, depiction="drop"))
    assert (left.kind, left.reason, record.regions) == ("policy", "depiction", ())


def test_drawn_names_are_not_said_to_be_absent(tmp_path: Path) -> None:
    (record,), _ = split(reader(tmp_path, DOG, negatives="all"))
    assert sorted(record.text.split(". ")) == ["", "Car", "Person", "Snow, fallen"]
    assert record.negatives == ()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("000a,xclick,/m/01g317,1,0.25,0.75,0.1", "row_malformed"),
        ("000a,xclick,/m/01g317,1,0.25,0.75,0.1,0.5,0,1,0,0,0,9,9", "row_malformed"),
        ("000a", "row_malformed"),
        ("\udcff\udcfe", "row_malformed"),
        (",xclick,/m/01g317,1,0.25,0.75,0.1,0.5,0,1,0,0,0", "row_malformed"),
        ("000a," + "x" * 140_000 + ",/m/01g317,1,0.25,0.75,0.1,0.5,0,1,0,0,0", "row_malformed"),
        ("000a,xclick,/m/none,1,0.25,0.75,0.1,0.5,0,1,0,0,0", "category_unknown"),
        ("000a,xclick,/m/01g317,1,left,0.75,0.1,0.5,0,1,0,0,0", "box_malformed"),
        ("000a,xclick,/m/01g317,1,,0.75,0.1,0.5,0,1,0,0,0", "box_malformed"),
        ("000a,xclick,/m/01g317,1,nan,0.75,0.1,0.5,0,1,0,0,0", "box_malformed"),
        ("000a,xclick,/m/01g317,1,20,60,4,20,0,1,0,0,0", "box_malformed"),
        ("000a,xclick,/m/01g317,1,0.25,0.26,0.1,0.5,0,1,0,0,0", "box_below_one_pixel"),
        ("000a,xclick,/m/01g317,1,0.75,0.25,0.1,0.5,0,1,0,0,0", "box_below_one_pixel"),
        ("000a,xclick,/m/01g317,1,1.25,1.5,0.1,0.5,0,1,0,0,0", "box_outside_image"),
        ('000a,"xclick,/m/none,1,0.25,0.75,0.1,0.5,0,1,0,0,0', "category_unknown"),
    ],
)
def test_a_bad_row_costs_that_row_only(tmp_path: Path, line: str, reason: str) -> None:
    records, left = split(reader(tmp_path, DOG, line, DOG))
    assert [(r.level, r.kind, r.reason) for r in left] == [("annotation", "fault", reason)]
    assert "line 3" in left[0].detail
    assert [box.order for record in records for box in record.boxes] == [0, 2]


def test_a_bad_first_row_is_told_and_the_rest_read(tmp_path: Path) -> None:
    records, left = split(reader(tmp_path, "x,y", DOG))
    assert [(r.level, r.reason) for r in left] == [("annotation", "row_malformed")]
    assert len(records) == 1


def test_a_photo_that_comes_again_is_too_late(tmp_path: Path) -> None:
    records, left = split(reader(tmp_path, DOG, DOG.replace("000a", "000b"), DOG, DOG))
    assert [record.image_id for record in records] == ["000a", "000b"]
    assert [(r.id, r.reason) for r in left] == [(f"openimages/000a/0#line{n}", "rows_not_adjacent") for n in (4, 5)]


@pytest.mark.parametrize(
    ("photo", "reason"), [("none", "image_missing"), ("../x", "path_outside_root"), ("empty", "image_empty")]
)
def test_a_photo_that_cannot_be_opened_costs_its_record(tmp_path: Path, photo: str, reason: str) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    records, left = split(reader(tmp_path, DOG.replace("000a", photo), DOG))
    assert [(r.id, r.level, r.kind, r.reason) for r in left] == [(f"openimages/{photo}/0", "record", "fault", reason)]
    assert len(records) == 1


def test_classes_keep_their_label_names(tmp_path: Path) -> None:
    (tmp_path / "class-descriptions-boxable.csv").write_text("LabelName,DisplayName\n" + CLASSES)
    found = reader(tmp_path, DOG).info().categories
    assert [(c.id, c.name, c.extra) for c in found] == [
        (1, "Person", {"label_name": "/m/01g317"}),
        (2, "Snow, fallen", {"label_name": "/m/0hsrw"}),
        (3, "Car", {"label_name": "/m/0k4j"}),
    ]


@pytest.mark.parametrize("classes", ["", "LabelName,DisplayName\n", "/m/1\n", "/m/1,\n", "/m/1,a,b\n"])
def test_classes_without_names_are_refused(tmp_path: Path, classes: str) -> None:
    (tmp_path / "class-descriptions-boxable.csv").write_text(classes)
    with pytest.raises(FormatError, match="class-descriptions-boxable"):
        list(reader(tmp_path, DOG).read())


def test_files_that_are_missing_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not OpenImages' csv of boxes"):
        list(reader(tmp_path, DOG, header="ImageID,Source,LabelName,Confidence").read())
    with pytest.raises(FormatError, match="is not OpenImages' csv of boxes"):
        list(reader(tmp_path, header='{"images": []}').read())
    with pytest.raises(MissingError, match=r"none\.csv"):
        list(reader(tmp_path, DOG, classes=str(tmp_path / "none.csv")).read())
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(MissingError, match="no list of classes beside"):
        list(OpenImages(annotations=str(tmp_path / "boxes.csv"), images="").read())


def test_a_real_layout_finds_its_classes_and_its_group(samples: Path, tmp_path: Path) -> None:
    annotations = samples / "formats_misc" / "datumaro" / "open_images_dataset" / "v6" / "annotations"
    for name in ("b", "c"):  # the photos of the fixture have a few pixels only
        Image.new("RGB", (50, 20)).save(tmp_path / f"{name}.jpg")
    test = OpenImages(annotations=str(annotations / "test-annotations-bbox.csv"), images=str(tmp_path))
    (record,), (left,) = split(test)
    assert (record.image, record.regions) == ("c.jpg", ())
    assert (left.kind, left.reason) == ("policy", "group_of")
    (record,), _ = split(OpenImages(annotations=test.annotations, images=test.images, group="keep"))
    assert (record.text, record.boxes[0].xyxy) == ("Generic label #3. ", pytest.approx((35, 0, 40, 10)))
    train = OpenImages(annotations=str(annotations / "oidv6-train-annotations-bbox.csv"), images=str(tmp_path))
    (record,), none = split(train)
    assert none == []
    assert (record.text, record.boxes[0].xyxy) == ("Generic label #0. ", pytest.approx((10, 6, 50, 10)))
    assert [c.name for c in train.info().categories] == [f"Generic label #{number}" for number in range(4)]


def test_a_photo_of_the_fixture_is_opened_for_its_size(samples: Path) -> None:
    folder = samples / "formats_misc" / "datumaro" / "open_images_dataset" / "v6"
    train = folder / "annotations" / "oidv6-train-annotations-bbox.csv"
    (record,), left = split(OpenImages(annotations=str(train), images=str(folder / "images" / "train")))
    assert (record.width, record.height) == (8, 2)  # as images.meta of the fixture says: b 2 8
    assert [r.reason for r in left] == ["box_below_one_pixel"]
