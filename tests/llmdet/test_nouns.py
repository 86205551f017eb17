"""Class names get articles and plurals; free phrases keep their words."""

import pytest

from llmdet.nouns import class_noun, free_noun, plural


@pytest.mark.parametrize(
    ("name", "first", "many"),
    [
        ("tv", "a tv", "tvs"),
        ("SUV", "an SUV", "SUVs"),
        ("hair drier", "a hair drier", "hair driers"),
        ("glass of wine", "a glass of wine", "glasses of wine"),
        ("man in blue shirt", "a man in blue shirt", "men in blue shirt"),
        ("flip-flop_(sandal)", "a flip-flop", "flip-flops"),
        ("human", "a human", "humans"),
        ("policewoman", "a policewoman", "policewomen"),
        ("umpire", "an umpire", "umpires"),
        ("urinal", "a urinal", "urinals"),
        ("grapes", "grapes", ""),
        ("ottoman", "an ottoman", "ottomans"),
        ("reindeer", "a reindeer", "reindeer"),
    ],
)
def test_articles_and_plurals(name: str, first: str, many: str) -> None:
    noun = class_noun(name)
    assert (noun.first, noun.plural) == (first, many)


@pytest.mark.parametrize(
    ("name", "many"), [("potato", "potatoes"), ("box", "boxes"), ("key", "keys"), ("bus", "buses")]
)
def test_plural_endings(name: str, many: str) -> None:
    assert plural(name) == many


def test_free_phrases_are_fitted_at_their_start_only() -> None:
    assert free_noun("A man in a red hat.").again == "the man in a red hat"
    assert free_noun("his shoes").one_of == "one of his shoes"
    assert free_noun("Firemen").first == "Firemen"
    assert free_noun("a group of people").one_of == "one of the group of people"
    assert free_noun("  \n").first == "the object"
