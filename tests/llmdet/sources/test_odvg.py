"""ODVG and GroundingCap lines become records; what cannot becomes a reject with its reason."""

import json
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet import rejects
from llmdet.errors import FormatError, MissingError
from llmdet.exports.groundingcap import GroundingCap
from llmdet.exports.odvg import Odvg as OdvgExport
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.odvg import Odvg
from llmdet.validate import faults

PUDDLE: dict[str, Any] = {
    "filename": "4400112233.jpg",
    "height": 375,
    "width": 500,
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is shown in this picture?"},
        {"from": "gpt", "value": "Two girls in yellow raincoats jump over a puddle."},
    ],
    "tags": ["raincoat", "puddle"],
    "grounding": {
        "caption": "Two girls jump over a puddle . a blue umbrella next to the puddle . ",
        "regions": [
            {
                "bbox": [[101.0, 88.5, 190.0, 320.0], [230.0, 92.0, 318.0, 318.0]],
                "phrase": "Two girls",
                "tokens_positive": [[0, 9]],
            },
            {
                "bbox": [60.0, 300.0, 400.0, 360.0],
                "phrase": ["a puddle", "the puddle"],
                "tokens_positive": [[20, 28], [55, 65]],
            },
            {"bbox": [120.0, 40.0, 210.0, 110.0], "phrase": "a blue umbrella", "tokens_positive": [[31, 46]]},
        ],
    },
}
NAMES = {
    "filename": "000000400001.jpg",
    "height": 480,
    "width": 640,
    "grounding": {
        "caption": "zebra. cat. st. bernard. couch. ",
        "regions": [
            {"bbox": [210.2, 190.0, 402.7, 333.3], "phrase": "cat", "tokens_positive": [[7, 10]]},
            {"bbox": [40.0, 150.5, 630.0, 460.0], "phrase": "st. bernard", "tokens_positive": [[12, 23]]},
        ],
    },
}
FORKLIFT = {
    "filename": "a/0001.jpg",
    "height": 720,
    "width": 1280,
    "detection": {
        "instances": [
            {"bbox": [12.0, 30.5, 220.0, 400.0], "label": 1, "category": "forklift"},
            {"bbox": [500.0, 1.0, 600.0, 90.0], "label": 0, "category": "pallet"},
            {"bbox": [5.0, 3.5, 22.0, 40.0], "label": 1, "category": "forklift"},
        ]
    },
}

EMPTY = b'"grounding": {"caption": "", "regions": []}}'
TOO_DEEP = b'{"filename": "a.jpg", "more": ' + b"[" * 900 + b"]" * 900 + b", " + EMPTY


def source(tmp_path: Path, *lines: Any, **settings: Any) -> Odvg:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join((line if isinstance(line, bytes) else orjson.dumps(line)) + b"\n" for line in lines))
    return Odvg(annotations=str(path), images=str(tmp_path), **settings)


def split(items: Any) -> tuple[list[Record], list[Reject]]:
    """Records and rejects; both must survive Arrow, which is where odd values would end a run."""
    items = list(items)
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert from_batch(to_batch(records)) == records
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    return records, left_out


def changed(line: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**line, **values}


def with_region(**values: Any) -> dict[str, Any]:
    region = {**PUDDLE["grounding"]["regions"][2], **values}
    return changed(PUDDLE, grounding={**PUDDLE["grounding"], "regions": [region]})


def test_a_grounding_line_is_a_record_with_all_that_it_says(tmp_path: Path) -> None:
    (record,), left_out = split(source(tmp_path, PUDDLE).read())
    assert left_out == []
    assert faults(record) == []
    assert (record.id, record.image_id, record.text_id) == ("odvg/4400112233.jpg/1", "4400112233.jpg", "1")
    assert (record.kind, record.width, record.height) == ("grounding", 500, 375)
    assert [region.phrases for region in record.regions] == [
        ("Two girls",),
        ("a puddle", "the puddle"),
        ("a blue umbrella",),
    ]
    assert record.regions[1].spans == ((20, 28), (55, 65))
    assert [box.order for box in record.boxes] == [0, 1, 2, 3]
    assert record.boxes[1].xyxy == (230.0, 92.0, 318.0, 318.0)
    assert [caption.text for caption in record.captions] == ["Two girls in yellow raincoats jump over a puddle."]
    assert record.captions[0].provenance.origin == "source"
    assert record.tags == ("raincoat", "puddle")
    assert record.extra == {"human": "<image>\nWhat is shown in this picture?"}


