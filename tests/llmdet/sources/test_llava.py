"""LLaVA's json, jsonl and parquet become records with captions; rows without a picture become rejects."""

import io
import json
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llmdet import rejects
from llmdet.errors import FormatError, MissingError
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.llava import Llava
from llmdet.validate import faults


def turns(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": value} for index, value in enumerate(said)]


def row(**values: Any) -> dict[str, Any]:
    plain = {
        "id": "003218840",
        "image": "00321/003218840.jpg",
        "conversations": turns("Describe it.\n<image>", "a wooden chair"),
    }
    return {**plain, **values}


def read(tmp_path: Path, *rows: Any, **settings: Any) -> tuple[list[Record], list[Reject]]:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))  # unlike orjson, it lets half surrogate pairs and NaN through
    return split(Llava(annotations=str(path), images=str(tmp_path), **settings))


def split(source: Llava) -> tuple[list[Record], list[Reject]]:
    items = list(source.read())
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert from_batch(to_batch(records)) == records
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    return records, left_out


def picture(width: int = 64, height: int = 48, kind: str = "JPEG", colour: str = "red") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(data, kind)
    return data.getvalue()


def test_an_answer_is_the_caption_and_the_question_is_kept(tmp_path: Path) -> None:
    (record,), left_out = read(tmp_path, row())
    assert left_out == []
    assert (record.id, record.image_id, record.image) == ("llava/003218840/0", "003218840", "00321/003218840.jpg")
    assert [(caption.text, caption.raw) for caption in record.captions] == [("a wooden chair", "a wooden chair")]
    assert record.captions[0].provenance.origin == "source"
    assert (record.text, record.regions, record.width, record.height) == ("", (), 0, 0)
    assert record.extra == {"human": "Describe it.\n<image>"}


def test_both_places_of_the_image_token_are_kept_as_they_came(tmp_path: Path) -> None:
    records, _ = read(tmp_path, row(), row(conversations=turns("<image>\nDescribe it.", "a chair")))
    assert [record.extra["human"] for record in records] == ["Describe it.\n<image>", "<image>\nDescribe it."]


def test_several_turns_give_the_first_answer_and_stay_together(tmp_path: Path) -> None:
    said = turns("<image>\nWhat?", "A chair.", "Which colour?", "Red.")
    (record,), _ = read(tmp_path, row(conversations=said))
    assert [caption.text for caption in record.captions] == ["A chair."]
    assert record.extra == {"human": "<image>\nWhat?", "conversations": said}


def test_an_id_may_be_a_number_or_stand_twice(tmp_path: Path) -> None:
    records, _ = read(tmp_path, row(id=17), row(id=17), row(id=None, dataset="x"))
    assert [record.id for record in records] == ["llava/17/0", "llava/17/1", "llava/00321/003218840.jpg/2"]
    assert records[0].extra["id"] == 17
    assert records[2].extra["dataset"] == "x"


@pytest.mark.parametrize(
    ("values", "reason", "kind"),
    [
        ({"image": None}, "no_image", "policy"),
        ({"image": ""}, "no_image", "policy"),
        ({"image": ["a.jpg", "b.jpg"]}, "several_images", "policy"),
        ({"image": 5}, "row_malformed", "fault"),
        ({"image": "\ud800.jpg"}, "text_not_unicode", "fault"),
        ({"conversations": turns("only a question")}, "caption_missing", "policy"),
        ({"conversations": turns("?", "  ")}, "caption_empty", "policy"),
        ({"conversations": "a chair"}, "conversation_malformed", "fault"),
        ({"conversations": [["human", "gpt"]]}, "conversation_malformed", "fault"),
        ({"conversations": [{"from": "gpt"}]}, "conversation_malformed", "fault"),
        ({"conversations": turns("?", "half \udc80")}, "text_not_unicode", "fault"),
        ({"conversations": turns("?", "a", "\ud800", "b")}, "text_not_unicode", "fault"),
        ({"id": 1.5}, "row_malformed", "fault"),
        ({"id": ""}, "row_malformed", "fault"),
        ({"id": [1]}, "row_malformed", "fault"),
        ({"id": 10**40}, "row_malformed", "fault"),
        ({"more": {"deep": "\ud800"}}, "row_malformed", "fault"),
        ({"instances": {}}, "row_malformed", "fault"),
        ({"captions": "a chair"}, "row_malformed", "fault"),
    ],
)
def test_a_bad_row_is_a_reject_and_the_rest_is_read(tmp_path: Path, values: Any, reason: str, kind: str) -> None:
    records, (reject,) = read(tmp_path, row(), row(**values), row())
    assert [record.text_id for record in records] == ["0", "2"]
    assert (reject.id, reject.level, reject.kind, reject.reason) == ("llava/rows.json:1", "record", kind, reason)


