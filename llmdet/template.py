"""Captions without a model: factual sentences from boxes, phrases, positions, sizes, counts and measured colours.

Every sentence is true of the record by construction: counts are numbers of boxes, positions are the third of the
picture that holds a box's centre, and relations are said only where a margin makes them plain. Names that are known
to be absent are never mentioned. Wording varies with a checksum of the record's id, so the same facts always give
the same text. Bump TEMPLATE_VERSION with any change of wording.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from llmdet.boxes import XYXY
from llmdet.errors import FormatError
from llmdet.nouns import Noun, article, class_noun, count_word, free_noun
from llmdet.record import Record

TEMPLATE_VERSION = "1"

SMALL, LARGE = 0.02, 0.25  # shares of the picture below and above which a region caption says so
MAX_WORDS = 150
_MAX_NAMES = 12  # kinds of things in the first sentence
_MAX_DETAILS = 5  # kinds of things with a sentence of their own
_MAX_RELATIONS = 2

_PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the centre", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
_COLUMNS = ("on the left", "in the middle", "on the right")
# Area shares that have a plain name, and how far a share may be from it.
_SHARES = (
    (0.25, 0.03, "filling about a quarter of the picture"),
    (0.33, 0.04, "filling about a third of the picture"),
    (0.5, 0.06, "filling about half of the picture"),
    (0.67, 0.06, "filling about two thirds of the picture"),
    (1.0, 0.1, "filling nearly all of the picture"),
)
_OPENINGS = ("The picture shows", "This picture shows", "The image shows", "In view:")


@dataclass(frozen=True, slots=True)
class Thing:
    """One region as the template sees it: its phrase and its boxes, cut to the picture."""

    phrase: str
    boxes: tuple[XYXY, ...]
    crowd: tuple[bool, ...]  # per box: stands for a group of the named kind
    colours: tuple[str | None, ...] = ()  # per box, where colours were measured


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the template reads of a record."""

    key: str  # chooses between wordings of equal meaning
    names: bool  # phrases are class names (detection) rather than free text
    width: int
    height: int
    things: tuple[Thing, ...]


def facts_json(record: Record) -> str:
    """Canonical text of what the template reads, the "prompt" of a template request.

    It changes when the id, the picture's size, a phrase, a box or a crowd flag changes. Colours are not in it: they
    follow from the pixels, whose hash is part of the request id.
    """
    things = [[r.phrases, [b.xyxy for b in r.boxes], [int(b.crowd) for b in r.boxes]] for r in record.regions]
    return orjson.dumps([record.id, record.kind, record.width, record.height, things]).decode()


def facts_of(record: Record, colours: Sequence[str | None] = ()) -> Facts:
    """The facts of a record. `colours`: one measured colour or None per box, regions in order, or nothing."""
    things = [(r.phrases, [b.xyxy for b in r.boxes], [b.crowd for b in r.boxes]) for r in record.regions]
    return _facts(record.id, record.kind, record.width, record.height, things, colours)


def facts_from_json(text: str, colours: Sequence[str | None] = ()) -> Facts:
    """The facts that `facts_json` wrote. Raises FormatError for any other text."""
    try:
        key, kind, width, height, things = orjson.loads(text)
        return _facts(key, kind, width, height, things, colours)
    except (ValueError, TypeError) as error:
        raise FormatError(f"expected the text of facts_json, got {text[:80]!r}: {error}") from error


def _facts(key: str, kind: str, width: int, height: int, things: Sequence[Any], colours: Sequence[str | None]) -> Facts:
    found = []
    at = 0
    for phrases, boxes, crowd in things:
        cut = tuple([_cut(box, width, height) for box in boxes])
        tint = tuple(colours[at : at + len(cut)]) if colours else ()
        at += len(cut)
        found.append(Thing(phrases[0] if phrases else "", cut, tuple([bool(c) for c in crowd]), tint))
    if colours and at != len(colours):
        raise FormatError(f"colours must be one per box: {at} boxes, {len(colours)} colours in {key}")
    return Facts(key, kind == "detection", width, height, tuple(found))


def _cut(box: XYXY, width: int, height: int) -> XYXY:
    x1, y1, x2, y2 = box
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return (x1, y1, x2, y2)
    return (min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height))


# --- the image ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kind:
    """Things of one name, counted together."""

    noun: Noun
    boxes: tuple[XYXY, ...]
    colour: str  # of every box, or empty
    crowd: bool
    first: str = ""
    again: str = ""
    area: float = 0.0
    unique: bool = True  # "the dog" can mean nothing else in this caption