def test_names_joined_by_dots_are_detection_with_the_rest_as_negatives(tmp_path: Path) -> None:
    (record,), _ = split(source(tmp_path, NAMES).read())
    assert record.kind == "detection"
    assert [record.text[slice(*span)] for span in record.negatives] == ["zebra", "couch"]


def test_names_are_sentences_where_the_setting_says_so(tmp_path: Path) -> None:
    (record,), _ = split(source(tmp_path, NAMES, kind="grounding").read())
    assert (record.kind, record.negatives) == ("grounding", ())


def test_detection_lines_take_names_and_negatives_from_the_label_map(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"0": "pallet", "1": "forklift", "2": "crate"}')
    read = source(tmp_path, FORKLIFT, label_map=str(tmp_path / "map.json"))
    (record,), left_out = split(read.read())
    assert left_out == []
    assert faults(record) == []
    assert sorted(record.text[:-2].split(". ")) == ["crate", "forklift", "pallet"]
    assert [record.text[slice(*span)] for span in record.negatives] == ["crate"]
    boxes = {region.phrases[0]: [box.order for box in region.boxes] for region in record.regions}
    assert boxes == {"forklift": [0, 2], "pallet": [1]}
    assert {region.category_id for region in record.regions} == {0, 1}
    assert [(category.id, category.name) for category in read.info().categories] == [
        (0, "pallet"),
        (1, "forklift"),
        (2, "crate"),
    ]


def test_a_name_whose_boxes_were_all_left_out_is_not_said_to_be_absent(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"0": "pallet", "1": "forklift", "2": "crate"}')
    instances = [{"bbox": [0, 0, 9, 9], "label": 0}, {"bbox": [9, 9, 9, 9], "label": 1}]
    line = {
        "filename": "a.jpg",
        "height": 50,
        "width": 50,
        "detection": {"instances": instances},
        "grounding": {
            "caption": "dog. cat. cow. ",
            "regions": [
                {"bbox": [0, 0, 9, 9], "phrase": "dog", "tokens_positive": [[0, 3]]},
                {"bbox": [90, 90, 99, 99], "phrase": "Cat", "tokens_positive": [[5, 8]]},
            ],
        },
    }
    records, left_out = split(source(tmp_path, line, label_map=str(tmp_path / "map.json")).read())
    assert [[record.text[slice(*span)] for span in record.negatives] for record in records] == [["cow"], ["crate"]]
    assert len(left_out) == 2


def test_nobody_is_said_to_have_made_a_file_of_which_nothing_is_known(tmp_path: Path) -> None:
    (record,), _ = split(source(tmp_path, FORKLIFT).read())
    assert (record.licence, record.origin) == ("", "")


def test_detection_lines_without_a_label_map_keep_their_own_names(tmp_path: Path) -> None:
    (record,), _ = split(source(tmp_path, FORKLIFT).read())
    assert sorted(record.text[:-2].split(". ")) == ["forklift", "pallet"]


def test_a_line_with_both_forms_is_two_records(tmp_path: Path) -> None:
    records, _ = split(source(tmp_path, {**NAMES, "detection": FORKLIFT["detection"]}).read())
    assert [(record.text_id, len(record.boxes)) for record in records] == [("1", 2), ("1-od", 3)]


def test_words_that_a_blank_parts_are_one_phrase(tmp_path: Path) -> None:
    line = {
        "filename": "2334951.jpg",
        "height": 500,
        "width": 375,
        "grounding": {
            "caption": "one man wearing pink tie.",
            "regions": [{"bbox": [33, 13, 247, 498], "phrase": "one man", "tokens_positive": [[0, 3], [4, 7]]}],
        },
    }
    (record,), left_out = split(source(tmp_path, line).read())
    assert left_out == []
    assert record.regions[0].phrases == ("one man",)
    assert record.regions[0].spans == ((0, 7),)


def test_phrases_without_spans_are_found_in_the_caption(tmp_path: Path) -> None:
    regions = [{"bbox": [1, 1, 9, 9], "phrase": "A dog"}, {"bbox": [20, 1, 29, 9], "phrase": "a dog"}]
    line = {
        "filename": "b.jpg",
        "height": 50,
        "width": 50,
        "grounding": {"caption": "a dog and a dog", "regions": regions},
    }
    (record,), _ = split(source(tmp_path, line).read())
    assert [region.spans for region in record.regions] == [((0, 5),), ((10, 15),)]


def test_captions_of_boxes_stand_parallel_to_them(tmp_path: Path) -> None:
    line = with_region(bbox=[[1, 1, 9, 9], [2, 2, 20, 20]], captions=["dark blue", None])
    (record,), _ = split(source(tmp_path, line).read())
    assert [box.caption.text if box.caption else None for box in record.boxes] == ["dark blue", None]


