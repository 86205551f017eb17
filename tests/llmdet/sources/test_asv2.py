"""Relation conversations become sentences with regions, links and relations."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmdet import rejects
from llmdet.record import Link, Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.asv2 import Asv2
from llmdet.validate import faults

SOFA = (
    "A <ref>dog</ref><box>[[111, 333, 444, 888]]</box> is <pred>lying on</pred><box>[[111, 333, 444, 888]]</box>"
    "<box>[[0, 555, 999, 999]]</box> a red <ref>sofa</ref><box>[[0, 555, 999, 999]]</box> under two "
    "<ref>lamps</ref><box>[[0, 0, 111, 222], [888, 0, 999, 222]]</box>."
)


def read(
    tmp_path: Path,
    *answers: Any,
    name: str = "rec_wo_square_pad.json",
    size: tuple[int, int] = (900, 450),
    **settings: Any,
) -> Any:
    photo = tmp_path / "000000121586.jpg"
    Image.new("RGB", size).save(photo)
    turns = [[{"from": "human", "value": "<image>\nTell."}, {"from": "gpt", "value": answer}] for answer in answers]
    rows = [{"id": 0, "image": "coco/train2017/000000121586.jpg", "conversations": said} for said in turns]
    (tmp_path / name).write_text(json.dumps(rows))
    items = list(Asv2(annotations=str(tmp_path / name), images=str(tmp_path), **settings).read())
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert from_batch(to_batch(records)) == records
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    return records, left_out


def test_marks_become_regions_and_the_text_reads_without_them(tmp_path: Path) -> None:
    (record,), left_out = read(tmp_path, SOFA)
    assert left_out == []
    assert faults(record) == []
    assert record.text == "A dog is lying on a red sofa under two lamps."
    assert (record.id, record.image, record.width, record.height) == ("asv2/121586/0", "000000121586.jpg", 900, 450)
    assert [(region.phrases[0], len(region.boxes)) for region in record.regions] == [
        ("dog", 1),
        ("sofa", 1),
        ("lamps", 2),
    ]
    assert [box.xyxy for box in record.boxes] == [
        pytest.approx((100, 150, 400, 400)),
        pytest.approx((0, 250, 900, 450)),
        pytest.approx((0, 0, 100, 100)),
        pytest.approx((800, 0, 900, 100)),
    ]
    assert [box.order for box in record.boxes] == [0, 1, 2, 3]
    (caption,) = record.captions
    assert (caption.text, caption.raw) == (record.text, SOFA)
    assert caption.links == (Link((2, 5), 0), Link((24, 28), 1), Link((39, 44), 2))
    (relation,) = record.extra["relations"]
    assert record.text[slice(*relation["span"])] == "lying on"
    subject, thing = relation["boxes"]
    assert (subject, thing) == ([list(record.boxes[0].xyxy)], [list(record.boxes[1].xyxy)])


@pytest.mark.parametrize("settings", [{"name": "rec.json"}, {"padded": "square"}])
@pytest.mark.parametrize(
    ("size", "box"),
    [((999, 499), (111.0, 83.0, 444.0, 499.0)), ((499, 999), (0.0, 333.0, 194.0, 888.0))],
)
def test_boxes_on_a_padded_square_are_moved_back(tmp_path: Path, settings: Any, size: Any, box: Any) -> None:
    # (999 - 499) // 2 = 250 pixels of padding before the photo; a side of the square has 999 pixels.
    (record,), left_out = read(tmp_path, "A <ref>dog</ref><box>[[111, 333, 444, 888]]</box>.", size=size, **settings)
    assert left_out == []
    assert record.boxes[0].xyxy == pytest.approx(box)


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ('[["1", 2, 30, 40]]', "box_malformed"),
        ("[[1, 2, 30]]", "box_malformed"),
        ("[1, 2, 30, 40]", "box_malformed"),
        ("not json", "box_malformed"),
        ("[]", "box_malformed"),
        ("{}", "box_malformed"),
        ("[[NaN, 2, 30, 40]]", "box_malformed"),
        ("[[500, 2, 30, 40]]", "box_below_one_pixel"),
        ("[[2000, 2, 2500, 40]]", "box_outside_image"),
    ],
)
def test_a_bad_box_costs_itself_only(tmp_path: Path, boxes: str, reason: str) -> None:
    (record,), left_out = read(tmp_path, f"A <ref>cat</ref><box>{boxes}</box> by " + SOFA)
    assert [region.phrases[0] for region in record.regions] == ["dog", "sofa", "lamps"]
    assert {(reject.reason, reject.level) for reject in left_out} == {(reason, "annotation")}


@pytest.mark.parametrize(
    "answer",
    [
        "A <ref>dog",
        "A dog</ref>",
        "A <ref>dog</pred>",
        "A <box>[[1, 2, 3, 4]]</box>",
        "A <ref></ref>",
        "A <ref>dog<box>[[1, 2, 3, 4]]</box></ref>",
        "<ref>" * 50_000,
    ],
)
def test_marks_that_do_not_pair_are_a_reject(tmp_path: Path, answer: str) -> None:
    records, (reject,) = read(tmp_path, answer, SOFA)
    assert len(records) == 1
    assert (reject.id, reject.reason, reject.kind) == ("asv2/rec_wo_square_pad.json:0", "marks_malformed", "fault")


def test_a_photo_that_is_not_there_is_a_reject(tmp_path: Path) -> None:
    rows = [{"image": "coco/train2017/000000000001.jpg", "conversations": [{"from": "gpt", "value": SOFA}]}]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    (reject,) = Asv2(annotations=str(tmp_path / "x.json"), images=str(tmp_path)).read()
    assert isinstance(reject, Reject)
    assert reject.reason == "image_missing"
