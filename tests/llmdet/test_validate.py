from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.record import Box, Caption, Link, Record, Region, Span, to_batch
from llmdet.validate import COLUMNS, faults, sound, without_bad_boxes
from tests.llmdet.example_records import FULL, SENTENCE, few

DOG = Region(("dog",), ((0, 3),), (Box((1.0, 2.0, 30.0, 40.0), 0),))
SOUND = Record("s/1/0", "s", "1", "0", "detection", "1.jpg", "s", 100, 80, "dog. Cat. ", (DOG,), ((5, 8),))


def box(*xyxy: float) -> Record:
    return replace(SOUND, regions=(replace(DOG, boxes=(Box(xyxy, 0),)),))  # type: ignore[arg-type]


def said(phrase: str, *spans: Span) -> Record:
    return replace(SOUND, regions=(Region((phrase,) * len(spans), spans, ()),))


def linked(*links: Link) -> Record:
    return replace(SOUND, captions=(Caption("A dog."), Caption("The dog.", links=links)))


def linked_box(*links: Link) -> Record:
    boxes = (replace(DOG.boxes[0], order=7, caption=Caption("It is a dog.", links=links)),)
    return replace(SOUND, regions=(replace(DOG, boxes=boxes),))


@pytest.mark.parametrize("record", [linked(Link((0, 7), 0), Link((4, 8), 0, 0)), linked_box(Link((6, 11), 0, 0))])
def test_links_to_what_is_there_are_sound(record: Record) -> None:
    assert faults(record) == []
    assert sound(to_batch([record])).tolist() == [True]


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
        (linked(Link((0, 9), 0)), "link_span_outside_text: [0, 9) in 8 characters in caption 1"),
        (linked(Link((4, 4), 0)), "link_span_outside_text: [4, 4) in 8 characters in caption 1"),
        (linked(Link((0, 7), 1)), "link_without_region: 1 of 1 in caption 1"),
        (linked(Link((0, 7), -1)), "link_without_region: -1 of 1 in caption 1"),
        (linked(Link((0, 7), 0, 1)), "link_without_box: 1 of 1 in caption 1"),
        (linked_box(Link((0, 7), 3)), "link_without_region: 3 of 1 in the caption of box 7"),
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
    assert sound(to_batch([record])).tolist() == [False]


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


# Letters whose lower case, case folding and number of bytes differ in every way there is.
TEXTS = ["dog. Cat. ", "a café, İstanbul, STRASSE", "straße ﬁn \u212a", "\U0001f415 dog", ""]
PHRASES = ["dog", "DOG", "Cat", "café", "CAFÉ", "strasse", "STRASSE", "fin", "k", "i\u0307", "og", ""]
SPANS = st.tuples(st.integers(-1, 12), st.integers(-1, 26))
LINKS = st.lists(
    st.builds(
        Link, st.tuples(st.integers(-1, 5), st.integers(0, 7)), st.integers(-1, 2), st.none() | st.integers(-1, 2)
    ),
    max_size=2,
).map(tuple)
CAPTIONS = st.builds(Caption, st.sampled_from(["", "a caf\u00e9", "\U0001f415 dog."]), links=LINKS)
CAPTIONED = st.builds(Box, st.just((1.0, 2.0, 30.0, 40.0)), caption=st.none() | CAPTIONS)
REGIONS = st.builds(
    Region,
    st.lists(st.sampled_from(PHRASES), max_size=2).map(tuple),
    st.lists(SPANS, max_size=2).map(tuple),
    st.lists(
        CAPTIONED
        | st.sampled_from([Box((1.0, 2.0, 30.0, 40.0)), Box((1.0, 2.0, math.nan, 4.0)), Box((0.0, 0.0, 0.5, 9.0))]),
        max_size=2,
    ).map(tuple),
)


@st.composite
def said_somewhere(draw: st.DrawFn) -> Record:
    """A record of which some phrases are where their spans say, in this case or another."""
    text = draw(st.sampled_from(TEXTS))
    regions = draw(st.lists(REGIONS, max_size=2))
    if text:
        start = draw(st.integers(0, len(text) - 1))
        span = start, draw(st.integers(start + 1, len(text)))
        case = draw(st.sampled_from([str, str.upper, str.lower, str.swapcase]))
        regions.append(Region((case(text[slice(*span)]),), (span,), ()))
    negatives = draw(st.lists(SPANS, max_size=1))
    size = draw(st.sampled_from([100, 100, 0]))
    captions = tuple(draw(st.lists(CAPTIONS, max_size=2)))
    return replace(SOUND, text=text, regions=tuple(regions), negatives=tuple(negatives), width=size, captions=captions)


@few
@given(st.lists(said_somewhere(), max_size=30))
def test_bulk_and_row_find_the_same_records_sound(records: list[Record]) -> None:
    expected = [not faults(record) for record in records]
    assert sound(to_batch(records)).tolist() == expected
    batch = to_batch([SOUND, *records])
    assert sound(batch.slice(1)).tolist() == expected


def test_bulk_needs_no_more_than_its_columns() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches([to_batch([SOUND, said("dog", (5, 8)), FULL])]), sink)
    (batch,) = pq.ParquetFile(pa.BufferReader(sink.getvalue())).read(columns=COLUMNS).to_batches()
    assert np.array_equal(sound(batch), [True, False, True])