def test_a_conversation_of_several_turns_is_kept_whole(tmp_path: Path) -> None:
    turns = [
        {"from": who, "value": said}
        for who, said in [("human", "q"), ("gpt", "A cat."), ("human", "r"), ("gpt", "No.")]
    ]
    (record,), _ = split(source(tmp_path, changed(PUDDLE, conversations=turns)).read())
    assert [caption.text for caption in record.captions] == ["A cat."]
    assert record.extra == {"human": "q", "conversations": turns}


def test_other_members_of_a_line_come_along(tmp_path: Path) -> None:
    (record,), _ = split(source(tmp_path, changed(PUDDLE, dataset_name="mixed")).read())
    assert record.extra["dataset_name"] == "mixed"


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ({"bbox": ["1", "2", "30", "40"]}, "box_malformed"),
        ({"bbox": [1, 2, 30]}, "box_malformed"),
        ({"bbox": []}, "box_malformed"),
        ({"bbox": [[[1, 2, 30, 40]]]}, "box_malformed"),
        ({"bbox": None}, "box_malformed"),
        ({"bbox": [1, 2, 30, True]}, "box_malformed"),
        ({"bbox": [1, 2, 1.5, 40]}, "box_below_one_pixel"),
        ({"bbox": [600, 2, 700, 40]}, "box_outside_image"),
        ({"phrase": "a red umbrella"}, "phrase_not_at_span"),
        ({"phrase": 7}, "row_malformed"),
        ({"tokens_positive": [[31, 460]]}, "span_outside_text"),
        ({"tokens_positive": [[46, 31]]}, "span_outside_text"),
        ({"tokens_positive": [[-5, 3]]}, "span_outside_text"),
        ({"tokens_positive": [["31", "46"]]}, "span_malformed"),
        ({"tokens_positive": []}, "span_malformed"),
        ({"tokens_positive": None, "phrase": "a zebra"}, "phrase_not_in_text"),
        ({"captions": ["one", "two"]}, "captions_malformed"),
    ],
)
def test_a_bad_region_costs_itself_only(tmp_path: Path, region: dict[str, Any], reason: str) -> None:
    (record,), (reject,) = split(source(tmp_path, with_region(**region)).read())
    assert record.regions == ()
    assert (reject.level, reject.kind, reject.stage, reject.reason) == ("annotation", "fault", "ingest", reason)
    assert reject.id.startswith("odvg/4400112233.jpg/1#regions[0]")


def test_a_bad_box_leaves_the_other_boxes_of_its_region_and_their_order(tmp_path: Path) -> None:
    (record,), (reject,) = split(
        source(tmp_path, with_region(bbox=[[1, 1, 9, 9], [0, 0, 0, 0], [5, 5, 50, 50]])).read()
    )
    assert [box.order for box in record.boxes] == [0, 2]
    assert reject.id == "odvg/4400112233.jpg/1#regions[0].bbox[1]"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (changed(PUDDLE, filename=5), "row_malformed"),
        (changed(PUDDLE, width="500"), "row_malformed"),
        (changed(PUDDLE, width=None), "row_malformed"),
        (changed(PUDDLE, width=True), "row_malformed"),
        (changed(PUDDLE, height=0), "row_malformed"),
        (changed(PUDDLE, height=2**31), "row_malformed"),
        (changed(PUDDLE, height=10**30), "row_malformed"),
        (changed(PUDDLE, grounding=[]), "row_malformed"),
        (changed(PUDDLE, grounding={"caption": "a", "regions": {}}), "row_malformed"),
        (changed(PUDDLE, grounding=None), "row_malformed"),
        (changed(FORKLIFT, detection={"instances": None}), "row_malformed"),
        (TOO_DEEP, "row_malformed"),
        (b'{"filename": "\\ud800.jpg"}', "line_malformed"),
        (b'{"filename": "a.jpg", "height": NaN}', "line_malformed"),
        (b"[" * 100_000, "line_malformed"),
        (b'{"filename": "\xff.jpg"}', "line_malformed"),
        (b"[1, 2]", "line_malformed"),
    ],
)
def test_a_bad_line_is_a_reject_and_the_rest_is_read(tmp_path: Path, line: Any, reason: str) -> None:
    if isinstance(line, dict) and line["height"] == 10**30:
        line = json.dumps(line).encode()
    (before, after), (reject,) = split(source(tmp_path, NAMES, line, PUDDLE).read())
    assert (before.text_id, after.text_id) == ("1", "3")
    assert (reject.id, reject.level, reject.reason) == ("odvg/rows.jsonl:2", "record", reason)


