import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmdet.exports.groundingcap import GroundingCap
from llmdet.record import Box, Caption, Record, Region, to_batch
from llmdet.sources.odvg import Odvg as OdvgSource
from tests.llmdet.example_records import FULL, SENTENCE, few, records


def test_line_has_upstreams_keys_in_upstreams_order() -> None:
    assert GroundingCap().encode(to_batch([FULL])).decode() == (
        '{"filename":"a/12.jpg","height":80,"width":100,'
        '"conversations":[{"from":"human","value":"<image>\\nDescribe the image in detail."},'
        '{"from":"gpt","value":"A dog beside a cat."}],'
        '"tags":["dog","grass"],'
        '"grounding":{"caption":"dog. tv. cat. ","regions":['
        '{"bbox":[[1.5,2.0,30.25,40.0],[5.0,6.0,7.5,80.0]],"phrase":"dog","tokens_positive":[[0,3]],'
        '"captions":[null,"a \\"brown\\" dog\\non grass"]},'
        '{"bbox":[0.1,0.2,50.0,60.0],"phrase":"cat","tokens_positive":[[9,12]]}]}}\n'
    )


def test_record_without_caption_has_no_conversation_and_without_tags_no_tags() -> None:
    assert list(json.loads(GroundingCap().encode(to_batch([SENTENCE])))) == ["filename", "height", "width", "grounding"]


def test_human_turn_of_the_source_is_kept_and_the_others_take_the_setting() -> None:
    own = Record(
        "c/1/0", "c", "1", "0", "grounding", "1.jpg", "c", 9, 9, "x", captions=(Caption("Long."),),
        extra={"human": "<image>\nProvide a scene graph caption of the given image."},
    )  # fmt: skip
    other = Record("c/2/0", "c", "2", "0", "grounding", "2.jpg", "c", 9, 9, "x", captions=(Caption("Short."),))
    lines = GroundingCap(human="Say.\n<image>").encode(to_batch([other, own, SENTENCE])).splitlines()
    turns = [json.loads(line).get("conversations") for line in lines]
    assert turns == [
        [{"from": "human", "value": "Say.\n<image>"}, {"from": "gpt", "value": "Short."}],
        [
            {"from": "human", "value": "<image>\nProvide a scene graph caption of the given image."},
            {"from": "gpt", "value": "Long."},
        ],
        None,
    ]


def test_further_captions_are_counted_as_lost() -> None:
    assert GroundingCap().count(to_batch([FULL, SENTENCE])).lost == {
        "negatives": 1,
        "masks": 1,
        "scores": 1,
        "pseudo marks": 1,
        "annotation ids": 3,
        "areas": 1,
        "captions after the first": 1,
        "regions without boxes": 1,
    }


def test_captions_stay_with_their_boxes_when_a_crowd_box_is_left_out() -> None:
    boxes = (
        Box((0.0, 0.0, 9.0, 9.0), crowd=True, caption=Caption("crowd")),
        Box((1.0, 1.0, 5.0, 5.0)),
        Box((2.0, 2.0, 6.0, 6.0), caption=Caption("small")),
    )
    record = Record(
        "c/1/0", "c", "1", "0", "detection", "1.jpg", "c", 9, 9, "dog. ", (Region(("dog",), ((0, 3),), boxes, 1),)
    )
    region = json.loads(GroundingCap().encode(to_batch([record])))["grounding"]["regions"][0]
    assert (region["bbox"], region["captions"]) == ([[1.0, 1.0, 5.0, 5.0], [2.0, 2.0, 6.0, 6.0]], [None, "small"])


@few
@given(st.lists(records(), max_size=4))
def test_captions_and_tags_parse_back(many: list[Record]) -> None:
    lines = GroundingCap().encode(to_batch(many)).decode().split("\n")[:-1]
    for line, record in zip(lines, many, strict=True):
        row = json.loads(line)
        said = row["conversations"][1]["value"] if "conversations" in row else None
        assert said == (record.captions[0].text if record.captions else None)
        assert row.get("tags", []) == list(record.tags)
        kept = [[box for box in region.boxes if not box.crowd] for region in record.regions]
        for region, boxes in zip(row["grounding"]["regions"], [boxes for boxes in kept if boxes], strict=True):
            texts = [box.caption.text if box.caption else None for box in boxes]
            assert region.get("captions", [None] * len(boxes)) == texts


def test_upstreams_row_goes_in_and_out_unchanged(samples: Path) -> None:
    row = samples / "quoted_rows/instances_train2017_vg_merged6_quoted_row.jsonl"
    items = list(OdvgSource(annotations=str(row), images="").read())
    out = GroundingCap().encode(to_batch([item for item in items if isinstance(item, Record)]))
    assert out.rstrip() == without_white_space(row.read_bytes())


def without_white_space(data: bytes) -> bytes:
    """JSON without the white space between its tokens, all other bytes as they are."""
    tokens = re.compile(rb'"(?:[^"\\]|\\.)*"|[^"\s]+')
    return b"".join(tokens.findall(data))
