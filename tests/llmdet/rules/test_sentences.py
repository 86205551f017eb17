"""Sentences end where a reader would end them."""

import pytest

from llmdet.rules.sentences import mask_quotes, split_sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog. A cat! A cow? Yes", ["A dog.", "A cat!", "A cow?", "Yes"]),
        ("Mr. Smith meets Dr. J. Doe. They talk.", ["Mr. Smith meets Dr. J. Doe.", "They talk."]),
        ("It is 1.5 m high. No. 7 is red.", ["It is 1.5 m high.", "No. 7 is red."]),
        ("The U.S. flag hangs. It is big.", ["The U.S. flag hangs.", "It is big."]),
        ('He says "stop." A car stops.', ['He says "stop."', "A car stops."]),
        ("Wait... what is it?", ["Wait... what is it?"]),
        (
            "Cups, etc. are here. Also books, etc. The end.",
            ["Cups, etc. are here.", "Also books, etc.", "The end."],
        ),
        ('A sign reads "Maybe. Perhaps." in red. It hangs.', ['A sign reads "Maybe. Perhaps." in red.', "It hangs."]),
        ("", []),
        (" . ", ["."]),
    ],
)
def test_split(text: str, expected: list[str]) -> None:
    assert list(split_sentences(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a "b c" d', "a _____ d"),
        ("it's the dog's 'big day' here", "it's the dog's _________ here"),
        ("\u201cgo\u201d and \u2018stay\u2019", "____ and ______"),
        ('an open "quote', 'an open "quote'),
        ('he says "go on."', 'he says ______."'),
    ],
)
def test_quotes_are_masked_with_offsets_kept(text: str, expected: str) -> None:
    assert mask_quotes(text) == expected
