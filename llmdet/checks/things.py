"""Which nouns of a sentence name things that have a place and a colour, and which only help to say so."""

from __future__ import annotations

import bisect

from llmdet.checks.reading import Noun, Reading
from llmdet.lemmas import singular
from llmdet.nouns import COLOURS

# The picture, its parts, and those who look at it.
FRAME = frozenset(
    "image picture photo photograph frame scene shot view screen composition canvas snapshot side half part portion "
    "section area corner edge border third quarter margin region quadrant end foreground background middle center "
    "centre viewer camera eye attention one left right top bottom look glance distance focus home far".split()
)
# What is named beside things without being one.
_ABSTRACT = frozenset(
    "object thing item subject element detail feature highlight centrepiece centerpiece focal point "
    "appearance aspect kind sort type variety way manner style pattern contrast hint touch splash shade tone hue tint "
    "color colour light lighting sunlight daylight shadow glow brightness impression sense feeling atmosphere mood "
    "presence position place spot location space room setting surroundings backdrop arrangement angle perspective "
    "plane direction balance emphasis interest focus gaze lens photographer observer lot bit total number count group "
    "set pair trio quartet quintet row line rest sight display exception fact time day moment depth width height size "
    "shape form addition front back bounds reach vicinity extreme everything nothing something anything "
    "someone somebody nobody owner thanks case name glimpse range order visibility clarity being doubt care ease "
    "mention proximity caption description exact".split()
)
_VERBS_AS_NOUNS = frozenset("looks look glows glow shows show stands rests sits lies appears remains seems".split())


def is_frame(words: tuple[str, ...]) -> bool:
    """Whether a noun phrase is of the picture, also where a verb was taken for its head: "the image features"."""
    return words[-1] in FRAME or (len(words) > 1 and words[-1].endswith("s") and words[-2] in FRAME)


def is_thing(noun: Noun) -> bool:
    """Whether a noun names something that can stand in a picture, as far as its word tells."""
    if any(fit != "part" for fit in noun.meant.values()):
        return True
    head = noun.words[-1]
    return not (
        is_frame(noun.words)
        or noun.words == ("present",)  # "Present in the image are"
        or head in _VERBS_AS_NOUNS
        or head in COLOURS
        or head in _ABSTRACT
        or singular(head) in _ABSTRACT
    )


def nouns_of(reading: Reading, sentence: int) -> tuple[Noun, ...]:
    """The nouns of a sentence."""
    first = bisect.bisect_left(reading.nouns, sentence, key=lambda noun: noun.sentence)
    return reading.nouns[first : bisect.bisect_right(reading.nouns, sentence, key=lambda noun: noun.sentence)]


def things_of(reading: Reading, sentence: int) -> list[Noun]:
    """The nouns of a sentence that name things."""
    return [noun for noun in nouns_of(reading, sentence) if is_thing(noun)]


def tokens_of(reading: Reading, sentence: int) -> range:
    """The tokens of a sentence."""
    first = bisect.bisect_left(reading.sentences, sentence)
    return range(first, bisect.bisect_right(reading.sentences, sentence))