@pytest.mark.parametrize(
    ("label", "reason"),
    [(9, "category_unknown"), ("1", "row_malformed"), (None, "row_malformed"), (1.5, "row_malformed")],
)
def test_an_instance_with_a_bad_label_is_left_out(tmp_path: Path, label: Any, reason: str) -> None:
    (tmp_path / "map.json").write_text('{"0": "pallet"}')
    line = changed(FORKLIFT, detection={"instances": [{"bbox": [1, 1, 9, 9], "label": label}, "no object"]})
    (record,), left_out = split(source(tmp_path, line, label_map=str(tmp_path / "map.json")).read())
    assert record.regions == ()
    assert [reject.reason for reject in left_out] == [reason, "row_malformed"]


@pytest.mark.parametrize(
    ("values", "reason", "kind"),
    [
        ({"conversations": "A cat."}, "conversation_malformed", "fault"),
        ({"conversations": [{"from": "gpt", "value": 3}]}, "conversation_malformed", "fault"),
        ({"conversations": [{"from": "human", "value": "?"}]}, "caption_missing", "policy"),
        ({"conversations": [{"from": "gpt", "value": " "}]}, "caption_empty", "policy"),
        ({"tags": ["a", 1]}, "tags_malformed", "fault"),
        ({"tags": "a"}, "tags_malformed", "fault"),
    ],
)
def test_a_bad_caption_or_tag_does_not_cost_the_boxes(tmp_path: Path, values: Any, reason: str, kind: str) -> None:
    (record,), (reject,) = split(source(tmp_path, changed(PUDDLE, **values)).read())
    assert len(record.boxes) == 4
    assert (reject.reason, reject.kind, reject.level) == (reason, kind, "annotation")


def test_a_folder_is_read_file_by_file_with_ids_that_differ(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json"):
        (tmp_path / name).write_bytes(orjson.dumps(PUDDLE) + b"\n" + orjson.dumps(NAMES) + b"\n")
    records, _ = split(Odvg(annotations=str(tmp_path), images=str(tmp_path)).read())
    assert [record.text_id for record in records] == ["a:1", "a:2", "b:1", "b:2"]


def test_packed_files_are_unpacked_and_a_cut_one_says_where(tmp_path: Path) -> None:
    import gzip

    lines = b"".join(orjson.dumps(changed(PUDDLE, filename=f"{n}-{math.sin(n)}.jpg")) + b"\n" for n in range(2000))
    packed = gzip.compress(lines)
    (tmp_path / "whole.jsonl.gz").write_bytes(packed)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    whole, none = split(Odvg(annotations=str(tmp_path / "whole.jsonl.gz"), images="").read())
    cut, left_out = split(Odvg(annotations=str(tmp_path / "cut.jsonl.gz"), images="").read())
    assert (len(whole), none) == (2000, [])
    assert 0 < len(cut) < 2000
    assert [reject.reason for reject in left_out] == ["file_damaged"]


@pytest.mark.parametrize("content", [b'[{"id": 1}]', b"PAR1\0\0", b'{"images": [], "annotations": []}', b"[\n{\n"])
def test_a_file_of_another_format_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"x\.json"):
        list(Odvg(annotations=str(tmp_path / "x.json"), images="").read())
    with pytest.raises(FormatError, match=r"x\.json"):
        Odvg(annotations=str(tmp_path / "x.json"), images="").info()


def test_a_missing_file_and_a_bad_label_map_say_so(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"none\.jsonl"):
        list(Odvg(annotations=str(tmp_path / "none.jsonl"), images="").read())
    (tmp_path / "map.json").write_text('["person"]')
    with pytest.raises(FormatError, match=r"map\.json"):
        source(tmp_path, FORKLIFT, label_map=str(tmp_path / "map.json")).info()


def test_what_the_exporter_writes_is_read_as_the_same_record(tmp_path: Path) -> None:
    records, _ = split(source(tmp_path, PUDDLE, NAMES).read())
    again = tmp_path / "again.jsonl"
    again.write_bytes(GroundingCap().encode(to_batch(records)))
    assert split(Odvg(annotations=str(again), images=str(tmp_path)).read())[0] == records


