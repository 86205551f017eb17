"""Captions of boxes against the names of the boxes."""

from __future__ import annotations

import pytest

from llmdet.checks.regions import off_phrase


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("a small brown dog at the top left", "dog"),
        ("two puppies on a rug", "dog"),
        ("the dog's wet nose", "dog"),
        ("a table set for four", "dining table"),
        ("a woman in a red coat", "person"),
        ("A TV on a shelf", "tv"),
        ("a worn sofa", "couch"),
    ],
)
def test_a_caption_with_the_name_or_another_word_for_it_passes(caption: str, phrase: str) -> None:
    assert off_phrase(caption, (phrase,), True, "pattern") is None


@pytest.mark.parametrize(
    ("caption", "phrase"), [("a grey cat", "dog"), ("a hot dog in a bun", "dog"), ("", "dog"), ("a lamp", "tv")]
)
def test_a_caption_of_something_else_is_found(caption: str, phrase: str) -> None:
    finding = off_phrase(caption, (phrase,), True, "pattern")
    assert finding is not None
    assert finding.reason == "region_caption_off_phrase"
    assert finding.detail.endswith(f"no {phrase}")


def test_the_head_of_a_free_phrase_is_what_must_be_named() -> None:
    phrase = ("a young man in a blue shirt",)
    assert off_phrase("a man who smiles", phrase, False, "pattern") is None
    assert off_phrase("a person in blue", phrase, False, "pattern") is None
    assert off_phrase("a blue shirt", phrase, False, "pattern") is not None


def test_one_of_several_phrases_is_enough() -> None:
    assert off_phrase("the animal's keeper", ("a keeper", "a woman"), False, "pattern") is None
