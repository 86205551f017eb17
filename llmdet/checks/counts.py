"""Numbers of things against numbers of boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from itertools import pairwise

from llmdet.checks.finding import Checked, Finding
from llmdet.checks.reading import NUMBERS, Known, Noun, Reading
from llmdet.checks.things import is_thing, nouns_of, things_of, tokens_of
from llmdet.nouns import is_invariant
from llmdet.record import Box

_NUMBER = rf"(?P<number>\d{{1,3}}|{'|'.join(NUMBERS)})"
# "The number of dogs is three", "The dogs, three in number", "The dogs in the picture number three"
_AFTER = re.compile(
    r"(?:\s+(?:visible|shown|seen|present|pictured|depicted))?(?:\s+(?:in|on|within)\s+(?:the|this|our)\s+\w+)?"
    r"\s*(?:(?:(?:form|make up|come in) an? \w+ of|is|are|equals|:|(?P<verb>number|total)|"
    r"(?:amounts?|comes?|adds? up) to)\s+(?:exactly\s+)?|,\s*|[-\u2013\u2014(]\s*(?=\w+\s+in\s+(?:number|total|all)\b))"
    rf"{_NUMBER}\b(?P<all>\s+(?:in (?:number|total|all)|of them(?=\s*[.,!]|\s+in\b))\b|[.!])?",
    re.I,
)
# "4x dogs", "All four of the dogs", "Four is the number of dogs", each up to the name
_BEFORE = re.compile(
    rf"(?:(?<!\S)(?P<times>\d{{1,2}})\s?[x\u00d7]|\ball\s+{_NUMBER}\s+of\s+(?:the|these|those)|"
    rf"\b(?P<is>{'|'.join(NUMBERS)})\s+(?:is|was)\s+the\s+(?:total\s+)?(?:number|count)\s+of)\s+(?:(?:pair|piece)s\s+of\s+)?$",
    re.I,
)
# "Dogs (4)", "Dogs x4", "Dogs: 4" at the end of a line, "The dogs appear four times"
_LABEL = re.compile(
    r"\s*(?:\(\s*[x\u00d7]?\s?(?P<in>\d{1,2})\s?[x\u00d7]?\s*\)|[x\u00d7](?P<times>\d{1,2})\b|"
    r"(?::\**|=|[-\u2013\u2014])\s*(?P<end>\d{1,2})\s*(?=[.;,]?\s*(?:\n|$)|[.;]\s)|"
    rf"\s(?:appear|occur|show up|(?:are|can be) (?:seen|shown|found))\s+(?:exactly\s+)?{_NUMBER}\s+times\b)",
    re.I,
)
_OF_THEM = re.compile(r"\s+of\s+them\s*(?:[.,;!]|$)")
_IN_ALL = re.compile(
    r"\s*(?:[.,;!]|$|in (?:number|total|all)\b|altogether\b|(?:of them,?\s+)?to be (?:exact|precise)\b)"
)
_LONGEST = 100  # words of a sentence that is searched for a number apart: keeps endless ones linear
# What "one" does who counts: "if one counts the dogs, one arrives at three"
_ONE_WHO = frozenset("counts sees finds gets arrives looks notices can could may might will would has".split())
# Numbers that are no exact ones.
_ABOUT = frozenset(
    "about around approximately nearly almost over under least most than roughly to or up some every per".split()
)
_EXACT_ONE = frozenset("single lone solitary sole only".split())
_WHICH = frozenset("with that who which wearing holding whose".split())  # "three dogs with collars"
_MORE = frozenset("another other others more additional further extra remaining second third fourth rest".split())


Placed = Callable[[], Collection[Noun]]


def contradicted(reading: Reading, known: Known, placed: Placed = tuple, small: float = 0.01) -> Checked:
    """Numbers that do not fit the boxes, where every thing of the name has its box and none stands for a crowd.

    More than there are boxes is a contradiction. Fewer is one where the caption speaks of all things of the name:
    not of "two brown dogs", "two dogs and another", nor of nouns that are `placed` ("two dogs on the left").
    Boxes under `small` of the largest one's area need not be counted.
    """
    if not known.exhaustive:
        return Checked(0)
    findings, claims = [], 0
    for noun in reading.claims:
        number = _number(reading, noun)
        boxes = _boxes(noun, known)
        if number is None or boxes is None or set(noun.meant.values()) == {"part"}:
            continue
        claims += 1
        least, most = _bounds(reading, noun)
        missed = most and number < _fewest(boxes, small) and _of_all(reading, noun) and noun not in placed()
        if missed or (least and number > len(boxes)):
            said = reading.text[slice(*noun.whole)]
            findings.append(
                Finding("count_contradiction", noun.whole, f"{said!r} says {number}: {_boxes_of(len(boxes))}")
            )
    return Checked(claims, tuple(findings))


def _number(reading: Reading, noun: Noun) -> int | None:
    """How many things the caption says there are, exactly."""
    first = noun.tokens[0]
    before = reading.tokens[first - 1].text.lower() if first else ""
    invariant = is_invariant(reading.text[slice(*noun.span)].lower())
    if noun.number is not None and (invariant or noun.plural == (noun.number > 1)):
        if before == "than" or _bounds(reading, noun) != (True, True):
            return noun.number if any(_bounds(reading, noun)) else None
        if before == "about" and reading.words[first - 2] == "all":
            return noun.number  # "the picture is all about two dogs"
        if before == "to" and first > 1 and reading.words[first - 2] not in (*NUMBERS, "up", "close"):
            return noun.number  # "the eye goes to three dogs"
        return None if before in _ABOUT or not _ABOUT.isdisjoint(noun.words) else noun.number
    if noun.number is None and not noun.plural and not _EXACT_ONE.isdisjoint(noun.words):
        return 1
    if noun.number is not None:
        return None
    if noun.determiner == "both":  # but not "both dogs and cats"
        return 2 if noun.plural and reading.words[noun.tokens[1] : noun.tokens[1] + 1] != ("and",) else None
    if said := _beside(reading, noun):
        return said
    after = _AFTER.match(reading.text, noun.whole[1])
    named = {"number", "count"} & {*noun.words, *reading.words[max(0, first - 3) : first]}
    if after and (named or after["all"] or after["verb"]):
        return NUMBERS.get(after["number"].lower()) or int(after["number"])
    return _apart(reading, noun)


def _beside(reading: Reading, noun: Noun) -> int | None:
    """A number that stands beside a plural and can be of nothing else: "4x dogs", "Dogs (4)"."""
    if not noun.plural:
        return None
    label = _LABEL.match(reading.text, noun.whole[1])
    before = _BEFORE.search(reading.text[max(0, noun.span[0] - 50) : noun.span[0]])
    numbers = [number for match in (before, label) if match for number in match.groups() if number]
    return next((NUMBERS.get(number.lower()) or int(number) for number in numbers), None)


def _bounds(reading: Reading, noun: Noun) -> tuple[bool, bool]:
    """Whether there are at least and at most as many as said: "no fewer than two dogs" is not at most two."""
    before = reading.words[max(0, noun.tokens[0] - 6) : noun.tokens[0]]
    if before[-2:] in (("at", "least"), ("at", "most")):
        return before[-1] == "least", before[-1] == "most"
    if before[-1:] != ("than",):
        return True, True
    denied = [word for no, word in pairwise(before) if no in ("no", "not")]
    return not {"fewer", "less"}.isdisjoint(denied), "more" in denied


def _apart(reading: Reading, noun: Noun) -> int | None:
    """The one number of a sentence about one kind of thing, where a clause ends with it: "If one counts the dogs, it is
    three", "The dogs, of which there are three, sleep".
    """
    if not noun.plural or len(tokens_of(reading, noun.sentence)) > _LONGEST:
        return None
    if things_of(reading, noun.sentence) != [noun]:
        return None
    tokens = tokens_of(reading, noun.sentence)
    if tokens.stop < len(reading.words) and not nouns_of(reading, noun.sentence + 1):
        tokens = range(tokens.start, tokens_of(reading, noun.sentence + 1).stop)  # "Count the dogs: there are two"
    said = [(at, number) for at in tokens if (number := NUMBERS.get(reading.words[at])) and not _somebody(reading, at)]
    if len(said) != 1:
        return None
    at, number = said[0]
    inside = any(other.tokens[0] <= at < other.tokens[1] for other in nouns_of(reading, noun.sentence))
    if number < 2 or inside or reading.words[at - 1] in _ABOUT or not _ends(reading, at):
        return None
    return None if reading.words[at - 1] == "at" and reading.words[at - 2] not in ("arrive", "arrives") else number


def _somebody(reading: Reading, at: int) -> bool:
    """Whether it is the "one" of "if one counts the dogs"."""
    return reading.words[at] == "one" and not _ONE_WHO.isdisjoint(reading.words[at + 1 : at + 2])


def _ends(reading: Reading, at: int) -> bool:
    """Whether a clause ends with the number at a token: "there are three", "there are three of them"."""
    end = reading.tokens[at].span[1]
    first = tokens_of(reading, reading.sentences[at]).start
    there = any(reading.words[max(0, i) : i + 2] in (("there", "are"), ("there", "were")) for i in (first, at - 2))
    return bool(_IN_ALL.match(reading.text, end) or (there and _OF_THEM.match(reading.text, end)))


def _boxes(noun: Noun, known: Known) -> list[Box] | None:
    """All boxes that the noun can mean; None where it means none, or a group."""
    boxes = [box for name in noun.meant for region in known.present.get(name, ()) for box in region.boxes]
    missing = any(not region.boxes for name in noun.meant for region in known.present.get(name, ()))
    return None if not boxes or missing or any(box.crowd for box in boxes) else boxes


def _boxes_of(number: int) -> str:
    return "1 box" if number == 1 else f"{number} boxes"


def _fewest(boxes: list[Box], small: float) -> int:
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (box.xyxy for box in boxes)]
    return sum(area >= small * max(areas) for area in areas)


def _of_all(reading: Reading, noun: Noun) -> bool:
    """Whether the noun speaks of all things of its one name."""
    if len(noun.meant) != 1 or "name" not in noun.meant.values() or not _MORE.isdisjoint(noun.words):
        return False
    if set(noun.modifiers) - _EXACT_ONE - {"total", "whole", "different", "separate", "visible", "individual"}:
        return False
    if noun.number == 1 and _EXACT_ONE.isdisjoint(noun.words) and not _exactly(reading, noun):
        return False
    after = reading.tokens[noun.tokens[1]].text.lower() if noun.tokens[1] < len(reading.tokens) else ""
    if after in _WHICH and _narrows(reading, noun.tokens[1]):
        return False
    if "couple" in noun.words:
        return False
    (name,) = noun.meant
    others = [other for other in reading.nouns if other is not noun and name in other.meant]
    return not any(o.number is not None or o.determiner in ("a", "an", "another") or "other" in o.words for o in others)


def _narrows(reading: Reading, at: int) -> bool:
    """Whether what follows tells some things from others: "dogs with collars", but not "dogs with care"."""
    following = reading.nouns_from(at + 1, 1)
    return reading.words[at] != "with" or not following or is_thing(following[0])


def _exactly(reading: Reading, noun: Noun) -> bool:
    first = noun.tokens[0]
    return first > 0 and reading.tokens[first - 1].text.lower() in ("exactly", "only", "just")
