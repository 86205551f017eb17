"""Pascal VOC's XML becomes detection records; bad objects become rejects."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmdet import rejects
from llmdet.errors import FormatError, MissingError
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.voc import Voc
from llmdet.validate import faults

SIZE = "<size><width>200</width><height>100</height><depth>3</depth></size>"


def thing(name: str, *sides: Any, more: str = "") -> str:
    tags = zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=False)
    return f"<object><name>{name}</name>{more}<bndbox>{''.join(f'<{t}>{v}</{t}>' for t, v in tags)}</bndbox></object>"


HORSE = thing("horse", 11, 21, 60, 80, more="<pose>Left</pose><truncated>0</truncated><difficult>1</difficult>")


def write(root: Path, stem: str, body: str, picture: str | None = None, head: str = "") -> None:
    path = root / "Annotations" / f"{stem}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}<annotation><filename>{picture or stem + '.jpg'}</filename>{body}</annotation>")
    image = root / "JPEGImages" / f"{stem}.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 100)).save(image)


def read(root: Path, **settings: Any) -> tuple[list[Record], list[Reject]]:
    items = list(Voc(annotations=str(root), images=str(root / "JPEGImages"), **settings).read())
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert from_batch(to_batch(records)) == records
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    return records, left_out


def test_objects_become_boxes_under_their_names(tmp_path: Path) -> None:
    write(tmp_path, "2008_000002", SIZE + thing("dog", 1, 1, 200, 100) + HORSE + thing("dog", "5.5", 5, 9, 9))
    write(tmp_path, "2008_000001", SIZE + thing("cat", 1, 2, 30, 40))
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2008_000002\n")
    (lists / "val.txt").write_text("2008_000001\n")
    (first, record), left_out = read(tmp_path)
    assert left_out == []
    assert faults(record) == []
    assert (first.image_id, first.split, record.split) == ("2008_000001", "val", "train")
    assert (record.id, record.image, record.width, record.height) == ("voc/2008_000002/0", "2008_000002.jpg", 200, 100)
    assert [box.xyxy for box in record.boxes] == [(0, 0, 200, 100), (10, 20, 60, 80), (4.5, 4, 9, 9)]
    assert {(region.phrases[0], region.category_id) for region in record.regions} == {("dog", 1), ("horse", 2)}
    assert [record.text[slice(*span)] for span in record.negatives] == ["cat"]
    assert record.extra == {"objects": {"1": {"pose": "Left", "truncated": "0", "difficult": "1"}}}


def test_pixels_that_are_counted_from_0_are_kept(tmp_path: Path) -> None:
    write(tmp_path, "a", SIZE + HORSE)
    (record,), _ = read(tmp_path, first_pixel=0)
    assert record.boxes[0].xyxy == (11, 21, 60, 80)


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size/>"])
def test_a_size_that_the_file_does_not_know_comes_from_the_picture(tmp_path: Path, size: str) -> None:
    write(tmp_path, "a", size + HORSE)
    (record,), left_out = read(tmp_path)
    assert (record.width, record.height, left_out) == (200, 100, [])


@pytest.mark.parametrize("filename", ["a.png", "a", "C:\\photos\\a.jpg", "other/a.JPEG"])
def test_a_picture_is_found_under_the_name_of_its_file(tmp_path: Path, filename: str) -> None:
    write(tmp_path, "a", SIZE + HORSE, picture=filename)
    (record,), _ = read(tmp_path)
    assert record.image == "a.jpg"


def test_names_come_from_a_file_where_one_is_given(tmp_path: Path) -> None:
    write(tmp_path, "a", SIZE + HORSE + thing("dog", 1, 1, 50, 50))
    (tmp_path / "names.txt").write_text("zebra\nhorse\n")
    source = Voc(annotations=str(tmp_path), images=str(tmp_path / "JPEGImages"), classes=str(tmp_path / "names.txt"))
    assert [(category.id, category.name) for category in source.info().categories] == [(0, "zebra"), (1, "horse")]
    record, left_out = read(tmp_path, classes=str(tmp_path / "names.txt"))
    assert [region.category_id for region in record[0].regions] == [1]
    assert [reject.reason for reject in left_out] == ["category_unknown"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (thing("cat", 1, 2, 3), "box_malformed"),
        (thing("cat", "one", 2, 30, 40), "box_malformed"),
        (thing("cat", "nan", 2, 30, 40), "box_malformed"),
        (thing("cat", "1e999", 2, 30, 40), "box_malformed"),
        ("<object><name>cat</name></object>", "box_malformed"),
        ("<object><bndbox/></object>", "category_unknown"),
        (thing("cat", 30, 2, 10, 40), "box_below_one_pixel"),
        (thing("cat", 300, 2, 400, 40), "box_outside_image"),
    ],
)
def test_a_bad_object_costs_itself_only(tmp_path: Path, body: str, reason: str) -> None:
    write(tmp_path, "a", SIZE + body + HORSE)
    (record,), (reject,) = read(tmp_path)
    assert [box.order for box in record.boxes] == [1]
    assert (reject.id, reject.level, reject.reason) == ("voc/a/0#0", "annotation", reason)


def test_a_name_whose_boxes_were_all_left_out_is_not_said_to_be_absent(tmp_path: Path) -> None:
    write(tmp_path, "a", SIZE + thing("cat", 300, 2, 400, 40) + HORSE)
    write(tmp_path, "b", SIZE + HORSE + thing("dog", 1, 2, 30, 40))
    (bad, good), _ = read(tmp_path)
    assert [bad.text[slice(*span)] for span in bad.negatives] == ["dog"]
    assert [good.text[slice(*span)] for span in good.negatives] == ["cat"]
    assert (bad.exhaustive, good.exhaustive) == (False, True)


BOMB = "<!DOCTYPE lolz [<!ENTITY a 'ha'>" + "".join(f"<!ENTITY a{i} '{'&a;' * 10}'>" for i in range(3)) + "]>"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "row_malformed"),
        (b"<annotation>", "row_malformed"),
        (b"<html></html>", "row_malformed"),
        (BOMB.encode() + b"<annotation>&a2;</annotation>", "row_malformed"),
        ((BOMB + "<annotation>&a2;</annotation>").encode("utf-16"), "row_malformed"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "row_malformed"),
        (b"<annotation>\xff</annotation>", "row_malformed"),
        (b"<annotation><size><width>many</width><height>1</height></size></annotation>", "row_malformed"),
        (b"<annotation><size><width>-5</width><height>1</height></size></annotation>", "row_malformed"),
        (b"<annotation><size><width>5.5</width><height>1</height></size></annotation>", "row_malformed"),
        (b"<annotation><filename>../../x.jpg</filename></annotation>", "path_outside_root"),
        (b"<annotation><filename>gone.jpg</filename></annotation>", "image_missing"),
    ],
)
def test_a_bad_file_is_a_reject_and_the_rest_is_read(tmp_path: Path, content: bytes, reason: str) -> None:
    write(tmp_path, "good", SIZE + HORSE)
    (tmp_path / "Annotations" / "bad.xml").write_bytes(content)
    (record,), (reject,) = read(tmp_path)
    assert record.image_id == "good"
    assert (reject.id, reject.level, reject.kind, reject.reason) == ("voc/bad.xml", "record", "fault", reason)


def test_a_folder_without_xml_and_a_missing_one_are_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no \.xml"):
        Voc(annotations=str(tmp_path), images=str(tmp_path)).info()
    with pytest.raises(MissingError):
        Voc(annotations=str(tmp_path / "none"), images=str(tmp_path)).info()
