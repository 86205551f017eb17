"""Things of a caption, and which of a detector's boxes they keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet import validate
from llmdet.boxes import iou
from llmdet.phrases import Parser
from llmdet.pseudo import Find, Thing, finds_of, grounded, joined_names, settle, suppress, things_in
from llmdet.record import Record

PARSER = Parser("pattern")
RECORD = Record("s/1/0", "s", "1", "0", "grounding", "1.jpg", "s", 100, 80, "")


def named(text: str) -> dict[str, list[str]]:
    return {thing.name: [text[slice(*span)] for span in thing.spans] for thing in things_in(text, PARSER)}


def test_things_are_phrases_without_article_and_number_in_the_order_of_the_text() -> None:
    assert named("A Dog sits beside two red balls; a man watches the dog.") == {
        "dog": ["A Dog", "the dog"],
        "red balls": ["two red balls"],
        "man": ["a man"],
    }


def test_the_picture_and_its_places_are_no_things() -> None:
    assert list(named("The image shows a cup on the left side of the picture, in soft light.")) == ["cup"]
    assert [thing.name for thing in things_in("A cup on a plate.", PARSER, skip=frozenset({"plate"}))] == ["cup"]


@pytest.mark.parametrize("text", ["", "...", "She is running.", "It is a sunny afternoon. \u2603"])
def test_texts_that_name_nothing(text: str) -> None:
    assert named(text) == {}


def test_names_keep_the_places_of_odd_letters() -> None:
    text = "\u0130stanbul (a cat) and a C++ book \u2603 beside the cat."
    for thing in things_in(text, PARSER):
        assert all(0 <= a < b <= len(text) for a, b in thing.spans)
    assert named(text)["cat"] == ["a cat", "the cat"]


def test_suppression_keeps_the_best_of_each_place() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 4.0]])
    scores = np.array([0.5, 0.9, 0.4, 0.8])
    # IoU of 0 and 1 is 0.8, of 1 and 3 exactly 0.5 (which stays), of 0 and 3 0.4
    assert suppress(boxes, scores, 0.5).tolist() == [1, 3, 2]
    assert suppress(boxes, scores, 0.3).tolist() == [1, 2]
    assert suppress(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []


BOX = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 12)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(st.lists(st.tuples(BOX, st.integers(0, 5)), max_size=12), st.sampled_from([0.3, 0.5, 0.7]))
def test_suppression_is_the_rule_as_it_is_said(rows: list[tuple[tuple[int, ...], int]], overlap: float) -> None:
    boxes = np.array([box for box, _ in rows], dtype=np.float64).reshape(-1, 4)
    scores = np.array([score for _, score in rows], dtype=np.float64)
    expected: list[int] = []
    for number in sorted(range(len(rows)), key=lambda i: -scores[i]):
        if all(iou(boxes[[number]], boxes[[other]])[0, 0] <= overlap for other in expected):
            expected.append(number)
    assert suppress(boxes, scores, overlap).tolist() == expected


def test_boxes_of_a_thing_reach_the_score_lie_in_the_picture_and_have_a_pixel() -> None:
    boxes = np.array([[-5, -5, 50.126, 40], [10, 10, 10.4, 60], [60, 10, 120, 200], [0, 0, 9, 9.0]])
    found = finds_of(7, boxes, np.array([0.3, 0.9, 0.51234567, 0.29]), 0.3, 0.5, (100, 80))
    assert found == [Find(7, (60, 10, 100, 80), 0.512346), Find(7, (0, 0, 50.13, 40), 0.3)]


def test_one_place_has_one_thing() -> None:
    here, there = (0.0, 0.0, 10.0, 10.0), (30.0, 0.0, 40.0, 10.0)
    finds = [Find(0, here, 0.5), Find(0, there, 0.4), Find(1, here, 0.7), Find(2, there, 0.4), Find(2, here, 0.1)]
    kept, lost = settle(finds, 0.8)
    assert kept == [Find(0, there, 0.4), Find(1, here, 0.7)]  # of equal scores the thing named first
    assert lost == [
        (Find(0, here, 0.5), Find(1, here, 0.7)),
        (Find(2, there, 0.4), Find(0, there, 0.4)),
        (Find(2, here, 0.1), Find(1, here, 0.7)),
    ]
    assert settle([], 0.8) == ([], [])


def test_a_record_has_a_region_for_each_thing_with_a_box() -> None:
    text = "A dog near a cup; the dog sleeps."
    things = [Thing("dog", ((0, 5), (18, 25))), Thing("cup", ((11, 16),)), Thing("owl", ())]
    finds = [Find(0, (0, 0, 5, 5), 0.9), Find(0, (9, 9, 20, 20), 0.4), Find(1, (1, 1, 8, 8), 0.6)]
    made = grounded(RECORD, text, things, finds)
    assert validate.faults(made) == []
    assert [(r.phrases, r.spans) for r in made.regions] == [
        (("A dog", "the dog"), ((0, 5), (18, 25))),
        (("a cup",), ((11, 16),)),
    ]
    assert [(b.xyxy, b.order, b.origin, b.score) for b in made.boxes] == [
        ((0, 0, 5, 5), 0, "pseudo", 0.9),
        ((9, 9, 20, 20), 1, "pseudo", 0.4),
        ((1, 1, 8, 8), 2, "pseudo", 0.6),
    ]


def test_names_become_a_detection_style_text() -> None:
    text, placed = joined_names([Thing("dog", ((0, 5),)), Thing("red cup", ((9, 18),))])
    assert text == "dog. red cup. "
    assert placed == [Thing("dog", ((0, 3),)), Thing("red cup", ((5, 12),))]
