"""Places that captions give to things."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmdet.checks.grounds import Ground, grounds
from llmdet.checks.positions import contradicted, places
from llmdet.checks.reading import known, read
from llmdet.record import Box, Link, Record, Region
from tests.llmdet.checks.scenes import LEFT, MIDDLE, RIGHT, TOP, reading, scene

PARK = scene(
    {"dog": [LEFT], "cat": [RIGHT], "kite": [TOP], "bench": [MIDDLE], "bird": [LEFT, RIGHT], "cow": [LEFT, LEFT]}
)


def found(text: str, record: Record = PARK) -> list[str]:
    said, _, where = reading(record, text)
    return [finding.detail for finding in contradicted(said, where, (100, 100)).findings]


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("A dog sits on the right.", "dog"),
        ("The dog is closer to the right than to the left.", "dog"),
        ("The kite is closer to the bottom than to the top.", "kite"),
        ("A dog is nearer to the right edge of the image than to the left one.", "dog"),
        ("A kite hangs below the middle of the image.", "kite"),
        ("Below the centre of the picture there is a kite.", "kite"),
        ("Shifting our attention to the right, we find a dog.", "dog"),
        ("A bench, a dog (right) and a cat (right).", "dog"),
        ("On the right, a dog sits beside a bench.", "dog"),
        ("To the right, there is a dog.", "dog"),
        ("The right half of the photo is taken up by a dog.", "dog"),
        ("The dog in the lower right corner sleeps.", "dog"),
        ("Look to the right and you find a dog.", "dog"),
        ("A cat appears left of centre.", "cat"),
        ("The leftmost cat sleeps.", "cat"),
        ("The left cat sleeps.", "cat"),
        ("A kite is at the bottom of the image.", "kite"),
        ("Toward the bottom, one finds a kite.", "kite"),
        ("In the picture's right corner is a dog.", "dog"),
        ("A dog is on the left and a cat is on the left.", "cat"),
        ("On the left is a dog, on the left a cat.", "cat"),
        ("A dog is to the right of a cat.", "dog"),
        ("The cat sits left of the dog.", "cat"),
        ("To the left of the dog sits a cat.", "cat"),
        ("Two cows graze on the right.", "cows"),
        ("A dog lies on the grass on the right.", "dog"),
        ("A man with a dog on the right.", "dog"),
        ("A fluffy dog with a red collar around its neck lies on the right.", "dog"),
        ("A dog, its fur wet, is visible in the lower right corner.", "dog"),
        ("A dog beside a bench is on the right.", "dog"),
        ("A group of dogs sits on the right.", "dogs"),
        ("In the right background, a dog rests.", "dog"),
        ("On the viewer's right, a dog sits.", "dog"),
        ("The right side of the image features a dog.", "dog"),
        ("A dog is on the right inside of a fence.", "dog"),
        ("A field with an opening and a dog to the right.", "dog"),
        ("At bottom center is a kite.", "kite"),
        ("There appears to be a dog on the right.", "dog"),
        ("The image shows a dog. It is on the right side.", "dog"),
        ("There is a dog here, and it sits on the right.", "dog"),
        ("The object on the right is a dog.", "dog"),
        ("As we move to the right, a dog comes into focus.", "dog"),
        ("A dog leans in from the right.", "dog"),
        ("Far right: a dog.", "dog"),
        ("A dog is below a kite. A kite is below a dog.", "kite"),
        ("Above a kite there is a dog.", "dog"),
        ("From left to right, we see a cat, a bench and a cow.", "cat"),
        ("A dog has a cat to its left.", "cat"),
        ("On the dog's left there is a cat.", "cat"),
        ("A cat is further left than a dog.", "cat"),
        ("The picture has a dog to its right.", "dog"),
        ("The dog is not on the left but on the right.", "dog"),
        ("The dog is on the right, not the left.", "dog"),
        ("A dog and a cat are on the right and the left, respectively.", "dog"),
        ("Glancing over to the right side reveals a dog.", "dog"),
        ("Turning to the right, one finds a dog.", "dog"),
        ("The dog is placed right-of-center.", "dog"),
        ("A dog, right, and a bench.", "dog"),
        ("Bottom right: a dog.", "dog"),
        ("In the right lower corner is a dog.", "dog"),
        ("The kite is lower in the frame than the bench.", "kite"),
        ("The kite is low in the picture.", "kite"),
        ("There is a bench, and to the right of it a dog.", "dog"),
        ("There is a bench; a dog is to the right of it.", "dog"),
        ("A dog on right, a bench behind it.", "dog"),
    ],
)
def test_a_thing_on_the_other_side_is_found(text: str, thing: str) -> None:
    (detail,) = found(text)
    assert detail.startswith(repr(thing))


@pytest.mark.parametrize(
    "text",
    [
        "The dog is closer to the left than to the right.",
        "The kite is closer to the top than to the bottom.",
        "A dog is nearer to the left edge of the image than to the right one.",
        "The dog is no closer to the right than to the left.",
        "A kite hangs above the middle of the image.",
        "A dog shifting its attention to the right.",
        "Shifting our attention to the left, we find a dog.",
        "A dog (left) and a cat (right).",
        "A dog sits on the left and a cat on the right.",
        "On the left is a dog, on the right a cat.",
        "The bench is on the left.",  # it is in the middle
        "A bird sits on the right.",  # one of two
        "A dog looks to the right.",
        "A dog facing right.",
        "The dog raises its right paw.",
        "A dog on the right side of the street.",
        "The right amount of light falls on the dog.",
        "What is left of a dog.",
        "A tree stands on the right. A dog sleeps.",
        "A dog sits left of a cat.",
        "A dog with a stick at the right end of a rope on top of a hill.",
        "A dog right next to a bench.",
        "A house on the right with a dog.",
        "Shadows of a dog fall to the right.",
        "A dog splashing water on the right.",
        "A dog watches something that you see off to the right.",
        "The tail of the dog lies on the right.",
        "A man next to a dog is on the right.",
        "A dog looks at a man who stands on the right.",
        "A dog is looking at a tree on the right.",
        "The dog, watched by a woman on the right, sleeps.",
        "A house with a dog in front of it stands on the right.",
        "On the bottom middle shelf lies a kite.",
        "Of the birds, the one on the right sings.",
        "A dog sees a bench. It is on the right.",  # may be said of the dog, the bench is in the middle
        "A cat and a dog are here. It is on the left.",
        "A kite above a dog, seen from above.",
        "A dog has a cat to its right.",
        "A dog lies below a kite, near the bottom.",
        "From left to right, we see a dog, a bench and a cat.",
        "A dog looks to its right.",
        "A dog lifts its right paw.",
        "On top of everything else, a dog.",
        "The light on the right falls on a dog.",
        "The dog is not on the right but on the left.",
        "Instead of the right, the dog is on the left.",
        "The dog isn't on the right.",
        "A dog and a cat are at left and right, respectively.",
        "Turning to the right, the dog sees a cat.",
        "A dog, left, and a cat, far right.",
        "He turned, right, and a dog followed.",
        "The dog is lower than the kite.",
        "The kite is higher in the frame than the bench.",
        "The kite is high up in the picture.",
        "A dog sits next to a bench, left of it.",
        "There is a bench; a dog is to the left of it.",
    ],
)
def test_what_can_be_true_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_a_box_that_reaches_into_the_third_that_was_named_is_left_alone() -> None:
    assert found("The couch is on the left.", scene({"couch": [(20, 40, 100, 60)]})) == []
    assert found("The couch is on the left.", scene({"couch": [(40, 40, 100, 60)]})) != []


def test_a_crowd_is_nowhere_in_particular() -> None:
    assert found("Dogs on the right.", scene({"dog": [LEFT]}, crowd=True)) == []


def test_links_say_which_region_a_phrase_means() -> None:
    text = "A tall man and a woman on the left."
    regions = (Region(("A tall man",), ((0, 10),), (Box(LEFT),)), Region(("a woman",), ((15, 22),), (Box(RIGHT),)))
    record = replace(scene({}), kind="grounding", text=text, regions=regions)
    here = known(record)
    said = read(text, here.names, "pattern")
    where = grounds(said, here, regions, (Link((0, 10), 0), Link((15, 22), 1)))
    assert len(contradicted(said, where, (100, 100)).findings) == 1
    assert contradicted(said, grounds(said, here, regions), (100, 100)).findings == ()


def test_linked_words_are_a_thing_whatever_the_parser_takes_them_for() -> None:
    text = "There is an evergreen to the right."
    record = replace(scene({}), kind="grounding", text=text, regions=(Region(("an",), ((9, 21),), (Box(LEFT),)),))
    said = read(text, (), "pattern")
    said = replace(said, nouns=tuple([noun for noun in said.nouns if noun.span[0] > 21]))
    links = (Link((9, 21), 0),)
    assert contradicted(said, grounds(said, known(record), record.regions, links), (100, 100)).findings
    assert grounds(said, known(record), record.regions) == [Ground(noun, ()) for noun in said.nouns]


def test_places_are_signs_along_both_axes() -> None:
    said = read("In the upper left corner is a dog, at the bottom a cat, to the right of it a bird.", (), "pattern")
    assert [(place.x, place.y, place.to) for place in places(said)] == [
        (-1, -1, "picture"),
        (0, 1, "picture"),
        (1, 0, "next"),
    ]
