"""Numbers of things against numbers of boxes."""

from __future__ import annotations

import pytest

from llmdet.checks.counts import contradicted
from tests.llmdet.checks.scenes import LEFT, MIDDLE, RIGHT, TOP, XYXY, reading, scene

DOGS = scene({"dog": [LEFT, MIDDLE, RIGHT], "skis": [TOP], "person": [LEFT, RIGHT]}, absent="cat")


def found(text: str) -> list[str]:
    said, here, _ = reading(DOGS, text)
    return [finding.detail for finding in contradicted(said, here).findings]


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("Four dogs lie on the grass.", ["'Four dogs' says 4: 3 boxes"]),
        ("There are 5 dogs.", ["'5 dogs' says 5: 3 boxes"]),
        ("As for dogs, there are two of them.", ["'dogs' says 2: 3 boxes"]),
        ("The dogs - four in all - catch the eye.", ["'The dogs' says 4: 3 boxes"]),
        ("Five dogs share the space.", ["'Five dogs' says 5: 3 boxes"]),
        ("Two dogs lie on the grass.", ["'Two dogs' says 2: 3 boxes"]),
        ("The number of dogs is two.", ["'The number of dogs' says 2: 3 boxes"]),
        ("The dogs, six in number, are spread out.", ["'The dogs' says 6: 3 boxes"]),
        ("A single dog lies there.", ["'A single dog' says 1: 3 boxes"]),
        ("Exactly one dog is there.", ["'one dog' says 1: 3 boxes"]),
        ("Four brown dogs.", ["'Four brown dogs' says 4: 3 boxes"]),
        ("Three men and a dog.", ["'Three men' says 3: 2 boxes"]),
        ("Three people and a dog.", ["'Three people' says 3: 2 boxes"]),
        ("Two of the dogs and three pairs of skis.", ["'three pairs of skis' says 3: 1 box"]),
        ("Both dogs sleep.", ["'Both dogs' says 2: 3 boxes"]),
        ("The picture is all about two dogs.", ["'two dogs' says 2: 3 boxes"]),
        ("A quartet of dogs rest here.", ["'A quartet of dogs' says 4: 3 boxes"]),
        ("A group of five dogs share the space.", ["'A group of five dogs' says 5: 3 boxes"]),
        ("The number of dogs in the image amounts to two.", ["'The number of dogs' says 2: 3 boxes"]),
        ("The dogs in the picture number four.", ["'The dogs' says 4: 3 boxes"]),
        ("The dogs form a group of two.", ["'The dogs' says 2: 3 boxes"]),
        ("The dogs, of which there are two, sleep.", ["'The dogs' says 2: 3 boxes"]),
        ("It is easy to count the dogs: there are four.", ["'the dogs' says 4: 3 boxes"]),
        ("No fewer than four dogs sleep.", ["'four dogs' says 4: 3 boxes"]),
        ("At most two dogs sleep.", ["'two dogs' says 2: 3 boxes"]),
        ("It looks like two dogs are here.", ["'two dogs' says 2: 3 boxes"]),
        ("Two dogs with care.", ["'Two dogs' says 2: 3 boxes"]),
        ("4x dogs.", ["'4x dogs' says 4: 3 boxes"]),
        ("- Dogs (4)", ["'Dogs' says 4: 3 boxes"]),
        ("Dogs x4.", ["'Dogs' says 4: 3 boxes"]),
        ("- Dogs: 4\n- Grass", ["'Dogs' says 4: 3 boxes"]),
        ("All four of the dogs sleep.", ["'the dogs' says 4: 3 boxes"]),
        ("All two of the pairs of skis.", ["'the pairs of skis' says 2: 1 box"]),
        ("Two is the number of dogs here.", ["'the number of dogs' says 2: 3 boxes"]),
        ("The number of dogs present in the scene is 4.", ["'The number of dogs' says 4: 3 boxes"]),
        ("The dogs appear four times.", ["'The dogs' says 4: 3 boxes"]),
        ("There are dogs here, two of them.", ["'dogs' says 2: 3 boxes"]),
        ("There are dogs in the picture, four of them to be exact.", ["'dogs' says 4: 3 boxes"]),
        ("Present here are some dogs - two, to be precise.", ["'some dogs' says 2: 3 boxes"]),
        ("If one counts the dogs, one arrives at two.", ["'the dogs' says 2: 3 boxes"]),
        ("Looks like four dogs to me.", ["'four dogs' says 4: 3 boxes"]),
    ],
)
def test_a_number_that_does_not_fit_is_found(text: str, details: list[str]) -> None:
    assert found(text) == details


@pytest.mark.parametrize(
    "text",
    [
        "Three dogs lie on the grass.",
        "As for dogs, there are three of them.",
        "Of the dogs, I like two of them.",
        "The dogs - three in all - catch the eye.",
        "The dogs - two asleep - catch the eye.",
        "A dog lies on the grass.",
        "Several dogs lie on the grass.",
        "One dog lies on the left, another on the right.",
        "Two brown dogs lie on the grass.",
        "Two dogs lie there and another dog runs.",
        "Two dogs with collars.",
        "About five dogs.",
        "At least two dogs.",
        "A man and two dogs, and a dog behind them.",
        "A man.",
        "Two dogs are on the left side of the picture.",
        "A pair of skis.",
        "Four cats.",  # not there at all: the check of objects says so
        "The number of legs is twelve.",
        "No fewer than two dogs sleep.",
        "At most four dogs sleep.",
        "Both dogs and cats sleep.",
        "Of the dogs, two are asleep.",
        "The dogs, two of them brown, sleep.",
        "The dogs play at two.",
        "From two to five dogs.",
        "3x dogs, and dogs (3).",
        "Dogs (4 years old) sleep.",
        "The dogs jump four times.",
        "All three of the dogs sleep.",
        "Two of the dogs sleep.",
        "Three is the number of dogs here.",
        "There are dogs here, two of them asleep.",
        "There are dogs, three of them to be exact.",
        "The dogs: one sleeps, two play.",
        "A cloud looks like four dogs.",
    ],
)
def test_a_number_that_can_fit_is_left_alone(text: str) -> None:
    from llmdet.checks.positions import attached

    said, here, grounds = reading(DOGS, text)

    def placed() -> list[object]:
        return [ground.noun for _, said_of in attached(said, grounds) for ground in said_of]

    assert contradicted(said, here, placed).findings == ()  # type: ignore[arg-type]


def test_small_boxes_need_not_be_counted() -> None:
    tiny: XYXY = (0, 0, 1.5, 1.5)
    said, here, _ = reading(scene({"dog": [LEFT, RIGHT, tiny]}), "Two dogs.")
    assert contradicted(said, here, small=0.01).findings == ()
    assert len(contradicted(said, here, small=0.001).findings) == 1


@pytest.mark.parametrize("record", [scene({"dog": [LEFT]}, exhaustive=False), scene({"dog": [LEFT]}, crowd=True)])
def test_nothing_is_said_where_boxes_may_be_missing_or_stand_for_crowds(record: object) -> None:
    said, here, _ = reading(record, "Five dogs.")  # type: ignore[arg-type]
    checked = contradicted(said, here)
    assert (checked.claims, checked.findings) == (0, ())
