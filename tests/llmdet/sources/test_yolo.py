"""YOLO labels become detection records; bad lines become rejects."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from llmdet import rejects
from llmdet.errors import FormatError, MissingError
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.yolo import Yolo
from llmdet.validate import faults

DATA = "path: .\ntrain: images/train\nval: [images/val]\nnames: {0: pear, 1: leaf, 5: branch}\n"


def folder(tmp_path: Path, labels: dict[str, str], names: str = DATA, size: tuple[int, int] = (200, 100)) -> Path:
    for name, lines in {"train/a": None, **labels}.items():
        picture = tmp_path / "images" / f"{name}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(picture)
        if lines is not None:
            label = tmp_path / "labels" / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(lines.encode("utf-8", "surrogateescape"))
    (tmp_path / "data.yaml").write_text(names)
    return tmp_path


def split(source: Yolo) -> tuple[list[Record], list[Reject]]:
    items = list(source.read())
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert from_batch(to_batch(records)) == records
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    return records, left_out


def read(root: Path, **settings: Any) -> tuple[list[Record], list[Reject]]:
    return split(Yolo(annotations=str(root / "data.yaml"), images=str(root / "images"), **settings))


def test_lines_become_boxes_in_pixels_under_their_names(tmp_path: Path) -> None:
    root = folder(tmp_path, {"val/b": "0 0.5 0.5 0.25 0.5\n\n5 0.25 0.25 0.5 0.5\n0 0.1 0.1 0.1 0.1\n"})
    (empty, record), left_out = read(root)
    assert left_out == []
    assert faults(record) == []
    assert (record.id, record.image, record.width, record.height) == ("yolo/val/b.jpg/0", "val/b.jpg", 200, 100)
    assert (record.kind, record.split, record.exhaustive, record.orientation) == ("detection", "val", True, "applied")
    assert sorted(record.text[:-2].split(". ")) == ["branch", "leaf", "pear"]
    assert {(region.phrases[0], region.category_id) for region in record.regions} == {("pear", 0), ("branch", 5)}
    assert [box.xyxy for box in record.boxes] == [(75, 25, 125, 75), (0, 0, 100, 50), pytest.approx((10, 5, 30, 15))]
    assert [record.text[slice(*span)] for span in record.negatives] == ["leaf"]
    assert (empty.image, empty.split, empty.regions, len(empty.negatives)) == ("train/a.jpg", "train", (), 3)


def test_polygons_keep_their_outline_and_scores_make_boxes_pseudo(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/a": "1 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.5\n0 0.5 0.5 0.25 0.5 0.75\n"})
    (record,), left_out = read(root)
    assert left_out == []
    outline, scored = record.boxes
    assert outline.xyxy == pytest.approx((20, 20, 60, 50))
    assert outline.mask is not None
    assert orjson.loads(outline.mask) == [pytest.approx([20, 20, 60, 20, 60, 40, 20, 50])]
    assert (scored.origin, scored.score, outline.origin, outline.score) == ("pseudo", 0.75, "human", None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.25", "row_malformed"),
        ("0 0.5 0.5 0.25 0.5 0.5 0.5 0.5", "row_malformed"),
        ("0", "row_malformed"),
        ("pear 0.5 0.5 0.25 0.5", "row_malformed"),
        ("0 nan 0.5 0.25 0.5", "row_malformed"),
        ("0 inf 0.5 0.25 0.5", "row_malformed"),
        ("0 1e999 0.5 0.25 0.5", "row_malformed"),
        ("0 0_5 0.5 0.25 0.5", "row_malformed"),
        ("0.5 0.5 0.5 0.25 0.5", "row_malformed"),
        ("-1 0.5 0.5 0.25 0.5", "row_malformed"),
        ("2 0.5 0.5 0.25 0.5", "category_unknown"),
        ("0 0.5 0.5 0 0.5", "box_below_one_pixel"),
        ("0 0.5 0.5 -0.2 0.5", "box_below_one_pixel"),
        ("0 100 60 50 40", "box_outside_image"),
        ("\udcff 0.5", "row_malformed"),
    ],
)
def test_a_bad_line_costs_itself_only(tmp_path: Path, line: str, reason: str) -> None:
    (record,), (reject,) = read(folder(tmp_path, {"train/a": f"{line}\n1 0.5 0.5 0.5 0.5\n"}))
    assert [box.order for box in record.boxes] == [1]
    assert (reject.id, reject.level, reject.kind, reject.reason) == (
        "yolo/train/a.jpg/0#0",
        "annotation",
        "fault",
        reason,
    )


def test_a_class_whose_boxes_were_all_left_out_is_not_said_to_be_absent(tmp_path: Path) -> None:
    lines = {"train/a": "0 100 60 50 40\n1 0.5 0.5 0.5 0.5\n", "train/b": "1 0.5 0.5 0.5 0.5\n"}
    (bad, good), _ = read(folder(tmp_path, lines))
    assert [bad.text[slice(*span)] for span in bad.negatives] == ["branch"]
    assert sorted(good.text[slice(*span)] for span in good.negatives) == ["branch", "pear"]
    assert (bad.exhaustive, good.exhaustive) == (False, True)


def test_pictures_that_cannot_be_opened_and_labels_without_picture_are_rejects(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/b": "0 0.5 0.5 0.25 0.5"})
    (root / "images" / "train" / "b.jpg").write_bytes(b"no picture")
    (root / "labels" / "train" / "gone.txt").write_text("0 0.5 0.5 0.25 0.5")
    records, left_out = read(root)
    assert [record.image for record in records] == ["train/a.jpg"]
    assert [(reject.id, reject.reason, reject.level) for reject in left_out] == [
        ("yolo/train/b.jpg/0", "image_unreadable", "record"),
        ("yolo/train/gone.txt", "image_missing", "record"),
    ]


def test_a_turned_photo_has_the_size_that_viewers_show(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/a": "0 0.5 0.5 0.5 0.5"})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(root / "images" / "train" / "a.jpg", exif=exif)
    (record,), _ = read(root)
    assert (record.width, record.height) == (100, 200)
    assert record.boxes[0].xyxy == (25, 50, 75, 150)


@pytest.mark.parametrize("place", ["beside", "labels", "elsewhere"])
def test_labels_are_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    root = folder(tmp_path, {})
    where = {"beside": root / "images", "labels": root / "labels", "elsewhere": root / "my"}[place] / "train"
    where.mkdir(parents=True, exist_ok=True)
    (where / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    (record,), left_out = read(root, labels=str(root / "my") if place == "elsewhere" else "")
    assert (len(record.boxes), left_out) == (1, [])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("data.yaml", "names: [pear, leaf]\n"),
        ("data.yaml", "names: {1: leaf, 0: pear}"),
        ("classes.txt", "pear\nleaf\n\n"),
    ],
)
def test_names_come_from_yaml_or_a_list(tmp_path: Path, file: str, content: str) -> None:
    root = folder(tmp_path, {})
    (root / "data.yaml").unlink()
    (root / file).write_text(content)
    info = Yolo(annotations=str(root), images=str(root / "images")).info()
    assert [(category.id, category.name) for category in info.categories] == [(0, "pear"), (1, "leaf")]


@pytest.mark.parametrize(
    "content",
    ["names: [", "[1, 2]", "train: x", "names: {a: pear}", "names: [pear, '']", "names: [yes]", "names: [[a]]", "\0"],
)
def test_names_that_cannot_be_read_are_one_clear_line(tmp_path: Path, content: str) -> None:
    root = folder(tmp_path, {}, names=content)
    with pytest.raises(FormatError, match=r"data\.yaml"):
        Yolo(annotations=str(root / "data.yaml"), images=str(root / "images")).info()


def test_missing_names_and_pictures_are_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"classes\.txt"):
        Yolo(annotations=str(tmp_path), images=str(tmp_path)).info()
    (tmp_path / "classes.txt").write_text("pear")
    with pytest.raises(MissingError, match="none"):
        list(Yolo(annotations=str(tmp_path), images=str(tmp_path / "none")).read())
