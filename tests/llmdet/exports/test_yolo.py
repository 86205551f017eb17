from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given

from llmdet.errors import FormatError
from llmdet.exports.yolo import Yolo
from llmdet.record import Box, Record, Region, to_batch
from llmdet.sources.source import SourceInfo
from tests.llmdet.example_records import FULL, PETS, few, records


def test_layout_is_the_one_that_ultralytics_reads(tmp_path: Path) -> None:
    (tmp_path / "pets/a").mkdir(parents=True)
    (tmp_path / "pets/a/12.jpg").write_bytes(b"jpeg")
    sources = {"pets": SourceInfo("pets", "coco", "", "", str(tmp_path / "pets"), PETS.categories)}
    out = tmp_path / "out"
    outcome = Yolo(images="copy").write([to_batch([FULL])], str(out), sources)
    assert outcome.files == ("data.yaml", "labels/", "images/")
    assert (out / "images/train/pets/a/12.jpg").read_bytes() == b"jpeg"
    assert (out / "labels/train/pets/a/12.txt").read_text() == (
        "1 0.0625 0.5375 0.025 0.925\n"
        "0 0.2505 0.37625 0.499 0.7475\n"
        "1 0.15875 0.2625 0.2875 0.475\n"
    )  # fmt: skip
    assert yaml.safe_load((out / "data.yaml").read_text()) == {
        "train": "images/train",
        "val": "images/train",
        "names": {0: "cat", 1: "dog", 2: "tv"},
    }


def test_each_split_has_its_folder(tmp_path: Path) -> None:
    val = replace(FULL, id="pets/13/0", image_id="13", image="13.jpg", split="val")
    Yolo().write([to_batch([FULL, val])], str(tmp_path), {"pets": PETS})
    found = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert (found["train"], found["val"]) == ("images/train", "images/val")
    assert (tmp_path / "labels/val/pets/13.txt").exists()
    assert not (tmp_path / "images").exists()


def test_boxes_are_cut_to_the_picture_and_crowds_left_out(tmp_path: Path) -> None:
    boxes = (Box((-5.0, 5.0, 5.0, 30.0)), Box((0.0, 0.0, 9.0, 9.0), 1, crowd=True))
    record = Record(
        "p/1/0",
        "pets",
        "1",
        "0",
        "detection",
        "1.jpg",
        "pets",
        10,
        20,
        "dog. ",
        (Region(("dog",), ((0, 3),), boxes, 7),),
    )
    outcome = Yolo().write([to_batch([record])], str(tmp_path), {"pets": PETS})
    assert (tmp_path / "labels/train/pets/1.txt").read_text() == "1 0.25 0.625 0.5 0.75\n"
    assert (outcome.boxes, outcome.lost) == (1, {"boxes cut to the picture": 1, "crowd boxes": 1})


def test_second_text_of_a_picture_adds_its_boxes_and_a_second_export_does_not(tmp_path: Path) -> None:
    again = replace(FULL, id="pets/12/1", text_id="1")
    for _ in range(2):
        Yolo().write([to_batch([FULL, again])], str(tmp_path), {"pets": PETS})
        assert len((tmp_path / "labels/train/pets/a/12.txt").read_text().splitlines()) == 6


def test_labels_are_where_ultralytics_looks_for_them(tmp_path: Path) -> None:
    """It takes a picture's path, puts labels for the last folder called images, and .txt for the suffix."""
    (tmp_path / "v3det/images/n01").mkdir(parents=True)
    (tmp_path / "v3det/images/n01/x.jpg").write_bytes(b"jpeg")
    record = replace(FULL, image="images/n01/x.jpg")
    sources = {"pets": SourceInfo("pets", "coco", "", "", str(tmp_path / "v3det"), PETS.categories)}
    Yolo(images="link").write([to_batch([record])], str(tmp_path / "out"), sources)
    (picture,) = (tmp_path / "out/images/train").rglob("*.jpg")
    before, after = str(picture).rsplit("/images/", 1)
    assert len(Path(f"{before}/labels/{after}").with_suffix(".txt").read_text().splitlines()) == 3


def test_picture_without_boxes_has_an_empty_file(tmp_path: Path) -> None:
    Yolo().write([to_batch([replace(FULL, regions=())])], str(tmp_path), {"pets": PETS})
    assert (tmp_path / "labels/train/pets/a/12.txt").read_bytes() == b""


def test_two_pictures_that_would_share_a_label_file_are_refused(tmp_path: Path) -> None:
    png = replace(FULL, id="pets/13/0", image_id="13", image="a/12.png")
    with pytest.raises(FormatError, match=r"a/12\.jpg and .*a/12\.png"):
        Yolo().write([to_batch([FULL, png])], str(tmp_path), {"pets": PETS})


@few
@given(record=records("detection"))
def test_lines_give_back_the_visible_part_of_each_box(tmp_path: Path, record: Record) -> None:
    Yolo().write([to_batch([record])], str(tmp_path), {"pets": PETS})
    name = f"labels/{record.split or 'train'}/pets/{record.image_id}.txt"
    lines = [[float(part) for part in line.split()] for line in (tmp_path / name).read_text().splitlines()]
    boxes = [box for box in record.boxes if not box.crowd]
    for line, box in zip(lines, boxes, strict=True):
        _, x, y, w, h = line
        x1, y1, x2, y2 = box.xyxy
        got = (
            (x - w / 2) * record.width,
            (y - h / 2) * record.height,
            (x + w / 2) * record.width,
            (y + h / 2) * record.height,
        )
        limit = (record.width, record.height) * 2
        if x1 < record.width and y1 < record.height and x2 > 0 and y2 > 0:  # at least a part is visible
            assert got == pytest.approx((max(x1, 0), max(y1, 0), min(x2, limit[0]), min(y2, limit[1])), abs=1e-5)
            assert all(0 <= value <= 1 for value in line[1:])
