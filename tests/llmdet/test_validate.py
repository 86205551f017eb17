from __future__ import annotations

import math
from dataclasses import replace

import pytest

from llmdet.record import Box, Record, Region, Span
from llmdet.validate import faults, without_bad_boxes
from tests.llmdet.example_records import FULL, SENTENCE

DOG = Region(("dog",), ((0, 3),), (Box((1.0, 2.0, 30.0, 40.0), 0),))
SOUND = Record("s/1/0", "s", "1", "0", "detection", "1.jpg", "s", 100, 80, "dog. Cat. ", (DOG,), ((5, 8),))


def box(*xyxy: float) -> Record:
    return replace(SOUND, regions=(replace(DOG, boxes=(Box(xyxy, 0),)),))  # type: ignore[arg-type]


def said(phrase: str, *spans: Span) -> Record:
    return replace(SOUND, regions=(Region((phrase,) * len(spans), spans, ()),))


@pytest.mark.parametrize("record", [SOUND, FULL, SENTENCE, said("CAT", (5, 8)), box(-5, -5, 105, 85), box(0, 0, 1, 1)])
def test_sound_records_have_no_faults(record: Record) -> None:
    assert faults(record) == []


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (replace(SOUND, width=0, regions=()), "size_not_positive: 0x80"),
        (replace(SOUND, height=-1, regions=()), "size_not_positive: 100x-1"),
        (said("dog", (5, 8)), "phrase_not_at_span: 'dog' against 'Cat' in region 0"),
        (said("dog", (0, 11)), "span_outside_text: [0, 11) in 10 characters in region 0"),
        (said("dog", (-1, 3)), "span_outside_text: [-1, 3) in 10 characters in region 0"),
        (said("", (3, 3)), "span_outside_text: [3, 3) in 10 characters in region 0"),
        (said("dog", (3, 0)), "span_outside_text: [3, 0) in 10 characters in region 0"),
        (said("dog"), "phrases_and_spans_differ: 0 phrases, 0 spans in region 0"),
        (
            replace(SOUND, regions=(Region(("dog", "cat"), ((0, 3),), ()),)),
            "phrases_and_spans_differ: 2 phrases, 1 spans in region 0",
        ),
        (replace(SOUND, negatives=((8, 11),)), "span_outside_text: [8, 11) in 10 characters"),
        (box(1, 2, math.nan, 4), "box_not_finite: (1, 2, nan, 4) in 100x80 in region 0"),
        (box(1, 2, math.inf, 4), "box_not_finite: (1, 2, inf, 4) in 100x80 in region 0"),
        (box(1, 2, 1.5, 40), "box_below_one_pixel: (1, 2, 1.5, 40) in 100x80 in region 0"),
        (box(30, 2, 1, 40), "box_below_one_pixel: (30, 2, 1, 40) in 100x80 in region 0"),
        (box(100, 2, 130, 40), "box_outside_image: (100, 2, 130, 40) in 100x80 in region 0"),
        (box(-30, 2, 0, 40), "box_outside_image: (-30, 2, 0, 40) in 100x80 in region 0"),
    ],
)
def test_every_broken_invariant_is_named(record: Record, fault: str) -> None:
    assert faults(record) == [fault]


def test_all_faults_of_a_record_are_told() -> None:
    worst = replace(said("dog", (5, 8), (0, 99)), width=0)
    assert [one.split(":")[0] for one in faults(worst)] == [
        "size_not_positive",
        "phrase_not_at_span",
        "span_outside_text",
    ]


def test_bad_boxes_go_and_their_region_stays() -> None:
    good = Box((1.0, 2.0, 30.0, 40.0), 0)
    bad = (Box((1.0, 2.0, 1.5, 40.0), 1, annotation_id="77"), Box((200.0, 2.0, 230.0, 40.0), 2))
    cat = Region(("Cat",), ((5, 8),), (bad[1],))
    kept, left_out = without_bad_boxes(replace(SOUND, regions=(replace(DOG, boxes=(bad[0], good)), cat)))
    assert kept.regions == (DOG, replace(cat, boxes=()))
    assert left_out == [
        ("77", ("box_below_one_pixel", "(1.0, 2.0, 1.5, 40.0) in 100x80")),
        ("2", ("box_outside_image", "(200.0, 2.0, 230.0, 40.0) in 100x80")),
    ]
    assert faults(kept) == []


def test_a_record_with_good_boxes_is_returned_itself() -> None:
    kept, left_out = without_bad_boxes(FULL)
    assert kept is FULL
    assert left_out == []
