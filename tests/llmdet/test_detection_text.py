"""The text of detection sources: each name once, spans without the dot, the same draw for the same key."""

import pytest

from llmdet.detection_text import detection_text

ANIMALS = ["ant", "bee", "cat", "dog", "eel", "fox"]


def test_names_are_joined_by_dot_and_blank_and_spans_leave_the_dot_out() -> None:
    text, spans = detection_text(["traffic light"], [], "dynamic", "any")
    assert text == "traffic light. "
    assert spans == {"traffic light": (0, 13)}


def test_every_span_gives_its_name_back() -> None:
    text, spans = detection_text(["cat", "dog"], ANIMALS, "all", "1|coco/7/0")
    assert sorted(spans) == ANIMALS
    assert {name: text[start:end] for name, (start, end) in spans.items()} == {name: name for name in ANIMALS}
    assert sorted(text.split(". ")) == ["", *ANIMALS]


def test_the_key_alone_decides_draw_and_order() -> None:
    texts = [detection_text(["cat"], ANIMALS, 4, f"0|coco/{number}/0")[0] for number in range(50)]
    assert texts == [detection_text(["cat"], ANIMALS, 4, f"0|coco/{number}/0")[0] for number in range(50)]
    assert len(set(texts)) > 20


def test_a_number_counts_the_positives_and_never_repeats_a_name() -> None:
    for number in range(50):
        text, spans = detection_text(["cat", "fox"], ANIMALS, 4, str(number))
        assert len(spans) == 4 == text.count(". ")
        assert {"cat", "fox"} < set(spans) <= set(ANIMALS)


def test_more_positives_than_the_number_are_all_kept() -> None:
    assert set(detection_text(ANIMALS, ANIMALS, 2, "key")[1]) == set(ANIMALS)


def test_more_names_asked_for_than_there_are() -> None:
    assert set(detection_text(["cat"], ANIMALS, 80, "key")[1]) == set(ANIMALS)


def test_every_negative_is_drawn_sooner_or_later_and_no_avoided_one() -> None:
    drawn = {name for number in range(200) for name in detection_text(["cat"], ANIMALS, 3, str(number), {"dog"})[1]}
    assert drawn == set(ANIMALS) - {"dog"}


@pytest.mark.parametrize("negatives", ["all", "dynamic", 6])
def test_a_name_given_twice_stands_in_the_text_once(negatives: object) -> None:
    text, spans = detection_text(["bow", "cap", "bow"], ["bow", "cap", "hat", "hat"], negatives, "key")  # type: ignore[arg-type]
    assert text.count("bow. ") == 1
    assert text.count("hat. ") == ("hat" in spans)


def test_no_names_at_all() -> None:
    assert detection_text([], [], "all", "key") == ("", {})
    assert detection_text([], [], 50, "key") == ("", {})