def test_rows_that_are_no_objects_are_rejects(tmp_path: Path) -> None:
    records, left_out = read(tmp_path, row(), None, [], "text", 4)
    assert len(records) == 1
    assert [reject.reason for reject in left_out] == ["row_malformed"] * 4


def boxed(*instances: Any) -> dict[str, Any]:
    return {"id": "17714", "image": "soup.jpg", "captions": ["A bowl.", "Soup."], "instances": list(instances)}


def test_captions_with_boxes_are_detection_in_pixels(tmp_path: Path) -> None:
    (tmp_path / "soup.jpg").write_bytes(picture(640, 400))
    items = boxed(
        {"category": "bowl", "bbox": [0.125, 0.05, 0.975, 0.8]},
        {"category": "spoon", "bbox": [0.0, 0.5, 0.25, 1.0]},
        {"category": "bowl", "bbox": [0.5, 0.5, 0.75, 0.75]},
    )
    (record,), left_out = read(tmp_path, items)
    assert left_out == []
    assert faults(record) == []
    assert (record.kind, record.width, record.height, record.negatives) == ("detection", 640, 400, ())
    assert sorted(record.text[:-2].split(". ")) == ["bowl", "spoon"]
    assert [box.xyxy for box in record.boxes] == [
        (80.0, 20.0, 624.0, 320.0),
        (0.0, 200.0, 160.0, 400.0),
        (320.0, 200.0, 480.0, 300.0),
    ]
    assert [caption.text for caption in record.captions] == ["A bowl.", "Soup."]


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ({"category": "bowl", "bbox": ["0.1", 0.1, 0.5, 0.5]}, "box_malformed"),
        ({"category": "bowl", "bbox": [0.1, 0.1, 0.5, float("nan")]}, "box_malformed"),
        ({"category": "bowl", "bbox": [0.1, 0.1, 0.5, 10**400]}, "box_malformed"),
        ({"category": "bowl", "bbox": [0.1, 0.1, 0.1, 0.5]}, "box_below_one_pixel"),
        ({"category": "bowl", "bbox": [1.1, 0.1, 1.5, 0.5]}, "box_outside_image"),
        ({"category": "bowl"}, "box_malformed"),
        ({"category": "", "bbox": [0.1, 0.1, 0.5, 0.5]}, "row_malformed"),
        ({"category": None, "bbox": [0.1, 0.1, 0.5, 0.5]}, "row_malformed"),
        ([0.1, 0.1, 0.5, 0.5], "row_malformed"),
    ],
)
def test_a_bad_instance_costs_itself_only(tmp_path: Path, instance: Any, reason: str) -> None:
    (tmp_path / "soup.jpg").write_bytes(picture())
    (record,), (reject,) = read(tmp_path, boxed(instance, {"category": "cup", "bbox": [0, 0, 1, 1]}))
    assert [box.order for box in record.boxes] == [1]
    assert (reject.id, reject.level, reject.reason) == ("llava/17714/0#0", "annotation", reason)


@pytest.mark.parametrize(("image", "reason"), [("none.jpg", "image_missing"), ("../a.jpg", "path_outside_root")])
def test_boxes_of_a_picture_that_is_not_there_are_a_reject(tmp_path: Path, image: str, reason: str) -> None:
    records, (reject,) = read(tmp_path, {**boxed({"category": "cup", "bbox": [0, 0, 1, 1]}), "image": image})
    assert records == []
    assert (reject.level, reject.kind, reject.reason) == ("record", "fault", reason)


def table(tmp_path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Llava:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "train-00000.parquet")
    return Llava(annotations=str(tmp_path / "train-00000.parquet"), images=str(tmp_path / "images"))


