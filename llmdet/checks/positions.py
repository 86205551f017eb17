"""Places that a caption gives to things ("on the left") against their boxes."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmdet.checks.finding import Checked, Finding
from llmdet.checks.grounds import Ground
from llmdet.checks.reading import Noun, Reading
from llmdet.checks.subjects import is_verb, subject
from llmdet.record import Box, Span
from llmdet.tagging import Token

_FRAME = r"(?:image|picture|photo|photograph|frame|scene|shot|view|screen|composition|canvas|snapshot)"
_PART = (
    r"(?:side|half|part|portion|section|area|corner|edge|border|third|quarter|margin|region|quadrant|end|foreground|"
    r"background|middle|cent(?:re|er))"
)
_SIDE = r"(?:left|right|top|bottom|upper|lower)"
_PLACE = re.compile(
    rf"(?P<lead>\b(?:the|this|our|your|one['\u2019]s|(?:{_FRAME}|viewer|camera|photographer|observer)['\u2019]s)\s+)?"
    rf"(?:\b(?:far|very|extreme|outer)[-\s]+)*\b(?P<one>{_SIDE})(?:[-\s]+(?P<two>left|right))?"
    rf"(?P<hand>[-\s]hand)?(?:[-\s]+(?:(?!of\b|in\b)\w+\s)?(?P<part>{_PART})\b)?\b(?!-)"
)
_ANY = re.compile(_SIDE)
_MOST = re.compile(r"\b(?P<one>left|right|top|bottom|upper|lower)-?most\b")
_OF_FRAME = re.compile(rf"\s+of\s+(?:(?:the|this|our)\s+)?(?:{_FRAME}|cent(?:re|er)|middle|everything)\b")
_OF = re.compile(r"\s+of\s+")
_PREPOSITIONS = frozenset("at on to in toward towards near along from by over against across".split())
# "looks to the left" says where to, not where; "an opening" is a hole, whatever the tagger says.
_TURNED = re.compile(
    r"(?!opening$)(?:look|fac|turn|lean|point|head|mov|gaz|tilt|glanc|slop|curv|bend|reach|exten|fall|star(?:e|ing)|walk|run|driv|fly|"
    r"flie|direct|angle|aim|travel|swing|veer|shift|stretch|lead|open|bow|cast|strid|migrat|step)\w*$"
)
_IMPERATIVE = frozenset("look glance gaze turn".split())
_PARTITION = re.compile(r"\b(?:while|whereas|but)\b|;|,\s+and\b")
_OPENERS = frozenset("A An The One Two In On At To Toward Towards Over There Look Near Next".split())
_ONE = re.compile(r"\b(?:ones?|others?|something|someone)\b")
_BARE = re.compile(r"[\s,]*(?:\w+\s+)?(?:on|to|at|in|toward|towards|near|along)?\s*")
_STANDS_ON = re.compile(
    r"\b(?:on|in|over|against|near|across|along|through|(?<!look )(?<!looks )(?<!looking )(?<!staring )(?<!gazing )at|"
    r"(?<!ed )by)\s+$"  # "looks at a tree", "watched by a man" do not say where it stands
)
_LONGEST = 100  # words of a sentence that are looked at on either side of a place: keeps endless ones linear
_NO_THINGS = frozenset(
    "image picture photo photograph frame scene shot view screen composition canvas snapshot side half part portion "
    "section area corner edge border third quarter margin region quadrant end centre center middle foreground "
    "background viewer camera eye attention one left right top bottom look glance distance focus home far".split()
)


@dataclass(frozen=True, slots=True)
class Place:
    """A place that is said: -1 is left or top, 1 is right or bottom, 0 is not said."""

    span: Span
    x: int
    y: int
    of_noun: bool = False  # "to the left of" a thing, not of the picture


def places(reading: Reading) -> list[Place]:
    """Every place in a caption that is said of the picture or of another thing."""
    text = reading.text.lower()
    if not _ANY.search(text):
        return []
    found = [Place(match.span(), *_signs(match["one"], None)) for match in _MOST.finditer(text)]
    for match in _PLACE.finditer(text):
        place = _place(reading, text, match)
        if place:
            found.append(place)
    return sorted(found, key=lambda place: place.span)


def contradicted(reading: Reading, grounds: Sequence[Ground], size: tuple[int, int], margin: float = 0.05) -> Checked:
    """Places where the thing is not: all boxes that the noun can mean are on the other side.

    A box is on the other side where its centre is `margin` (share of the picture, whose `size` is width and height)
    past the middle and the box does not reach into the outer third that was named.
    """
    findings, claims = [], 0
    for place, nouns in attached(reading, grounds):
        if place.of_noun:
            wrong = _wrong_relation(place, nouns, size, margin)
        else:
            wrong = _wrong_place(place, nouns, size, margin)
        if wrong is None:
            continue
        claims += 1
        if wrong:
            said = f"{reading.text[slice(*nouns[0].noun.span)]!r} {reading.text[slice(*place.span)]!r}"
            findings.append(Finding("position_contradiction", place.span, f"{said}: {_where(nouns[0].boxes, size)}"))
    return Checked(claims, tuple(findings))


def attached(reading: Reading, grounds: Sequence[Ground]) -> list[tuple[Place, list[Ground]]]:
    """Each place with the noun that it is said of; two where either can be meant ("a man with a dog on the left").

    For a place relative to a noun: the thing, and the noun that it is relative to.
    """
    found = places(reading)
    if not found:
        return []
    nouns = [g for g in grounds if not _is_frame(g.noun.words) and not _inside(g.noun.span[0], found)]
    starts = [ground.noun.span[0] for ground in nouns]
    pairs: list[tuple[Place, list[Ground]]] = []
    openings: dict[int, Place] = {}  # the first place of each sentence, by where the sentence begins
    for number, place in enumerate(found):
        start, end = _sentence(reading, place.span[0])
        opening = openings.setdefault(start, place)
        low = max(start, found[number - 1].span[1]) if number else start
        high = min(end, found[number + 1].span[0]) if number + 1 < len(found) else end
        at = bisect.bisect_left(starts, place.span[0])
        before = nouns[bisect.bisect_left(starts, low) : at]
        after = nouns[at : bisect.bisect_left(starts, high)]
        # A sentence that opens with a place goes on so: "On the left a dog, on the right a cat".
        led = bisect.bisect_left(starts, start) == bisect.bisect_left(starts, opening.span[0])
        said_of = _said_of(reading, place, before, after, not before or (led and bool(after)))
        if said_of:
            pairs.append((place, said_of))
    return pairs


def _is_frame(words: Sequence[str]) -> bool:
    """Whether a noun phrase is of the picture, also where a verb was taken for its head: "the image features"."""
    return words[-1] in _NO_THINGS or (len(words) > 1 and words[-1].endswith("s") and words[-2] in _NO_THINGS)


def _inside(at: int, found: Sequence[Place]) -> bool:
    """Whether a character is in one of the places, which are in order."""
    number = bisect.bisect_right(found, at, key=lambda place: place.span[0])
    return number > 0 and at < found[number - 1].span[1]


def _said_of(reading: Reading, place: Place, before: list[Ground], after: list[Ground], fronted: bool) -> list[Ground]:
    if after and after[0].noun.whole[0] <= place.span[0]:
        if after[0].boxes:
            return after[:1]  # "the left dog"
        after = after[1:]  # "the left gestures" was taken for a noun
        fronted = not before
    if place.of_noun:
        if before and after:
            return [*_subject(reading, place, before)[:1], after[0]]
        return [after[1], after[0]] if len(after) > 1 else []
    return after[:1] if fronted else _subject(reading, place, before)


def _subject(reading: Reading, place: Place, before: list[Ground]) -> list[Ground]:
    """The nouns before a place that it can be said of."""
    cut = max([m.end() for m in _PARTITION.finditer(reading.text, before[0].noun.span[0], place.span[0])], default=0)
    inside = [g for g in before if g.noun.span[0] >= cut] or before[-1:]
    first, last = inside[0], inside[-1]
    spoken = _spoken_of(reading, place, last)
    if spoken:
        return [ground for ground in before if ground.noun is spoken and ground.boxes]
    behind = reading.text[last.noun.whole[1] : place.span[0]]
    if _ONE.search(behind):
        return []  # "the one on the left"
    if last.boxes:
        return [last] if first is last or not first.boxes or _BARE.fullmatch(behind) else [first, last]
    if first.boxes and _STANDS_ON.search(reading.text[first.noun.span[1] : last.noun.whole[0]]):
        return [first]  # "a dog lies on the grass on the left"
    return []


def _spoken_of(reading: Reading, place: Place, last: Ground) -> Noun | None:
    """The subject of the verb between the last noun and a place: "a dog with a red collar lies on the left"."""
    end = last.noun.tokens[1]
    for at in range(min(_token_at(reading, place.span[0]), end + _LONGEST) - 1, end - 1, -1):
        if is_verb(reading, at):
            return subject(reading, at)
    return None


def _sentence(reading: Reading, at: int) -> Span:
    """Where the sentence of a character begins and ends; also without a full stop, where a capital tells."""
    tokens = reading.tokens
    first = last = _token_at(reading, at)
    low, high = max(0, first - _LONGEST), min(len(tokens), last + _LONGEST)
    while first > low and not _begins(tokens, first):
        first -= 1
    last = min(last + 1, high)
    while last < high and not _begins(tokens, last):
        last += 1
    start = tokens[first].span[0] if first < len(tokens) else at
    return start, tokens[last].span[0] if last < len(tokens) else len(reading.text)


def _begins(tokens: Sequence[Token], at: int) -> bool:
    before = tokens[at - 1].text
    return before in ".!?;" or (tokens[at].text in _OPENERS and before.islower())


def _token_at(reading: Reading, at: int) -> int:
    """The first token that begins at a character or later."""
    return bisect.bisect_left(reading.tokens, at, key=lambda token: token.span[0])


def _place(reading: Reading, text: str, match: re.Match[str]) -> Place | None:
    x, y = _signs(match["one"], match["two"])
    tokens = reading.tokens
    index, first = _token_at(reading, match.end()), _token_at(reading, match.start())
    begin = next((i for i in range(first, max(0, first - 4), -1) if _begins(tokens, i)), max(0, first - 4))
    before = [token.text.lower() for token in tokens[begin:first]]
    if _turned([*map(_verb, tokens[begin:first])]):
        return None
    if "what" in before or (match["hand"] and not match["part"] and "-" not in match["hand"]):
        return None  # "what is left of it", "the left hand"
    frame = _OF_FRAME.match(text, match.end())
    if frame:
        return Place((match.start(), frame.end()), x, y)
    if _OF.match(text, match.end()):
        plain = not match["part"] and not match["two"] and match["one"] in ("left", "right")
        return Place(match.span(), x, y, True) if plain else None
    middle = match["part"] in ("middle", "center", "centre")
    if middle and index < len(tokens) and _is_noun(tokens[index]):
        return None  # "the top middle shelf"
    if match["part"]:
        return Place(match.span(), x, y) if match["lead"] or before[-1:] in (["in"], ["on"], ["at"]) else None
    if not (match["lead"] or before[-1:] == ["at"]) or (match["one"] in ("upper", "lower") and not match["two"]):
        return None  # "at left" needs no article
    adjective = index < len(tokens) and _is_noun(tokens[index])
    if match["two"] or match["one"] in ("left", "right"):
        return Place(match.span(), x, y) if not adjective or _claimed(reading, tokens[index].span[0]) else None
    return Place(match.span(), x, y) if not adjective and before[-1:] and before[-1] in _PREPOSITIONS else None


def _claimed(reading: Reading, at: int) -> bool:
    """Whether a character is in a noun phrase that claims a thing of the vocabulary: "the left dog"."""
    number = bisect.bisect_right(reading.nouns, at, key=lambda noun: noun.span[1])
    noun = reading.nouns[number] if number < len(reading.nouns) else None
    return noun is not None and noun.claims and noun.whole[0] <= at < noun.whole[1]


def _is_noun(token: Token) -> bool:
    """Whether what follows "the left" is its noun, as in "the left ear"; "the left gestures" is taken for one too."""
    return token.tag == "NN" and not token.text.endswith(("s", "ing", "ed", "inside", "outside"))


def _verb(token: Token) -> str:
    """The word, unless it only looks like a verb: "an opening"."""
    return "" if token.tag == "NN" and token.text.endswith("ing") else token.text.lower()


def _turned(before: list[str]) -> bool:
    """Whether a verb of turning or moving stands before, other than a "Look to the left" that begins a sentence."""
    if len(before) < 4 and before[:1] and before[0] in _IMPERATIVE:
        return False
    return bool(before) and before[-1] not in ("on", "in", "at", "along", "near") and any(map(_TURNED.match, before))


def _signs(one: str, two: str | None) -> tuple[int, int]:
    x = {"left": -1, "right": 1}.get(two or one, 0)
    y = {"top": -1, "upper": -1, "bottom": 1, "lower": 1}.get(one, 0)
    return x, y


def _wrong_place(place: Place, nouns: Sequence[Ground], size: tuple[int, int], margin: float) -> bool | None:
    if not all(ground.boxes for ground in nouns):
        return None
    return all(_opposite(place, box, size, margin) for ground in nouns for box in ground.boxes)


def _opposite(place: Place, box: Box, size: tuple[int, int], margin: float) -> bool:
    x1, y1, x2, y2 = box.xyxy
    sides = ((place.x, x1 / size[0], x2 / size[0]), (place.y, y1 / size[1], y2 / size[1]))
    for sign, low, high in sides:
        centre = (low + high) / 2
        if sign < 0 and centre > 0.5 + margin and low > 1 / 3:
            return True
        if sign > 0 and centre < 0.5 - margin and high < 2 / 3:
            return True
    return False


def _wrong_relation(place: Place, nouns: Sequence[Ground], size: tuple[int, int], margin: float) -> bool | None:
    """Whether the one thing is clearly on the other side of the other one."""
    if len(nouns) != 2 or any(len(ground.boxes) != 1 for ground in nouns):
        return None
    (ax1, _, ax2, _), (bx1, _, bx2, _) = (ground.boxes[0].xyxy for ground in nouns)
    return ((ax1 + ax2) - (bx1 + bx2)) / 2 * -place.x > margin * size[0]


def _where(boxes: Sequence[Box], size: tuple[int, int]) -> str:
    x1, y1, x2, y2 = boxes[0].xyxy
    more = f", {len(boxes)} boxes" if len(boxes) > 1 else ""
    return f"centre at {(x1 + x2) / 2 / size[0]:.0%} across, {(y1 + y2) / 2 / size[1]:.0%} down{more}"
