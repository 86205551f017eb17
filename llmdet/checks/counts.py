"""Numbers of things against numbers of boxes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise

from llmdet.checks.finding import Checked, Finding
from llmdet.checks.numbers import ABOUT, apart, beside
from llmdet.checks.reading import NUMBERS, Known, Noun, Reading
from llmdet.checks.things import is_thing
from llmdet.nouns import is_invariant
from llmdet.record import Box

_EXACT_ONE = frozenset("single lone solitary sole only".split())
_QUANTITIES = frozenset(
    "total whole different separate visible individual several many some numerous multiple various few entire".split()
)  # words that tell no things of a name from others
_WHICH = frozenset("with that who which wearing holding whose".split())  # "three dogs with collars"
_SEEN = frozenset("we you i one can could make made found appear".split())
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
        return None if before in ABOUT or not ABOUT.isdisjoint(noun.words) else noun.number
    if noun.number is None and not noun.plural and not _EXACT_ONE.isdisjoint(noun.words):
        return 1
    if noun.number is not None:
        return None
    if noun.determiner == "both":  # but not "both dogs and cats"
        return 2 if noun.plural and reading.words[noun.tokens[1] : noun.tokens[1] + 1] != ("and",) else None
    return beside(reading, noun) or apart(reading, noun)


def _bounds(reading: Reading, noun: Noun) -> tuple[bool, bool]:
    """Whether there are at least and at most as many as said: "no fewer than two dogs" is not at most two."""
    before = reading.words[max(0, noun.tokens[0] - 6) : noun.tokens[0]]
    if before[-2:] in (("at", "least"), ("at", "most")):
        return before[-1] == "least", before[-1] == "most"
    if before[-1:] != ("than",):
        return True, True
    denied = [word for no, word in pairwise(before) if no in ("no", "not")]
    return not {"fewer", "less"}.isdisjoint(denied), "more" in denied


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
    if set(noun.modifiers) - _EXACT_ONE - _QUANTITIES:
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
    if not _SEEN.isdisjoint(reading.words[at + 1 : at + 2]):
        return False  # "dogs that we see here"
    return reading.words[at] != "with" or not following or is_thing(following[0])


def _exactly(reading: Reading, noun: Noun) -> bool:
    first = noun.tokens[0]
    return first > 0 and reading.tokens[first - 1].text.lower() in ("exactly", "only", "just")