def test_embedded_pictures_are_written_once_under_their_id(tmp_path: Path) -> None:
    rows = [
        row(image={"bytes": picture(), "path": None}, data_source="blip558k"),
        row(id="12", image={"bytes": picture(kind="PNG"), "path": "x.png"}, data_source="blip558k"),
        row(image={"bytes": picture(colour="blue"), "path": None}, data_source="blip558k"),
    ]
    source = table(tmp_path, rows)
    records, left_out = split(source)
    assert left_out == []
    assert [record.image for record in records[:2]] == ["00321/003218840.jpg", "12.png"]
    assert records[2].image.startswith("00321/003218840-"), "another picture under the same id keeps its own file"
    for record, given in zip(records, rows, strict=True):
        assert (tmp_path / "images" / record.image).read_bytes() == given["image"]["bytes"]
    assert records[0].extra["data_source"] == "blip558k"
    assert split(source)[0] == records, "reading again changes nothing"
    assert len(list((tmp_path / "images").rglob("*.*"))) == 3


def test_parquet_rows_without_a_picture_take_the_folder_of_their_id(tmp_path: Path) -> None:
    bare = {key: value for key, value in row().items() if key != "image"}
    (record,), _ = split(table(tmp_path, [bare]))
    assert record.image == "00321/003218840.jpg"


def test_an_embedded_picture_cannot_leave_the_folder(tmp_path: Path) -> None:
    records, (reject,) = split(table(tmp_path, [row(id="../../../evil", image={"bytes": picture(), "path": None})]))
    assert records == []
    assert reject.reason == "path_outside_root"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "train-00000.parquet"]


def test_text_that_is_no_utf8_in_parquet_costs_its_row_only(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    ids = pa.concat_arrays([pa.array(["1"]), bad, pa.array(["3"])])
    columns = {"id": ids, "conversations": pa.array([row()["conversations"]] * 3), "image": pa.array(["a.jpg"] * 3)}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    records, (reject,) = split(Llava(annotations=str(tmp_path / "x.parquet"), images=""))
    assert [record.image_id for record in records] == ["1", "3"]
    assert (reject.id, reject.reason) == ("llava/x.parquet:1", "row_malformed")


def test_json_lines_are_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps(row()) + b"\n{broken\n" + orjson.dumps(row()) + b"\n")
    records, (reject,) = split(Llava(annotations=str(tmp_path / "rows.jsonl"), images=""))
    assert [record.text_id for record in records] == ["1", "3"]
    assert reject.reason == "line_malformed"


@pytest.mark.parametrize(("name", "content"), [("x.json", b'{"a": 1}'), ("x.json", b"<html>"), ("x.parquet", b"PAR1")])
def test_a_file_of_another_format_is_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    for act in (lambda source: list(source.read()), lambda source: source.info()):
        with pytest.raises(FormatError, match=name):
            act(Llava(annotations=str(tmp_path / name), images=""))
    with pytest.raises(MissingError):
        Llava(annotations=str(tmp_path / "none.json"), images="").info()


def test_published_pretraining_rows(samples: Path) -> None:
    source = Llava(annotations=str(samples / "quoted_rows" / "llava_pretrain_rows.json"), images="")
    records, left_out = split(source)
    assert left_out == []
    assert [record.image for record in records] == ["00453/004539375.jpg", "00223/002239345.jpg"]
    assert [record.captions[0].text for record in records] == [
        "select luxury furniture 3 - inch gel memory foam mattress topper",
        "a grey watch with an army style strap",
    ]
    assert records[0].extra["human"].endswith("\n<image>")


def test_published_captions_with_boxes_agree_with_the_annotations_of_the_same_photo(
    samples: Path, tmp_path: Path
) -> None:
    photo = "000000416256.jpg"
    (tmp_path / photo).write_bytes((samples / "coco/coco_tiny_val/val2017" / photo).read_bytes())
    source = Llava(annotations=str(samples / "llava/caps_boxes_coco2014_val_80.jsonl"), images=str(tmp_path))
    (record,), left_out = split(source)
    assert rejects.by_reason(left_out) == {"image_missing": 79}
    assert len(record.captions) == 5
    coco = json.loads((samples / "coco/coco_tiny_val/annotations/instances_val2017.json").read_bytes())
    known = [a["bbox"] for a in coco["annotations"] if a["image_id"] == 416256 and not a["iscrowd"]]
    corners = [(x, y, x + w, y + h) for x, y, w, h in known]
    tolerance = 0.0011 * max(record.width, record.height)  # three decimals of 0..1
    for box in record.boxes:
        assert min(max(abs(a - b) for a, b in zip(box.xyxy, corner, strict=True)) for corner in corners) < tolerance
