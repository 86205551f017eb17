"""Sentences of a text: split in linear time, with abbreviations, decimals and quotes left whole."""

from __future__ import annotations

import re

_END = re.compile(r"(?<![.!?])[.!?]++[\"'\u201d\u2019)\]]*+(?=\s)")
_SHORT = frozenset(
    "mr mrs ms dr st prof jr sr vs etc no approx e.g i.e u.s u.k a.m p.m inc ltd co dept est fig vol mt ft".split()
)
_WORD_BEFORE = re.compile(r"[\w.]{1,12}$")
_NEXT = re.compile(r"\s*[\"'\u201c\u2018(\[]*(\w)")
_QUOTED = re.compile(
    r"\"[^\"]{0,400}\"|\u201c[^\u201d]{0,400}\u201d|(?<!\w)'(?:[^']|'(?=\w)){0,200}'(?!\w)|\u2018[^\u2019]{0,200}\u2019(?!\w)"
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, stripped, without empty ones; joined by spaces they hold every word of it."""
    sentences = []
    start = 0
    for end in _END.finditer(text):
        if _is_break(text, end.start(), end.end()):
            sentences.append(text[start : end.end()].strip())
            start = end.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_break(text: str, stop: int, after: int) -> bool:
    """Whether the mark ends a sentence: not after an abbreviation that goes on, nor before a small letter."""
    follows = _NEXT.match(text, after, after + 40)
    if follows and follows[1].islower():
        return False
    if text[stop] != ".":
        return True
    before = _WORD_BEFORE.search(text, max(0, stop - 12), stop)
    if before is None:
        return True
    word = before[0].lower().strip(".")
    if len(word) == 1 and word.isalpha() and before[0] != "a":
        return False  # an initial: "J. Smith", "the U.S. flag"
    return word not in _SHORT or (word in ("etc", "u.s", "u.k", "a.m", "p.m") and follows is not None)


def mask_quotes(text: str) -> str:
    """The text with what stands in quotation marks replaced by underscores, so that offsets stay."""
    if '"' not in text and "'" not in text and "\u201c" not in text and "\u2018" not in text:
        return text
    return _QUOTED.sub(lambda found: "_" * len(found[0]), text)
