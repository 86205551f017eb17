"""Mirrored records."""

from dataclasses import replace

import pytest

from detector.mirror import has_lettering, mirror
from llmdet.record import Box, Caption, Record, Region, Span


def record(text: str, *spans: Span, captions: tuple[str, ...] = (), **changes: object) -> Record:
    regions = tuple(
        Region((text[start:end],), ((start, end),), (Box((10.0 * n, 5.0, 10.0 * n + 20.0, 9.0), mask="{}"),))
        for n, (start, end) in enumerate(spans)
    )
    said = tuple(map(Caption, captions))
    whole = Record("s/1/0", "s", "1", "0", "grounding", "a.jpg", "w", 100, 50, text, regions, captions=said)
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_boxes_and_words_change_sides_and_spans_follow() -> None:
    text = "The left dog sees two cats on the right side and a man"
    one = record(text, (0, 12), (18, 26), (30, 44), (49, 54), negatives=((18, 21),))
    turned = mirror(one)
    assert turned is not None
    assert turned.text == "The right dog sees two cats on the left side and a man"
    assert [region.phrases for region in turned.regions] == [
        ("The right dog",),
        ("two cats",),
        ("the left side",),
        ("a man",),
    ]
    for region in turned.regions:
        assert tuple(turned.text[start:end] for start, end in region.spans) == region.phrases
    assert turned.text[slice(*turned.negatives[0])] == "two"
    assert [region.boxes[0].xyxy for region in turned.regions] == [
        (80.0, 5.0, 100.0, 9.0),
        (70.0, 5.0, 90.0, 9.0),
        (60.0, 5.0, 80.0, 9.0),
        (50.0, 5.0, 70.0, 9.0),
    ]
    assert turned.regions[0].boxes[0].mask is None
    back = mirror(turned)
    assert back is not None
    assert back.text == text
    assert [region.boxes[0].xyxy for region in back.regions] == [region.boxes[0].xyxy for region in one.regions]
    assert [region.spans for region in back.regions] == [region.spans for region in one.regions]


@pytest.mark.parametrize(
    ("text", "turned"),
    [
        ("On the left, a dog.", "On the right, a dog."),
        ("From left to right: a cup and a jug.", "From right to left: a cup and a jug."),
        ("A LEFT-HAND drive, the Rightmost lane", "A RIGHT-HAND drive, the Leftmost lane"),
        ("her left arm and right leg", "her right arm and left leg"),
        ("a cup to the right of a jug", "a cup to the left of a jug"),
        ("a dog right next to a bright upright lamp", "a dog right next to a bright upright lamp"),
        ("a dog", "a dog"),
    ],
)
def test_sides_in_captions_and_texts_are_swapped(text: str, turned: str) -> None:
    swapped = mirror(record(text, captions=(text,)))
    assert swapped is not None
    assert (swapped.text, swapped.captions[0].text) == (turned, turned)


def test_captions_of_boxes_are_swapped_too() -> None:
    one = record("a dog", (0, 5))
    told = replace(one.regions[0].boxes[0], caption=Caption("a dog on the left"))
    turned = mirror(replace(one, regions=(replace(one.regions[0], boxes=(told,)),)))
    assert turned is not None
    assert turned.regions[0].boxes[0].caption == Caption("a dog on the right")


@pytest.mark.parametrize(
    "text",
    [
        "the man left the room",
        "some cake is left",
        "a right whale",
        "Two people stand right there",
        "a sign that reads stop",
        'a shirt with "Nike" on it',
        "a clock on a wall",
    ],
)
def test_what_cannot_be_mirrored_for_certain_is_left_alone(text: str) -> None:
    assert mirror(record(text)) is None
    assert mirror(record("a dog", captions=("A dog.", text))) is None


def test_names_that_the_photo_does_not_show_are_no_lettering() -> None:
    names = record("dog. stop sign. ", (0, 3), kind="detection")
    assert not has_lettering(names)
    assert has_lettering(record("dog. stop sign. ", (0, 3), (5, 14), kind="detection"))
    assert has_lettering(replace(names, flags=("rendered_text",)))
