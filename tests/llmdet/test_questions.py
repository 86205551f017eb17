"""What a text asks for: the phrases of upstream's examples, and texts that break upstream's search."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import SettingError
from llmdet.phrases import ParserName
from llmdet.questions import Question, ask, of_names, read_spans
from llmdet.tagging import missing_nltk_data

needs_nltk = pytest.mark.skipif(
    bool(missing_nltk_data(("punkt_tab", "averaged_perceptron_tagger_eng", "stopwords"))),
    reason="needs nltk's data: set NLTK_DATA",
)
each_parser = pytest.mark.parametrize(
    "parser", [pytest.param("nltk", marks=needs_nltk), "pattern"], ids=["nltk", "pattern"]
)


def places(question: Question) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
    return list(zip(question.phrases, question.spans, strict=True))


@each_parser
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There are many apples here.", [("many apples", ((10, 21),))]),
        (
            "There is two cat and a remote in the picture",
            [("cat", ((13, 16),)), ("a remote", ((21, 29),)), ("the picture", ((33, 44),))],
        ),
    ],
)
def test_phrases_of_upstreams_sentences(parser: ParserName, text: str, expected: object) -> None:
    question = ask(text, "grounding", parser=parser)
    assert places(question) == expected
    assert question.text == text


@each_parser
@pytest.mark.parametrize(
    ("text", "phrase", "spans"),
    [
        ("a red car in the upper right corner", "a red car in the upper right corner", ((0, 9),)),
        ("red apple.", "red apple", ((0, 9),)),
        ("left dog near the other dog", "left dog near the other dog", ((5, 8), (24, 27))),  # each time it stands there
        ("dog in the doghouse", "dog in the doghouse", ((0, 3),)),  # and not within a word
        (" running quickly. ", "running quickly", ((1, 16),)),  # no subject: all of it
    ],
)
def test_an_expression_is_found_by_its_subject(
    parser: ParserName, text: str, phrase: str, spans: tuple[tuple[int, int], ...]
) -> None:
    assert places(ask(text, "referring", parser=parser)) == [(phrase, spans)]


@each_parser
def test_a_phrase_that_stands_there_twice_is_two(parser: ParserName) -> None:
    question = ask("A dog sits beside a dog.", "grounding", parser=parser)
    assert places(question) == [("A dog", ((0, 5),)), ("a dog", ((18, 23),))]


@each_parser
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog (brown) near a cup [new] and a hat*.", {"A dog", "a cup", "a hat"}),
        ("a $5 bill + a 50% sign", {"sign"}),
        ("ein Caf\u00e9 and an \u0130stanbul Stra\u00dfe", {"Caf\u00e9", "an \u0130stanbul Stra\u00dfe"}),
    ],
)
def test_marks_and_letters_of_any_kind_are_safe(parser: ParserName, text: str, expected: set[str]) -> None:
    question = ask(text, "grounding", parser=parser)
    assert all(text[slice(*span)] == phrase for phrase, (span,) in places(question))
    said = " ".join(question.phrases)
    assert all(phrase in said for phrase in expected)
    assert not set("()[]*") & set(said)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=80), st.sampled_from(["detection", "grounding", "referring"]))
def test_any_text_has_an_answer_or_is_refused(text: str, mode: str) -> None:
    try:
        question = ask(text, mode, parser="pattern")  # type: ignore[arg-type]
    except SettingError:
        return
    assert len(question.phrases) == len(question.spans) > 0
    for start, end in (span for spans in question.spans for span in spans):
        assert any(char.isalnum() for char in question.text[start:end])


def test_names_are_asked_once_each_and_stand_in_the_text() -> None:
    question = ask("dog . red  cup. Dog . -- . u")
    assert places(question) == [("dog", ((0, 3),)), ("red cup", ((5, 12),)), ("u", ((14, 15),))]
    assert question.text == "dog. red cup. u."
    assert of_names(["\u732b", "caf\u00e9"]).text == "\u732b. caf\u00e9."


def test_phrases_by_their_characters() -> None:
    question = ask("Two girls wave; they smile.", "spans", "[[[16, 20], [0, 9]], [[10, 14]]]")
    assert places(question) == [("they / Two girls", ((0, 9), (16, 20))), ("wave", ((10, 14),))]


@pytest.mark.parametrize(
    "wrong", ["", "[]", "[[]]", "[[0, 5]]", "[[[0, 1.5]]]", "[[[0]]]", "[[[true, 3]]]", "{}", "-1"]
)
def test_what_is_no_list_of_places_is_refused(wrong: str) -> None:
    with pytest.raises(SettingError, match="spans must be JSON"):
        read_spans(wrong)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("", {}, "names nothing to look for"),
        (" . ? ", {}, "names nothing to look for"),
        ("dog \udc80", {}, "not UTF-8"),
        ("+ ()", {"mode": "grounding"}, "names nothing to look for"),
        ("running quickly", {"mode": "grounding", "parser": "pattern"}, "no noun phrase in 'running quickly'"),
        ("dog", {"mode": "spans"}, "mode spans needs spans"),
        ("dog", {"spans": "[[[0, 3]]]"}, "the other modes take none"),
        ("dog", {"mode": "spans", "spans": "[[[0, 4]]]"}, r"span \[0, 4\] is not inside the text, which has 3"),
        ("dog", {"mode": "spans", "spans": "[[[2, 2]]]"}, r"span \[2, 2\] is not inside"),
        ("dog . cat", {"mode": "spans", "spans": "[[[3, 6]]]"}, "holds no letter or digit"),
        ("dog", {"mode": "words"}, "mode must be one of detection"),
    ],
)
def test_what_cannot_be_asked_is_one_line(text: str, options: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingError, match=expected):
        ask(text, **options)  # type: ignore[arg-type]
