from __future__ import annotations

import time

import pytest

from llmdet.boxes import XYXY
from llmdet.links import link
from llmdet.phrases import Parser, ParserName
from llmdet.positions import agrees, only_one, places_of
from llmdet.record import Box, Region
from llmdet.tagging import missing_nltk_data

needs_nltk = pytest.mark.skipif(bool(missing_nltk_data()), reason="needs nltk's data: set NLTK_DATA")
each_parser = pytest.mark.parametrize(
    "parser", [pytest.param("nltk", marks=needs_nltk), "pattern"], ids=["nltk", "pattern"]
)
WIDTH, HEIGHT = 640, 480
LEFT, MIDDLE, RIGHT = (10.0, 100.0, 110.0, 300.0), (270.0, 100.0, 370.0, 300.0), (500.0, 100.0, 600.0, 300.0)


def classes(**boxes: list[XYXY]) -> list[Region]:
    """Regions named by classes; `dining_table=[...]` has two words."""
    return [Region((name.replace("_", " "),), ((0, 1),), tuple(Box(box) for box in boxes[name])) for name in boxes]


def named(text: str, *phrases: str, boxes: int = 1) -> list[Region]:
    """Regions that a sentence names, each with `boxes` boxes."""
    return [
        Region((phrase,), ((text.index(phrase), text.index(phrase) + len(phrase)),), (Box(MIDDLE),) * boxes)
        for phrase in phrases
    ]


def links(parser: ParserName, caption: str, regions: list[Region], text: str = "") -> dict[str, tuple[str, int | None]]:
    found = link(caption, regions, WIDTH, HEIGHT, Parser(parser), text)
    return {caption[slice(*one.span)]: (regions[one.region].phrases[0], one.box) for one in found}


# --- regions named by classes --------------------------------------------------------------------------------------


@each_parser
def test_phrases_find_their_class_by_head_plural_and_synonym(parser: ParserName) -> None:
    regions = classes(person=[LEFT, RIGHT], dog=[MIDDLE], couch=[MIDDLE], tv=[MIDDLE], dining_table=[MIDDLE])
    caption = "Two women and a brown dog are near a red sofa, a television and a wooden table."
    assert links(parser, caption, regions) == {
        "Two women": ("person", None),
        "a brown dog": ("dog", 0),
        "a red sofa": ("couch", 0),
        "a television": ("tv", 0),
        "a wooden table": ("dining table", 0),
    }


@each_parser
def test_a_head_that_means_something_else_is_not_linked(parser: ParserName) -> None:
    regions = classes(dog=[LEFT], bear=[MIDDLE], traffic_light=[RIGHT])
    assert links(parser, "A hot dog lies beside a teddy bear under a warm light.", regions) == {}
    both = classes(dog=[LEFT], hot_dog=[RIGHT])
    assert links(parser, "The dog sees a hot dog.", both) == {"The dog": ("dog", 0), "a hot dog": ("hot dog", 0)}


@each_parser
def test_a_word_that_is_wider_than_the_class_or_fits_two_is_not_linked(parser: ParserName) -> None:
    assert links(parser, "A vehicle waits.", classes(car=[LEFT])) == {}
    assert links(parser, "A person waits.", classes(woman=[LEFT])) == {}
    assert links(parser, "A bag lies there.", classes(backpack=[LEFT], suitcase=[RIGHT])) == {}


@each_parser
def test_what_is_said_to_be_absent_is_not_linked(parser: ParserName) -> None:
    regions = classes(dog=[LEFT], hat=[RIGHT])
    assert links(parser, "There is no dog, and a man without a hat walks.", regions) == {}


@each_parser
def test_the_box_is_named_where_the_place_makes_it_certain(parser: ParserName) -> None:
    regions = classes(person=[MIDDLE, RIGHT, LEFT])
    assert links(parser, "A man on the left holds a stick.", regions) == {"A man": ("person", 2)}
    assert links(parser, "On the right, a woman smiles.", regions) == {"a woman": ("person", 1)}
    assert links(parser, "A man holds a stick.", regions) == {"A man": ("person", None)}
    assert links(parser, "The left arm of a man is raised.", regions)["a man"] == ("person", None)
    assert links(parser, "Two men on the left smile.", regions) == {"Two men": ("person", None)}


@each_parser
def test_a_place_where_no_box_is_gives_no_link(parser: ParserName) -> None:
    assert links(parser, "A dog on the right is asleep.", classes(dog=[LEFT])) == {}
    assert links(parser, "A dog on the left is asleep.", classes(dog=[LEFT])) == {"A dog": ("dog", 0)}
    # a place beside a thing is none in the picture
    assert links(parser, "A dog to the right of a pole is asleep.", classes(dog=[LEFT])) == {"A dog": ("dog", 0)}


def test_boxes_that_stand_for_crowds_are_never_the_one() -> None:
    crowd = [Region(("person",), ((0, 6),), (Box(LEFT, crowd=True),))]
    assert links("pattern", "A man walks.", crowd) == {"A man": ("person", None)}


# --- regions named by a sentence -----------------------------------------------------------------------------------


@each_parser
def test_people_are_told_apart_by_gender_clothes_and_number(parser: ParserName) -> None:
    text = "A man in a red shirt and a man in a blue shirt talk to a woman ."
    regions = named(text, "A man in a red", "a man in a blue", "a woman")
    found = link(
        "A man in a blue shirt and a man in a red shirt talk to a lady .", regions, 640, 480, Parser(parser), text
    )
    right = {(0, 5): 1, (26, 31): 0, (55, 61): 2}
    assert found  # some are left alone, none goes to another one
    assert {one.span: one.region for one in found}.items() <= right.items()
    assert links(parser, "A man in a red shirt talks to a woman .", regions, text) == {
        "A man": ("A man in a red", 0),
        "a woman": ("a woman", 0),
    }
    assert links(parser, "Two men talk .", regions, text) == {}


