"""Captions and phrases of one source attached to the records of another."""

from dataclasses import replace
from typing import Any

import pytest

from llmdet.attaching import AttachSettings, attach, attach_all, photo_key, wants_lmm
from llmdet.record import Box, Caption, Provenance, Record, Region
from llmdet.rejects import Reject
from llmdet.validate import faults

COCO = Record(
    id="coco/9/0",
    source="coco",
    image_id="9",
    text_id="0",
    kind="detection",
    image="000000000009.jpg",
    root="coco",
    width=640,
    height=480,
    text="car. dog. bus. ",
    regions=(Region(("dog",), ((5, 8),), (Box((1.0, 2.0, 30.0, 40.0), order=3),), 18),),
    negatives=((0, 3), (10, 13)),
    licence="CC-BY-4.0",
)
LONG = Caption(text="A dog sits by a wall.", raw="A dog sits by a wall.")


def giver(source: str = "sharegpt4v", text_id: str = "7", **values: Any) -> Record:
    plain = Record(
        id=f"{source}/9/{text_id}",
        source=source,
        image_id="9",
        text_id=text_id,
        kind="grounding",
        image="train2017/000000000009.jpg",
        root=source,
        width=0,
        height=0,
        text="",
        captions=(LONG,),
        extra={"human": "<image>\nTell."},
    )
    return replace(plain, **values)


def phrases(*found: tuple[str, tuple[float, float, float, float]]) -> Record:
    """A giver of phrases at the same size."""
    text = " ".join(phrase for phrase, _ in found)
    regions = tuple(
        Region((phrase,), ((text.find(phrase), text.find(phrase) + len(phrase)),), (Box(box),)) for phrase, box in found
    )
    return giver("asv2", text=text, regions=regions, width=640, height=480)


def test_the_key_of_a_photo_is_cocos_id_whatever_the_set() -> None:
    paths = ("000000000009.jpg", "train2017/000000000009.jpg", "COCO_train2014_000000000009.jpg", "a\\000000000009.png")
    assert {photo_key(path) for path in paths} == {"9"}
    assert photo_key("a/b.jpg") == "a/b"
    assert photo_key("1000000000009.jpg") == "1000000000009", "thirteen digits are no COCO id"


def test_a_caption_is_attached_under_an_id_of_its_own() -> None:
    record, left_off = attach(COCO, giver(), "source")
    assert left_off == []
    assert (record.id, record.text_id) == ("coco/9/0+sharegpt4v-7", "0+sharegpt4v-7")
    assert record.captions == (LONG,)
    assert (record.text, record.regions, record.negatives) == (COCO.text, COCO.regions, COCO.negatives)
    assert record.extra["human"] == "<image>\nTell."
    assert record.extra["attached"][0]["id"] == "sharegpt4v/9/7"
    assert not wants_lmm(record)


@pytest.mark.parametrize(("choice", "captions", "asks"), [("source", 1, False), ("both", 1, True), ("lmm", 0, True)])
def test_the_choice_says_whose_caption_is_used(choice: Any, captions: int, asks: bool) -> None:
    record, _ = attach(COCO, giver(), choice)
    assert (len(record.captions), wants_lmm(record)) == (captions, asks)


def test_a_record_without_captions_wants_the_lmm() -> None:
    assert wants_lmm(COCO)
    assert not wants_lmm(replace(COCO, captions=(Caption("x", provenance=Provenance("lmm")),)))


def test_phrases_that_are_no_names_are_appended_with_their_boxes() -> None:
    given = phrases(("wall", (0.0, 0.0, 640.0, 100.0)), ("Oak Table", (5.0, 5.0, 60.0, 60.0)))
    record, left_off = attach(COCO, given, "source")
    assert left_off == []
    assert faults(record) == []
    assert record.text == "car. dog. bus. wall. oak table. "
    assert [(region.phrases, region.spans) for region in record.regions[1:]] == [
        (("wall",), ((15, 19),)),
        (("oak table",), ((21, 30),)),
    ]
    assert [box.order for box in record.boxes] == [3, 4, 5]


def test_phrases_that_are_names_already_are_left_off_with_a_reason() -> None:
    given = phrases(*((phrase, (0.0, 0.0, 50.0, 50.0)) for phrase in ("dog", "Car", "cars", "buses")))
    record, left_off = attach(COCO, given, "source")
    assert (record.text, record.regions) == (COCO.text, COCO.regions)
    assert [(reject.reason, reject.kind, reject.level) for reject in left_off] == [
        ("name_known", "policy", "annotation")
    ] * 4


def test_a_phrase_said_twice_is_one_region_with_each_box_once() -> None:
    boxes = ((0.0, 0.0, 50.0, 50.0), (9.0, 9.0, 90.0, 90.0), (0.0, 0.0, 50.0, 50.0))
    record, _ = attach(COCO, phrases(*(("wall", box) for box in boxes)), "source")
    assert [box.xyxy for box in record.regions[-1].boxes] == list(boxes[:2])


def test_sentences_get_captions_but_no_phrases() -> None:
    record, (reject,) = attach(replace(COCO, kind="grounding"), phrases(("wall", (0.0, 0.0, 50.0, 50.0))), "source")
    assert (record.text, len(record.captions), reject.reason) == (COCO.text, 1, "text_of_sentences")


def test_phrases_can_be_declined() -> None:
    record, left_off = attach(COCO, phrases(("wall", (0.0, 0.0, 50.0, 50.0))), "source", phrases=False)
    assert (record.text, left_off) == (COCO.text, [])


def test_each_caption_of_a_photo_makes_a_record_and_a_photo_without_stays() -> None:
    bare = replace(COCO, id="coco/10/0", image_id="10", image="000000000010.jpg")
    broken = Reject("sharegpt4v/x", "record", "fault", "ingest", "line_malformed")
    items = [COCO, bare]
    found = list(attach_all(items, [giver(), broken, giver(text_id="8"), giver("asv2")], AttachSettings()))
    assert [item.id for item in found] == [
        "sharegpt4v/x",
        "coco/9/0+sharegpt4v-7",
        "coco/9/0+sharegpt4v-8",
        "coco/9/0+asv2-7",
        "coco/10/0",
    ]
    assert found[-1] == bare


def test_givers_without_a_photo_or_of_another_size_become_rejects() -> None:
    lost = giver(image="train2017/000000000404.jpg", text_id="1")
    small = replace(phrases(("wall", (0.0, 0.0, 50.0, 50.0))), width=320)
    found = list(attach_all([COCO], [lost, small], AttachSettings()))
    assert [(item.id, item.reason, item.kind) for item in found if isinstance(item, Reject)] == [
        ("asv2/9/7", "size_mismatch", "fault"),
        ("sharegpt4v/9/1", "image_unknown", "policy"),
    ]
    assert [item for item in found if isinstance(item, Record)] == [COCO]


def test_a_source_whose_captions_were_not_chosen_gives_its_phrases_only() -> None:
    settings = AttachSettings(caption={"asv2": "lmm", "sharegpt4v": "lmm"})
    found = list(attach_all([COCO], [giver(), phrases(("wall", (0.0, 0.0, 50.0, 50.0)))], settings))
    assert [getattr(item, "reason", None) for item in found] == ["caption_not_chosen", None]
    assert isinstance(found[1], Record)
    assert (found[1].text, found[1].captions) == ("car. dog. bus. wall. ", ())
