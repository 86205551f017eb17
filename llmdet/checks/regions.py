"""Captions of boxes that do not speak of what the box is named."""

from __future__ import annotations

from collections.abc import Sequence

from llmdet.checks.finding import Finding
from llmdet.checks.names import Names, can_mean, names_index, words_of
from llmdet.checks.reading import LONGEST
from llmdet.lemmas import singular
from llmdet.nouns import phrase_of
from llmdet.phrases import Parser, ParserName
from llmdet.tagging import split_words


def off_phrase(caption: str, phrases: Sequence[str], names: bool, parser: ParserName) -> Finding | None:
    """The finding for a caption that has none of the head nouns of its region's phrases, nor another word for them.

    `names`: the phrases are class names; else their head nouns are found by the parser.
    """
    heads = tuple(phrases) if names else tuple([_head(phrase, parser) for phrase in phrases])
    index = names_index(_with_wider(heads))
    if len(caption) > LONGEST:
        return None
    words = [caption[a:b].lower() for a, b in split_words(caption)]
    if any(_named(index, words, at) for at in range(len(words))):
        return None
    return Finding("region_caption_off_phrase", (0, len(caption)), f"{caption[:80]!r}: no {' or '.join(heads)}")


def _head(phrase: str, parser: ParserName) -> str:
    found = Parser(parser).phrases(phrase_of(phrase))
    return found[0].lemma if found else words_of(phrase_of(phrase))[-1]


def _with_wider(heads: tuple[str, ...]) -> tuple[str, ...]:
    """With the names that the heads are kinds of: a man may be called a person."""
    wider = {name for head in heads for name in can_mean(words_of(head))}
    return (*heads, *sorted(wider - set(heads)))


def _named(index: Names, words: Sequence[str], at: int) -> bool:
    return bool(index.at((*words[max(0, at - 3) : at], singular(words[at])))[1])
