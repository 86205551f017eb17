"""Which words of a caption claim a thing that is not there."""

from __future__ import annotations

import pytest

from llmdet.checks.names import can_mean, names_index, words_of
from llmdet.checks.objects import ungrounded, unmentioned
from tests.llmdet.checks.scenes import LEFT, MIDDLE, RIGHT, reading, scene

ROOM = scene(
    {"dog": [LEFT], "couch": [MIDDLE], "motorcycle": [RIGHT]},
    absent="cat,person,bicycle,hot dog,tv,bear,orange,wine glass,dining table,stop sign",
)


def found(text: str) -> list[str]:
    said, here, _ = reading(ROOM, text)
    return [text[slice(*finding.span)] for finding in ungrounded(said, here).findings]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A cat sleeps on the sofa.", ["cat"]),
        ("Two cats rest beside a dog.", ["cats"]),
        ("A kitten sits near the puppy.", ["kitten"]),
        ("A woman holds the dog.", ["woman"]),
        ("The television is on.", ["television"]),
        ("A dog looks at a hot dog.", ["hot dog"]),
        ("There are three TVs.", ["TVs"]),
        ("An orange lies on the couch.", ["orange"]),
        ("Behind the dog stand two wine glasses.", ["wine glasses"]),
        ("A bear rests close to the couch.", ["bear"]),
        ("A baby cat lies there.", ["cat"]),
        ("Next to a stop sign, a dog waits.", ["stop sign"]),
        ("A dog and a cat share the same space.", ["cat"]),
        ("Someone has left a cat right beside a dog.", ["cat"]),
        ("Close by a cat somebody has put a dog.", ["cat"]),
        ("The picture would not be complete without a cat.", ["cat"]),
        ("Nobody minds a cat standing close to a dog.", ["cat"]),
        ("A dog and a bear appear to be alone.", ["bear"]),
    ],
)
def test_a_name_that_is_known_to_be_absent_is_found(text: str, words: list[str]) -> None:
    assert found(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "A dog lies on a sofa beside a motorbike.",
        "A bike stands on the right.",  # may be the motorcycle
        "There is no cat, person or bear in the room.",
        "A dog without a person.",
        "A dog that is not alone, without a person.",
        "A dog that looks like a bear.",
        "A statue of a bear stands behind the dog.",
        "A stuffed bear lies on the couch.",
        'The sign reads "BEWARE OF THE CAT".',
        "A person-sized dog.",
        "A person looking at this image would notice a dog.",
        "An orange couch.",
        "The dog bed is empty.",
        "Cat food for the dog.",
        "A giraffe eats leaves.",  # no name of this vocabulary
        "A glass stands on a table.",  # a wine glass, a dining table, or others
        "The cat is nowhere to be seen.",
        "Somebody has photographed a dog.",
    ],
)
def test_what_claims_nothing_absent_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_a_name_without_a_box_is_no_contradiction_where_nobody_says_that_it_is_absent() -> None:
    record = scene({"dog": [LEFT]}, exhaustive=False)
    said, here, _ = reading(record, "A cat and a dog.")
    assert ungrounded(said, here).findings == ()


def test_sentences_know_of_nothing_that_is_absent() -> None:
    from dataclasses import replace

    said, here, _ = reading(replace(ROOM, kind="grounding", negatives=()), "A cat and a bear.")
    assert ungrounded(said, here).findings == ()


def test_claims_are_counted_with_those_that_hold() -> None:
    said, here, _ = reading(ROOM, "A dog and a cat lie on a couch under a lamp.")
    assert ungrounded(said, here).claims == 3


def test_boxes_that_no_caption_speaks_of_are_found_and_small_ones_are_not() -> None:
    record = scene({"dog": [LEFT, RIGHT], "cup": [(0, 0, 5, 5)], "couch": [MIDDLE]})
    one, here, _ = reading(record, "A puppy.")
    two, _, _ = reading(record, "A room.")
    checked = unmentioned([one, two], here, least_area=100)
    assert checked.claims == 3
    assert [finding.detail for finding in checked.findings] == ["couch at [40, 40, 60, 60]"]


def test_a_wider_word_mentions_a_thing() -> None:
    record = scene({"dog": [LEFT], "dining table": [MIDDLE]})
    said, here, _ = reading(record, "An animal lies under a desk.")
    assert unmentioned([said], here, least_area=0).findings == ()


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dining Table", ("dining", "table")),
        ("bow_(weapon)", ("bow",)),
        ("skis", ("skis",)),
        ("traffic_light", ("traffic", "light")),
        ("potatoes", ("potato",)),
        ("()", ()),
    ],
)
def test_words_of_a_name(name: str, words: tuple[str, ...]) -> None:
    assert words_of(name) == words


def test_the_longest_name_is_the_one_that_is_meant() -> None:
    index = names_index(("dog", "hot dog"))
    assert index.at(("a", "hot", "dog")) == (2, {"hot dog": "name"})
    assert index.at(("a", "brown", "dog")) == (1, {"dog": "name"})
    assert index.at(("a", "corn", "dog")) == (0, {})
    assert index.at(("cat",)) == (0, {})


def test_both_names_of_a_name_with_a_stroke_are_found() -> None:
    index = names_index(("sofa/couch",))
    assert index.at(("sofa",)) == (1, {"sofa/couch": "name"})
    assert index.at(("couch",)) == (1, {"sofa/couch": "name"})


def test_a_bike_can_be_two_things() -> None:
    assert can_mean(("bike",)) == {"bicycle", "motorcycle"}
    assert can_mean(("sidewalk",)) == frozenset()
