"""Sentences of a text: split in linear time, with abbreviations, decimals and quotes left whole."""

from __future__ import annotations

import functools
import re

_END = re.compile(r"(?<![.!?])[.!?]++[\"'\u201d\u2019)\]]*+(?=\s)")
_SHORT = frozenset(
    "mr mrs ms dr st prof jr sr vs etc no approx e.g i.e u.s u.k a.m p.m inc ltd co dept est fig vol mt ft".split()
)
_AFTER_SPACE = re.compile(r"[^\w.]")
_NEXT = re.compile(r"\s*[\"'\u201c\u2018(\[]*(\w)")
_QUOTED = re.compile(
    r"\"[^\"]{0,400}\"|\u201c[^\u201d]{0,400}\u201d|(?<!\w)'(?:[^']|'(?=\w)){0,200}'(?!\w)|\u2018[^\u2019]{0,200}\u2019(?!\w)"
)


def split_sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text, stripped, without empty ones; joined by spaces they hold every word of it."""
    return tuple([sentence for sentence, _ in split_with_mask(text)])


@functools.lru_cache(maxsize=4)  # the rules of a chain split the same text one after the other
def split_with_mask(text: str) -> tuple[tuple[str, str], ...]:
    """Each sentence with the same sentence masked by `mask_quotes`; both have the same length."""
    masked = mask_quotes(text)
    spans = []
    start = 0
    for end in _END.finditer(masked):
        if _is_break(masked, end.start(), end.end()):
            spans.append((start, end.end()))
            start = end.end()
    spans.append((start, len(text)))
    return tuple(
        [_stripped(text, masked, first, last) for first, last in spans if last > first and text[first:last].strip()]
    )


_LETTERS = re.compile(r"[^\W_]+")


@functools.lru_cache(maxsize=4)
def words_of(text: str) -> frozenset[str]:
    """The different words of a text, in lower case, parted at apostrophes: what rules look for before they search."""
    return frozenset(_LETTERS.findall(text.lower()))


def _stripped(text: str, masked: str, start: int, end: int) -> tuple[str, str]:
    sentence = text[start:end]
    lead = len(sentence) - len(sentence.lstrip())
    sentence = sentence.strip()
    return sentence, masked[start + lead : start + lead + len(sentence)]


def _is_break(text: str, stop: int, after: int) -> bool:
    """Whether the mark ends a sentence: not after an abbreviation that goes on, nor before a small letter."""
    follows = _NEXT.match(text, after, after + 40)
    if follows and follows[1].islower():
        return False
    if text[stop] != ".":
        return True
    before = _AFTER_SPACE.split(text[max(0, stop - 12) : stop])[-1]
    word = before.lower().strip(".")
    if len(word) == 1 and word.isalpha() and before != "a":
        return False  # an initial: "J. Smith", "the U.S. flag"
    return word not in _SHORT or (word in ("etc", "u.s", "u.k", "a.m", "p.m") and follows is not None)


def mask_quotes(text: str) -> str:
    """The text with what stands in quotation marks replaced by underscores: offsets stay, and so does a final stop."""
    if '"' not in text and "'" not in text and "\u201c" not in text and "\u2018" not in text:
        return text
    return _QUOTED.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    quoted = found[0]
    # What ends the quotation may end the sentence too.
    return "_" * (len(quoted) - 2) + quoted[-2:] if quoted[-2:-1] in ".!?" else "_" * len(quoted)