WORDS = st.sampled_from(
    ["a dog", "Hund", "ein Bär", "red", "st. bernard", "\U0001f431", 'a "quoted" one', "back\\slash"]
)
NUMBER = st.floats(0, 300, width=32) | st.sampled_from([0.1 + 0.2, 456.34000000000003, 1e-7])
BOX = st.tuples(NUMBER, NUMBER, st.floats(2, 99), st.floats(2, 99)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """A line as the public converters and LLMDet write it."""
    caption, regions = draw(WORDS) + " . ", []
    for _ in range(draw(st.integers(0, 4))):
        phrases, spans = draw(st.lists(WORDS, min_size=1, max_size=3, unique=True)), []
        for phrase in phrases:
            spans.append([len(caption), len(caption) + len(phrase)])
            caption += phrase + draw(st.sampled_from([". ", " , ", " and "]))
        found = draw(st.lists(BOX, min_size=1, max_size=3))
        one, said = found[0] if len(found) == 1 else found, phrases[0] if len(phrases) == 1 else phrases
        regions.append({"bbox": one, "phrase": said, "tokens_positive": spans})
    line: dict[str, Any] = {"filename": "a/b.jpg", "height": 700, "width": 500}
    if draw(st.booleans()):
        turns = [{"from": "human", "value": draw(WORDS)}, {"from": "gpt", "value": draw(WORDS)}]
        line |= {"conversations": turns, "tags": draw(st.lists(WORDS, min_size=1, max_size=3))}
    return {**line, "grounding": {"caption": caption, "regions": regions}}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(line=lines())
def test_every_line_goes_in_and_out_byte_for_byte(tmp_path: Path, line: dict[str, Any]) -> None:
    (record,), left_out = split(source(tmp_path, line).read())
    assert left_out == []
    assert faults(record) == []
    assert GroundingCap().encode(to_batch([record])) == orjson.dumps(line) + b"\n"


def test_the_published_row_goes_in_and_out_byte_for_byte(samples: Path) -> None:
    path = samples / "quoted_rows" / "instances_train2017_vg_merged6_quoted_row.jsonl"
    (record,), left_out = split(Odvg(annotations=str(path), images="").read())
    assert left_out == []
    assert faults(record) == []
    assert (record.kind, len(record.negatives), len(record.boxes)) == ("detection", 81, 3)
    # Up to JSON white space: the file has blanks behind ":" and ",".
    blank = json.dumps(json.loads(path.read_text()), separators=(",", ":"), ensure_ascii=False)
    assert path.read_text().strip() == json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    assert GroundingCap().encode(to_batch([record])).decode() == blank + "\n"


@pytest.mark.parametrize(
    ("file", "lines", "boxes"), [("coco_tiny_val_od", 80, 804), ("lvis_v1_style_part_a_od", 49, 353)]
)
def test_reference_detection_lines_are_read_in_full(samples: Path, file: str, lines: int, boxes: int) -> None:
    names = "coco2017_label_map.json" if file.startswith("coco") else "lvis_v1_label_map.json"
    path = samples / "odvg" / f"{file}.jsonl"
    read = Odvg(annotations=str(path), images="", label_map=str(samples / "odvg" / names), negatives="dynamic")
    records, left_out = split(read.read())
    assert left_out == []
    assert (len(records), sum(len(record.boxes) for record in records)) == (lines, boxes)
    assert [fault for record in records for fault in faults(record)] == []
    expected = [json.loads(line) for line in path.read_text().splitlines()]
    written = OdvgExport(form="od").encode(to_batch(records), {"odvg": read.info()})
    assert [json.loads(line) for line in written.splitlines()] == expected


def test_reference_grounding_lines_are_read_and_given_back(samples: Path) -> None:
    path = samples / "odvg" / "flickr_separateGT_train_vg.jsonl"
    records, left_out = split(Odvg(annotations=str(path), images="").read())
    assert left_out == []
    assert (len(records), sum(len(record.regions) for record in records)) == (40, 123)
    assert {record.kind for record in records} == {"grounding"}
    assert [fault for record in records for fault in faults(record)] == []
    expected = [json.loads(line) for line in path.read_text().splitlines()]
    assert [json.loads(line) for line in OdvgExport().encode(to_batch(records)).splitlines()] == expected


def test_json_test_suite_as_lines(samples: Path, tmp_path: Path) -> None:
    files = sorted((samples / "json_parsing").rglob("*.json"))
    for path in files:
        body = path.read_bytes()
        if b"\n" in body or b"\r" in body or not body.strip():
            continue
        records, left_out = split(source(tmp_path, PUDDLE, body, NAMES).read())
        assert len(records) == 2, path.name
        if path.name.startswith("n_"):
            assert [(reject.id, reject.reason) for reject in left_out] == [("odvg/rows.jsonl:2", left_out[0].reason)]
            assert left_out[0].reason == "line_malformed", path.name
        elif path.name.startswith("y_object"):
            assert [reject.reason for reject in left_out] == ["row_malformed"], path.name
