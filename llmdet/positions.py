"""Where a caption says that a thing is, and whether a box is there.

Only places in the picture count: "a dog on the left", "the left dog", "In the top right corner, a dog". "To the left of
the car" is about the car and "on the left arm" about an arm: both say nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from llmdet.boxes import XYXY
from llmdet.phrases import Parsed

Place = Literal["left", "right", "top", "bottom", "middle"]

_WORDS: dict[str, Place] = {
    "left": "left", "leftmost": "left", "right": "right", "rightmost": "right", "top": "top", "upper": "top",
    "bottom": "bottom", "lower": "bottom", "middle": "middle", "center": "middle", "centre": "middle",
}  # fmt: skip
_ADJECTIVES = frozenset({"left", "leftmost", "right", "rightmost"})
_SAID = re.compile(
    r"(?:on|at|in|to|towards?|near) (?:the|its) (?:very |far |extreme |direct )?"
    r"(?P<place>(?:upper|lower|top|bottom)[ -](?:left|right|middle|center|centre)|"
    r"left|right|top|bottom|middle|center|centre)"
    r"(?P<part>[ -](?:hand side|side|corner|edge|part|half|portion|area|third|section)\b)?"
    r"(?P<whole> of the (?:image|picture|photo(?:graph)?|scene|frame|shot|view)\b)?(?!\w)",
    re.I,
)
_CLEAR = 0.12  # of the picture's side: centres nearer than this to the middle line, or to each other, tell nothing


def places_of(parsed: Parsed, index: int) -> frozenset[Place]:
    """Where in the picture `parsed.phrases[index]` is said to be; empty where nothing is said."""
    phrase = parsed.phrases[index]
    adjectives = {_WORDS[word] for word in phrase.modifiers if word in _ADJECTIVES}
    return frozenset(adjectives) | _said_after(parsed, phrase.span[1]) | _said_before(parsed, phrase.span[0])


def _said_after(parsed: Parsed, end: int) -> frozenset[Place]:
    """`... on the left`, right behind a phrase."""
    at = end + 1 if parsed.text[end : end + 1] == " " else end
    found = _SAID.match(parsed.text, at)
    return _places(parsed, found) if found else frozenset()


def _said_before(parsed: Parsed, start: int) -> frozenset[Place]:
    """`On the left, ...` or `On the left is ...`, from the start of a sentence to the phrase."""
    text = parsed.text
    sentence = max(text.rfind(mark, 0, start) for mark in ".!?;\n") + 1
    if start - sentence > 80:
        return frozenset()
    found = _SAID.match(text, sentence + len(text[sentence:start]) - len(text[sentence:start].lstrip()))
    if found is None or text[found.end() : start].strip(" ,").lower() not in ("", "is", "are", "there is", "there are"):
        return frozenset()
    return _places(parsed, found)


def _places(parsed: Parsed, found: re.Match[str]) -> frozenset[Place]:
    following = next((token for token in parsed.tokens if token.span[0] >= found.end()), None)
    if following and not found["whole"]:
        if following.text.lower() == "of":
            return frozenset()
        if not found["part"] and following.tag.startswith("NN"):
            return frozenset()  # "on the left arm"
    return frozenset(_WORDS[word] for word in re.split("[ -]", found["place"].lower()))


def agrees(places: frozenset[Place], box: XYXY, width: int, height: int) -> bool | None:
    """Whether the centre of a box is where it is said to be; None where nothing is said or that is not plain."""
    verdicts = [_agrees(place, box, width, height) for place in places]
    if False in verdicts:
        return False
    return True if verdicts and all(verdicts) else None


def _agrees(place: Place, box: XYXY, width: int, height: int) -> bool | None:
    along = _along(place, box, width, height)
    if place == "middle":
        return True if along > -0.2 else False if along < -0.35 else None
    return True if along > 0 else False if along < -_CLEAR else None


def _along(place: Place, box: XYXY, width: int, height: int) -> float:
    """How far a box's centre lies from the middle of the picture towards a place, in sides of the picture."""
    x, y = (box[0] + box[2]) / 2 / width - 0.5, (box[1] + box[3]) / 2 / height - 0.5
    return {"left": -x, "right": x, "top": -y, "bottom": y, "middle": -abs(x)}[place]


def only_one(places: frozenset[Place], boxes: Sequence[XYXY], width: int, height: int) -> int | None:
    """The one box that is where it is said to be, plainly more so than every other; None where that is not certain."""
    fitting = [index for index, box in enumerate(boxes) if agrees(places, box, width, height)]
    if len(fitting) <= 1:
        return fitting[0] if fitting else None
    reach = {index: min(_along(place, boxes[index], width, height) for place in places) for index in fitting}
    first, second = sorted(fitting, key=lambda index: -reach[index])[:2]
    return first if reach[first] - reach[second] >= _CLEAR else None