def image_caption(facts: Facts) -> str:
    """One to eight sentences about the whole picture, at most MAX_WORDS words."""
    kinds = _kinds(facts)
    if not kinds:
        return _bare(facts)
    wording = zlib.crc32(facts.key.encode())
    named = _named(kinds)
    sentences = [_overview(named, len(kinds) - len(named), _OPENINGS[wording % len(_OPENINGS)], facts.names)]
    words = sentences[0].count(" ") + 1
    for sentence in _details(facts, named[:_MAX_DETAILS], wording):
        words += sentence.count(" ") + 1
        if words > MAX_WORDS:
            break
        sentences.append(sentence)
    return " ".join(sentences)


def _bare(facts: Facts) -> str:
    """A true sentence about a picture of which nothing else is known."""
    width, height = facts.width, facts.height
    form = "wider than it is high" if width > height else "higher than it is wide" if height > width else "square"
    return f"The picture is {form} and measures {width} by {height} pixels."


def _kinds(facts: Facts) -> list[_Kind]:
    """Things grouped by name (class names) or one by one (free phrases), largest area first."""
    groups: dict[tuple[str, int, bool], list[XYXY]] = {}
    tints: dict[tuple[str, int, bool], set[str | None]] = {}
    names = facts.names
    for index, thing in enumerate(facts.things):
        if thing.phrase.count(" ") > 30 or len(thing.phrase) > 300:
            continue  # a whole paragraph given as a phrase does not fit in a sentence
        colours = thing.colours or (None,) * len(thing.boxes)
        for box, crowd, colour in zip(thing.boxes, thing.crowd, colours, strict=True):
            key = (thing.phrase, 0 if names else index, crowd)
            groups.setdefault(key, []).append(box)
            tints.setdefault(key, set()).add(colour)
    kinds = [_kind(key, boxes, tints[key], names) for key, boxes in groups.items()]
    seen: dict[str, int] = {}
    for kind in kinds:
        seen[kind.again] = seen.get(kind.again, 0) + 1
    for kind in kinds:
        kind.unique = seen[kind.again] == 1
    kinds.sort(key=lambda kind: -kind.area)
    return kinds


