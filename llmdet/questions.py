"""What is looked for in a picture: a text, and the phrases of it that shall get boxes.

    detection   "dog . red cup ."                        every name is a phrase
    grounding   "There are many apples here."            every noun phrase, each time that it stands there: many apples
    referring   "a red car in the upper right corner"    the one thing that is meant: a red car
    spans       any text and [[[0, 5]], [[10, 14]]]      phrases by their characters, each at one or several places

Noun phrases are those of GLIP's grammar, as MM-Grounding-DINO and LLMDet find them, and the subject of an expression is
LLMDet's. Theirs then search the text for each phrase as a regular expression, which breaks on "c++" and finds a cat in
a catalogue; here a phrase is where the parser has read it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import orjson

from llmdet.detection_text import split_names
from llmdet.errors import SettingError
from llmdet.phrases import Parser, ParserChoice
from llmdet.record import Span
from llmdet.tagging import NLTK_DATA, resolve_parser

Mode = Literal["detection", "grounding", "referring", "spans"]
_SHOWN = 60  # characters of a text in an error
_MARKS = "|:;@()[]{}^'\"\u2019`?!&*,."


@dataclass(frozen=True, slots=True)
class Question:
    """A text with its phrases: `spans[i]` are the places of `phrases[i]`, usually one."""

    mode: Mode
    text: str
    phrases: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]


def ask(text: str, mode: Mode = "detection", spans: str | None = None, parser: ParserChoice = "auto") -> Question:
    """The question that a person has typed; `spans` is JSON and makes the mode "spans".

    Raises SettingError where the text names nothing, MissingError where `parser` needs data that is not there.
    """
    if mode not in get_args(Mode):
        raise SettingError(f"mode must be one of {', '.join(get_args(Mode))}; got {mode!r}")
    if (spans is not None) != (mode == "spans"):
        raise SettingError("mode spans needs spans such as [[[0, 5]], [[10, 14]]], and the other modes take none")
    if not _says(text):
        raise SettingError(
            f'the text names nothing to look for; expected such as "dog . red cup ."; got {_short(text)}'
        )
    if text != text.encode("utf-8", "replace").decode():
        raise SettingError(f"the text is not UTF-8: {_short(text)}")
    if spans is not None:
        return of_spans(text, read_spans(spans))
    if mode == "detection":
        return of_names(split_names(text))
    data = (*NLTK_DATA, "stopwords") if mode == "referring" else NLTK_DATA
    reader = Parser(resolve_parser(parser, data))
    return of_sentence(text, reader) if mode == "grounding" else of_expression(text, reader)


def of_names(names: Iterable[str]) -> Question:
    """Detection by names; one that comes again, in whatever case, is asked once. Raises SettingError for none."""
    once: dict[str, str] = {}
    for name in filter(_says, names):
        once.setdefault(name.casefold(), name)
    kept = tuple(once.values())
    if not kept:
        raise SettingError("detection needs at least one name with a letter or digit")
    text, spans = "", []
    for name in kept:
        spans.append(((len(text), len(text) + len(name)),))
        text += f"{name}. "
    return Question("detection", text.rstrip(), kept, tuple(spans))


def of_sentence(text: str, parser: Parser) -> Question:
    """Phrase grounding: every noun phrase, and one that stands there twice is two. Raises SettingError for none."""
    spans = [_trimmed(text, phrase.span) for phrase in parser.phrases(text, "glip") if _says(phrase.text)]
    if not spans:
        raise SettingError(
            f"no noun phrase in {_short(text)}; name what to look for with mode detection, or its place with spans"
        )
    return Question("grounding", text, tuple(text[start:end] for start, end in spans), tuple((one,) for one in spans))


def of_expression(text: str, parser: Parser) -> Question:
    """A referring expression: the phrase is all of it, the places are those of its subject, the first noun phrase.

    Without a subject the place is the whole expression, less the dot at its end.
    """
    whole = text.strip().rstrip(". ")
    start = text.index(whole)
    subject = next((phrase.text for phrase in parser.phrases(text, "subject") if _says(phrase.text)), None)
    places = ((start, start + len(whole)),) if subject is None else tuple(_places(subject, text))
    return Question("referring", text, (whole,), (places,))


def of_spans(text: str, spans: Sequence[Sequence[Span]]) -> Question:
    """Phrases by their places; one of several places is named by its pieces, "two girls / they".

    Raises SettingError for places that the text does not have.
    """
    for start, end in (span for phrase in spans for span in phrase):
        if not 0 <= start < end <= len(text):
            raise SettingError(f"span [{start}, {end}] is not inside the text, which has {len(text)} characters")
        if not _says(text[start:end]):
            raise SettingError(f"span [{start}, {end}] holds no letter or digit: {text[start:end]!r}")
    names = tuple(" / ".join(text[start:end] for start, end in phrase) for phrase in spans)
    return Question("spans", text, names, tuple(tuple(sorted(set(phrase))) for phrase in spans))


def read_spans(text: str) -> list[list[Span]]:
    """`"[[[0, 5]], [[10, 14], [20, 24]]]"`: for each phrase its places, [start, end). Raises SettingError."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not _is_list(value) or not all(_is_list(phrase) and all(map(_is_span, phrase)) for phrase in value):
        raise SettingError(
            f"spans must be JSON, for each phrase a list of [start, end] characters: [[[0, 5]], [[10, 14], [20, 24]]]; "
            f"got {_short(text)}"
        )
    return [[(start, end) for start, end in phrase] for phrase in value]


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and [type(one) for one in value] == [int, int]


def _places(phrase: str, text: str) -> list[Span]:
    """Every place of a phrase in a text, in any case, as whole words."""
    pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
    return [found.span() for found in re.finditer(pattern, text, re.IGNORECASE)]


def _trimmed(text: str, span: Span) -> Span:
    """A place without the marks at its ends that a tokenizer leaves at a word, as upstream takes them away."""
    start, end = span
    inner = text[start:end].lstrip(_MARKS)
    start = end - len(inner)
    return start, start + len(inner.rstrip(_MARKS))


def _says(text: str) -> bool:
    return any(char.isalnum() for char in text)


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
