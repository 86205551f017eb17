"""What a language model is to say of a sample."""

import pytest

from detector.words import clean_phrase, words_of
from llmdet.record import Box, Caption, Record, Region


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("A young man", "Young man."),
        ("the red Car.", "Red car."),
        ("an a thing", "A thing."),
        ("two the dogs", "The dogs."),
        ("eight cats", "Cats."),  # upstream's list has a misspelt word here
        ("One two three", "Three."),
        ("U.S. flag", "U.s. flag."),
        ("The", "The."),
        (".", None),
    ],
)
def test_phrases_are_cleaned_as_upstream_does(phrase: str, said: str | None) -> None:
    assert clean_phrase(phrase) == said


BOX = Box((0.0, 0.0, 9.0, 9.0))
TOLD = Box((0.0, 0.0, 9.0, 9.0), caption=Caption("A brown dog that sleeps."))
DOG = Region(("the dog",), ((0, 7),), (TOLD, BOX))


def record(*captions: str) -> Record:
    said = tuple(Caption(text) for text in captions)
    return Record("s/1/0", "s", "1", "0", "grounding", "a.jpg", "w", 9, 9, "the dog .", (DOG,), captions=said)


def test_a_box_is_told_by_its_phrase_its_caption_or_either_by_chance() -> None:
    chosen = [(DOG, TOLD), (DOG, BOX)]
    assert words_of(record(), chosen, "phrase", (0, 0, 0)).regions == ("Dog.", "Dog.")
    assert words_of(record(), chosen, "caption", (0, 0, 0)).regions == ("A brown dog that sleeps.", "Dog.")
    mixed = [words_of(record(), chosen, "mixed", (0, 0, row)) for row in range(200)]
    assert {words.regions[1] for words in mixed} == {"Dog."}
    assert 70 < sum(words.regions[0] == "Dog." for words in mixed) < 130


def test_a_photo_has_one_of_its_captions_or_none_and_a_seed_always_the_same() -> None:
    assert words_of(record(), [], "phrase", (0, 0, 0)).image is None
    assert words_of(record(""), [], "phrase", (0, 0, 0)).image is None
    drawn = [words_of(record("one", "two"), [], "phrase", (0, 0, row)).image for row in range(50)]
    assert set(drawn) == {"one", "two"}
    assert drawn == [words_of(record("one", "two"), [], "phrase", (0, 0, row)).image for row in range(50)]