def _kind(key: tuple[str, int, bool], boxes: list[XYXY], tints: set[str | None], names: bool) -> _Kind:
    phrase, _, crowd = key
    noun = class_noun(phrase) if names else free_noun(phrase)
    (colour,) = tints if len(tints) == 1 else (None,)
    kind = _Kind(noun, tuple(boxes), "" if noun.coloured or not noun.bare or colour is None else colour, crowd)
    kind.first, kind.again = _mentions(kind)
    kind.area = sum([(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes])
    return kind


def _mentions(kind: _Kind) -> tuple[str, str]:
    """How the first and every later sentence name a kind."""
    noun, count = kind.noun, len(kind.boxes)
    if kind.crowd:
        many = noun.plural or noun.again
        if count == 1:
            return f"a group of {many}", f"the group of {many}"
        return f"{count_word(count)} groups of {many}", f"the {count_word(count)} groups of {many}"
    tint = f"{kind.colour} " if kind.colour else ""
    if count == 1 and tint:
        return f"{article(kind.colour)} {tint}{noun.bare}", f"the {tint}{noun.bare}"
    if count == 1 or not noun.plural:
        return noun.first, noun.again
    return f"{count_word(count)} {tint}{noun.plural}", f"the {count_word(count)} {tint}{noun.plural}"


def _named(kinds: list[_Kind]) -> list[_Kind]:
    """The kinds that fit in the first sentence."""
    words = 0
    for number, kind in enumerate(kinds[:_MAX_NAMES]):
        words += kind.first.count(" ") + 1
        if words > MAX_WORDS // 2:
            return kinds[: max(number, 1)]
    return kinds[:_MAX_NAMES]


def _overview(kinds: list[_Kind], rest: int, opening: str, names: bool) -> str:
    listed = [kind.first for kind in kinds]
    if rest:
        more = f"{count_word(rest)} more {'kind' if rest == 1 else 'kinds'} of things"
        listed.append(more if names else "other things")
    return f"{opening} {_listing(listed)}."


def _listing(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _details(facts: Facts, kinds: list[_Kind], wording: int) -> Iterator[str]:
    whole = facts.width * facts.height
    for number, kind in enumerate(kinds):
        if len(kind.boxes) == 1:
            yield _one_place(facts, kind, whole, (wording >> number) & 1)
        elif kind.noun.plural or kind.crowd:
            yield _many_places(facts, kind)
    yield from _relations(facts, kinds)


def _one_place(facts: Facts, kind: _Kind, whole: float, wording: int) -> str:
    place = place_of(kind.boxes[0], facts.width, facts.height)
    share = kind.area / whole
    size = next((f", {text}" for at, margin, text in _SHARES if abs(share - at) <= margin), "") if share > 0.2 else ""
    name = kind.again if kind.unique else kind.first
    verb = "is" if wording and kind.noun.bare else "can be seen"
    return f"{_capital(name)} {verb} {place}{size}."


def _many_places(facts: Facts, kind: _Kind) -> str:
    counts = [0, 0, 0]
    for x1, _, x2, _ in kind.boxes:
        counts[_third(x1 + x2, facts.width)] += 1
    total = len(kind.boxes)
    if total in counts:
        word = "both" if total == 2 else "all"
        return f"{_capital(kind.again)} can {word} be seen {_COLUMNS[counts.index(total)]}."
    parts = [f"{count_word(n)} can be seen {where}" for n, where in zip(counts, _COLUMNS, strict=True) if n]
    return f"Of {kind.again}, {_listing(parts)}."


def _relations(facts: Facts, kinds: list[_Kind]) -> Iterator[str]:
    """What two single things are to each other, for neighbours in the order of size."""
    single = [kind for kind in kinds if len(kind.boxes) == 1 and kind.unique]
    said = 0
    for a, b in pairwise(single):
        sentence = _relation(a, b, facts)
        if sentence and said < _MAX_RELATIONS:
            said += 1
            yield sentence


def _relation(a: _Kind, b: _Kind, facts: Facts) -> str:
    """A relation of a to b with a margin: a gap for sides, a fifth of the smaller box for overlap, twice the area."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.boxes[0], b.boxes[0]
    name, other = _capital(a.again), b.again
    dx, dy = bx1 + bx2 - ax1 - ax2, by1 + by2 - ay1 - ay2
    gap_x, gap_y = 0.01 * facts.width, 0.01 * facts.height
    if abs(dx) >= abs(dy) and (bx1 - ax2 >= gap_x or ax1 - bx2 >= gap_x):
        return f"{name} can be seen to the {'left' if dx > 0 else 'right'} of {other}."
    if abs(dy) >= abs(dx) and (by1 - ay2 >= gap_y or ay1 - by2 >= gap_y):
        return f"{name} can be seen {'above' if dy > 0 else 'below'} {other}."
    across, down = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    if across > 0 and down > 0 and across * down >= 0.2 * min(a.area, b.area):
        return f"{name} and {other} overlap in the picture."
    if a.area >= 2 * b.area > 0:
        if a.noun.bare:
            return f"{name} takes up more of the picture than {other}."
        return f"More of the picture is filled by {a.again} than by {other}."
    return ""


def place_of(box: XYXY, width: float, height: float) -> str:
    """Where a box is: the ninth of the picture that holds its centre."""
    x1, y1, x2, y2 = box
    return _PLACES[_third(y1 + y2, height)][_third(x1 + x2, width)]


def _third(twice_centre: float, side: float) -> int:
    return 0 if 3 * twice_centre < 2 * side else 2 if 3 * twice_centre > 4 * side else 1


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


# --- the regions ----------------------------------------------------------------------------------------------------


def region_captions(facts: Facts) -> list[str]:
    """A short phrase per box, regions in order and boxes in their order: "a small red bus at the top left"."""
    captions = []
    width, height = facts.width, facts.height
    whole = width * height
    for thing in facts.things:
        noun = class_noun(thing.phrase) if facts.names else free_noun(thing.phrase)
        several = len(thing.boxes) > 1
        colours = thing.colours or (None,) * len(thing.boxes)
        for box, crowd, colour in zip(thing.boxes, thing.crowd, colours, strict=True):
            name = f"a group of {noun.plural or noun.again}" if crowd else ""
            if not name and not noun.bare:
                name = noun.one_of if several else noun.first
            x1, y1, x2, y2 = box
            name = name or _described(noun, (x2 - x1) * (y2 - y1) / whole, colour)
            captions.append(f"{name} {place_of(box, width, height)}")
    return captions


def _described(noun: Noun, share: float, colour: str | None) -> str:
    size = "small " if share < SMALL else "large " if share > LARGE else ""
    tint = f"{colour} " if colour and not noun.coloured else ""
    if not size and not tint:
        return noun.first
    return f"{article(size or tint)} {size}{tint}{noun.bare}"