@each_parser
def test_two_that_look_alike_are_left_alone(parser: ParserName) -> None:
    text = "A man and another man sit on a bench ."
    regions = named(text, "A man", "a bench")
    assert "Men" not in links(parser, "Men sit on a bench .", regions, text)
    text = "A child sees a dog and a dog ."
    assert "a dog" not in links(parser, "A child plays with a dog .", named(text, "a dog and", "a dog ."), text)


@each_parser
def test_a_thing_of_the_sentence_without_a_region_keeps_its_name(parser: ParserName) -> None:
    text = "A red ball lies beside a blue ball ."
    assert links(parser, "A blue ball lies there .", named(text, "A red ball"), text) == {}
    assert links(parser, "A red ball lies there .", named(text, "A red ball"), text) == {
        "A red ball": ("A red ball", 0)
    }


@each_parser
def test_later_phrases_with_the_are_linked_along_and_pronouns_are_not(parser: ParserName) -> None:
    text = "A girl feeds a horse ."
    caption = "A girl stands on a field. She feeds a horse. The girl smiles at the horse, and another girl waits."
    found = link(caption, named(text, "A girl", "a horse"), WIDTH, HEIGHT, Parser(parser), text)
    words = [caption[slice(*one.span)] for one in found]
    assert "The girl" in words
    assert words.count("a horse") == words.count("the horse") == 1
    assert "She" not in words
    assert "another girl" not in words


@each_parser
def test_other_colours_and_opposites_speak_against(parser: ParserName) -> None:
    text = "A woman carries a black bag ."
    regions = named(text, "a black bag")
    assert links(parser, "A woman carries a black bag .", regions, text)["a black bag"] == ("a black bag", 0)
    assert links(parser, "People walk past a white bag .", regions, text) == {}


def test_a_higher_threshold_links_a_part_of_what_a_lower_one_does() -> None:
    text = "A man in a red shirt plays a guitar near a tree ."
    regions = named(text, "A man", "a red shirt", "a guitar", "a tree")
    caption = "A musician in a shirt with a guitar under trees ."
    found = [
        set(link(caption, regions, WIDTH, HEIGHT, Parser("pattern"), text, min_score)) for min_score in (-9.0, 1.0, 9.0)
    ]
    assert found[0] > found[1] > found[2] == set()


def test_without_regions_or_with_a_giant_caption_there_are_no_links() -> None:
    assert link("A dog", [], WIDTH, HEIGHT, Parser("pattern")) == ()
    assert link("A dog. " * 4000, classes(dog=[LEFT]), WIDTH, HEIGHT, Parser("pattern")) == ()


def test_many_regions_and_a_long_caption_take_bounded_time() -> None:
    text = " ".join(f"a red thing{i} and a man ." for i in range(250))
    regions = named(text, *(f"a red thing{i} " for i in range(250)))
    started = time.process_time()
    link("a man and a dog . " * 1000, regions, WIDTH, HEIGHT, Parser("pattern"), text)
    assert time.process_time() - started < 2


# --- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a dog on the left", {"left"}),
        ("a dog on the far right side of the image", {"right"}),
        ("a dog in the top left corner", {"top", "left"}),
        ("the left dog", {"left"}),
        ("In the middle, a dog", {"middle"}),
        ("On the left is a dog", {"left"}),
        ("a dog to the left of a car", set()),
        ("a dog in the middle of a street", set()),
        ("a dog on the left arm of a man", set()),
        ("a dog", set()),
    ],
)
def test_places_are_read_where_they_are_of_the_picture(text: str, places: set[str]) -> None:
    parsed = Parser("pattern").parse(text)
    (dog,) = [index for index, phrase in enumerate(parsed.phrases) if phrase.lemma == "dog"]
    assert places_of(parsed, dog) == places


def test_boxes_agree_with_a_place_contradict_it_or_leave_it_open() -> None:
    left = frozenset({"left"})
    assert agrees(left, LEFT, WIDTH, HEIGHT) is True  # type: ignore[arg-type]
    assert agrees(left, RIGHT, WIDTH, HEIGHT) is False  # type: ignore[arg-type]
    assert agrees(left, (300, 0, 360, 9), WIDTH, HEIGHT) is None  # type: ignore[arg-type]
    assert agrees(frozenset(), LEFT, WIDTH, HEIGHT) is None
    assert agrees(frozenset({"left", "top"}), LEFT, WIDTH, HEIGHT) is True  # type: ignore[arg-type]


def test_of_two_boxes_on_one_side_none_is_certain() -> None:
    near = (60.0, 100.0, 160.0, 300.0)
    assert only_one(frozenset({"left"}), [LEFT, near], WIDTH, HEIGHT) is None  # type: ignore[arg-type]
    assert only_one(frozenset({"left"}), [RIGHT, LEFT], WIDTH, HEIGHT) == 1  # type: ignore[arg-type]
    assert only_one(frozenset({"right"}), [LEFT, near], WIDTH, HEIGHT) is None  # type: ignore[arg-type]


def test_a_picture_without_a_size_gets_no_links() -> None:
    regions = classes(dog=[LEFT])
    assert link("A dog on the left.", regions, 640, 480, Parser("pattern"))
    assert link("A dog on the left.", regions, 0, 480, Parser("pattern")) == ()
