"""What belongs to what: numbers, places and colours that have no noun of their own, and those of nothing."""

from __future__ import annotations

import pytest

from llmdet.checks import colours, counts, objects, positions
from llmdet.checks.reading import LONGEST
from tests.llmdet.checks.scenes import LEFT, MIDDLE, RIGHT, TOP, XYXY, reading, scene

BOTTOM: XYXY = (40, 75, 60, 95)
YARD = scene({"dog": [LEFT], "cat": [RIGHT], "kite": [TOP], "vase": [BOTTOM], "bench": [MIDDLE]})
SHEEP = scene({"sheep": [LEFT, MIDDLE, RIGHT]})


def misplaced(text: str) -> int:
    said, _, where = reading(YARD, text)
    return len(positions.contradicted(said, where, (100, 100)).findings)


def miscounted(text: str) -> int:
    said, here, _ = reading(SHEEP, text)
    return len(counts.contradicted(said, here).findings)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("Skip the right and try the left to see the cat.", "Skip the left and try the right to see the cat."),
        ("The dog shows up on the right of this one.", "The dog shows up on the left of this one."),
        ("At the bottom of this one, there's a kite.", "At the top of this one, there's a kite."),
        (
            "Draw a line down the middle, and the dog falls on the right of it.",
            "Draw a line down the middle, and the dog falls on the left of it.",
        ),
        ("The picture's bottom has a kite.", "The picture's top has a kite."),
        (
            "The kite is not in the upper half but in the lower one.",
            "The kite is not in the lower half but in the upper one.",
        ),
        (
            "The position of the dog is to the right of the centre.",
            "The position of the dog is to the left of the centre.",
        ),
        (
            "Starting from the dog, you have to look left to see the cat.",
            "Starting from the dog, you have to look right to see the cat.",
        ),
        ("Relative to the bench, the dog is to the right.", "Relative to the bench, the dog is to the left."),
        (
            "Relative to the kite, the vase is above in the frame.",
            "Relative to the kite, the vase is below in the frame.",
        ),
        ("The one on the left is a cat.", "The one on the right is a cat."),
        ("What is on the right? A dog.", "What is on the left? A dog."),
        ("The dog: on the right.", "The dog: on the left."),
    ],
)
def test_a_place_is_of_the_only_thing_that_it_can_be_of(wrong: str, right: str) -> None:
    assert misplaced(wrong) == 1
    assert misplaced(right) == 0


def test_the_first_and_the_second_are_the_two_things_before_them() -> None:
    said = "The kite and the vase are at opposite ends of the frame, the first at the {} and the second at the {}."
    assert misplaced(said.format("bottom", "top")) == 2
    assert misplaced(said.format("top", "bottom")) == 0


@pytest.mark.parametrize(
    "text",
    [
        "From the left, your eye has to travel to the right before it gets to the cat.",
        "Scan from the bottom and you eventually reach the kite.",
        "The cat is far from the left edge.",
        "Forget the left side: the cat is on the right.",
        "You expect the cat on the left, but it's the other way round.",
        "Is the dog on the right?",
    ],
)
def test_a_place_that_is_left_asked_or_denied_is_of_nothing(text: str) -> None:
    assert misplaced(text) == 0


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("The sheep are four in number.", "The sheep are three in number."),
        ("I got a quartet of sheep in one photo.", "I got a trio of sheep in one photo."),
        ("Count the sheep: four.", "Count the sheep: three."),
        ("How many sheep are there? Four.", "How many sheep are there? Three."),
    ],
)
def test_a_number_is_of_the_only_things_that_it_can_be_of(wrong: str, right: str) -> None:
    assert miscounted(wrong) == 1
    assert miscounted(right) == 0


@pytest.mark.parametrize("text", ["About four sheep are here.", "The sheep have stood here for four years."])
def test_a_number_that_is_about_or_of_something_else_is_of_nothing(text: str) -> None:
    assert miscounted(text) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Its vivid red colour makes the vase stand out.", ("red",)),
        ("What colour is the vase? Red.", ("red",)),
        ("The vase is not red.", ()),
        ("The vase stands beside a red wall.", ()),
    ],
)
def test_a_free_colour_is_of_the_only_thing_of_its_sentence(text: str, said: tuple[str, ...]) -> None:
    read_, _, where = reading(YARD, text)
    (vase,) = [ground for ground in where if "vase" in ground.noun.meant]
    assert colours.claimed(read_, vase.noun) == said


def test_a_place_at_which_something_is_not_claims_the_thing_and_no_absence() -> None:
    record = scene({"dog": [LEFT]}, absent="cat")
    for text, wrong in (("The cat is not in the upper half.", 1), ("The cat is not in the picture.", 0)):
        said, here, _ = reading(record, text)
        assert len(objects.ungrounded(said, here).findings) == wrong


def test_an_endless_caption_is_not_read_and_claims_nothing() -> None:
    text = "A dog sits on the right. " * (LONGEST // 25 + 1)
    assert len(text) > LONGEST
    said, here, where = reading(YARD, text)
    assert positions.contradicted(said, where, (100, 100)).claims == 0
    assert objects.unmentioned([said], here, 1).findings == ()
    assert misplaced(text[:100]) > 0
