"""Colour words of a caption against the pixels of the box that they are said of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmdet import masks
from llmdet.checks.finding import Finding
from llmdet.checks.grounds import Ground, is_person
from llmdet.checks.reading import Noun, Reading
from llmdet.checks.subjects import antecedent, is_verb, subject
from llmdet.checks.things import GENERIC, has_place, is_frame, is_thing, nouns_of, things_of, tokens_of
from llmdet.colours import colour_shares
from llmdet.errors import FormatError
from llmdet.nouns import COLOURS
from llmdet.record import Box, Record

_WORDS = {**{word: word for word in COLOURS}, "grey": "gray"}
_HUES = frozenset(
    "color colour colors colours hue hues shade tone tones tint surface finish exterior body paint coat coating fur "
    "coloring colouring coloration livery appearance look paintwork plumage feathers skin hide fabric material plastic "
    "metal wood outside outer shell casing sides palette dye glaze lacquer upholstery".split()
)
# What may stand beside a colour in one word: "dark-red", "blue-painted".
_SHADES = frozenset("dark light bright deep pale and colored coloured painted hued toned".split())
_COVERS = frozenset("of covers cover covering coats coating".split())
_ASIDE = frozenset("unlike not no without than beyond".split())  # "not red, the bus"
# What denies a colour behind it ("not red"), unless it goes on so: "could not be more red", "no other word than red"
_DENYING = _ASIDE | frozenset("n't never except like instead rather nor neither nothing".split())
_YET = frozenset("more other hard miss overlook only just but".split())
_AMBIENT = frozenset(
    "day morning evening afternoon night hour moment season time mood atmosphere background backdrop surroundings "
    "setting scenery environment horizon".split()
)  # whose colours are of no thing
_EXCEPT = frozenset(["but", "except"])  # "all but the bus is red"
_JOINS = frozenset(": ? ;".split())
_PRONOUNS = frozenset("it its they their".split())
# What light, shade and taste can make of a colour.
_NEAR: Mapping[str, frozenset[str]] = {
    "red": frozenset({"orange", "brown", "pink"}),
    "orange": frozenset({"red", "yellow", "brown"}),
    "yellow": frozenset({"orange", "brown"}),
    "green": frozenset({"black"}),
    "blue": frozenset({"gray", "black"}),
    "purple": frozenset({"blue", "pink", "black"}),
    "pink": frozenset({"red", "purple"}),
    "brown": frozenset({"orange", "red", "black", "gray", "yellow"}),
    "black": frozenset({"gray", "blue", "brown"}),
    "white": frozenset({"gray"}),
    "gray": frozenset({"white", "black", "blue"}),
}
_LEAST = 0.05  # share of the pixels that makes a colour a true one
_ALIKE = 0.15  # share of near colours that does; black, white and gray may be shadow, shine or background
_CLEAR = 0.3  # share that other colours must have together
_NEUTRAL = frozenset({"black", "white", "gray"})
_MIN_SIDE = 8  # pixels
_BETWEEN = 8  # words between a noun, or its verb, and the colour that is said of it
_LONGEST = 100  # words of a sentence that is searched: keeps endless ones linear
_FAR = 30  # words between a noun and its verb


def claimed(reading: Reading, noun: Noun) -> tuple[str, ...]:
    """The colour words that are said of a noun: "a red bus", "the bus is red", "a bus painted in red"."""
    words = noun.modifiers if _HUES.isdisjoint(noun.words) else noun.words  # "a bottle of a vivid red shade"
    before = [colour for word in words for colour in _colours_in(word)]
    return tuple(dict.fromkeys(before or _said(reading, noun) or _elsewhere(reading, noun)))


def contradiction(reading: Reading, ground: Ground, record: Record, pixels: NDArray[np.uint8]) -> Finding | None:
    """The finding where the pixels of the one box show other colours only. `pixels`: of the picture, (h, w, 3)."""
    said, box = claimed(reading, ground.noun), ground.boxes[0]
    shares = _shares(box, record, pixels)
    if not shares:
        return None
    fitting = {near for word in said for near in _NEAR[word]}
    own = sum(shares.get(word, 0.0) for word in said)
    alike = sum(shares.get(word, 0.0) for word in fitting - _NEUTRAL)
    other = sum(share for word, share in shares.items() if word not in fitting and word not in said)
    if own >= _LEAST or alike >= _ALIKE or other < _CLEAR:
        return None
    seen = max(shares, key=shares.__getitem__)
    text = reading.text[slice(*ground.noun.whole)]
    return Finding("colour_contradiction", ground.noun.whole, f"{text!r} {' and '.join(said)}: {seen} in the picture")


def checkable(reading: Reading, grounds: Sequence[Ground]) -> list[Ground]:
    """Nouns with a colour and exactly one box, other than people."""
    return [g for g in grounds if len(g.boxes) == 1 and not is_person(g) and claimed(reading, g.noun)]


def _colours_in(word: str) -> list[str]:
    """The colours in a word of a caption: "red", "red-and-white", "dark-green", "blue-painted"; not "red-roofed"."""
    if word in _WORDS or "-" not in word:
        return [_WORDS[word]] if word in _WORDS else []
    parts = word.split("-")
    plain = all(part in _WORDS or part in _SHADES for part in parts)
    return [_WORDS[part] for part in parts if part in _WORDS] if plain else []


def _said(reading: Reading, noun: Noun) -> list[str]:
    """Colours that the rest of a sentence says of a noun."""
    if reading.words[max(0, noun.tokens[0] - 1)] in _EXCEPT:
        return []
    for at in range(noun.tokens[1], min(len(reading.tokens), noun.tokens[1] + _FAR)):
        if reading.sentences[at] != noun.sentence:
            break
        if is_verb(reading, at) and subject(reading, at) is noun and (found := _from(reading, at + 1)):
            return found
    return _after(reading, noun) or _before(reading, noun)


def _after(reading: Reading, noun: Noun) -> list[str]:
    """Colours right behind a noun, unless they are said of another one: "the roof of the bus is red"."""
    end = noun.tokens[1]
    for at in range(end, min(len(reading.tokens), end + 2)):
        other = subject(reading, at) if is_verb(reading, at) else None
        if other and other is not noun and _HUES.isdisjoint(other.words):
            return []
    return _from(reading, end)


def _from(reading: Reading, begin: int) -> list[str]:
    """Colours from a token on, up to the next noun or the end of the sentence."""
    found: list[str] = []
    words = reading.words
    stops = {n.tokens[0] for n in reading.nouns_from(begin, _BETWEEN) if not _is_hue(reading, n)}
    for at in range(begin, min(len(words), begin + _BETWEEN)):
        here = _colours_in(words[at])
        if here and words[at - 1] == "in":  # "a bus in red stands out"
            return [*found, *here]
        if at in stops or re.fullmatch(r"[.;!?]|not|n['\u2019]t|never|neither|nor|no|but|and|than|like", words[at]):
            if words[at] == "and" and found:
                continue
            break
        found += here
    return found


def _elsewhere(reading: Reading, noun: Noun) -> list[str]:
    """Colours that can be of nothing else: where the sentence names no other thing, and where a pronoun leads to it."""
    here = noun.sentence
    if any(len(tokens_of(reading, sentence)) > _LONGEST for sentence in range(max(0, here - 1), here + 3)):
        return []
    if not is_thing(noun) or reading.words[max(0, noun.tokens[0] - 1)] in _EXCEPT:
        return []
    alone = _coloured(reading, here) == [noun]
    if alone and (found := _free(reading, tokens_of(reading, here))):
        return found
    for sentence in (here, here + 1):
        tokens = tokens_of(reading, sentence)
        for at in tokens:
            if reading.words[at] in _PRONOUNS and antecedent(reading, at) is noun:
                own = next((n for n in nouns_of(reading, sentence) if n.tokens[0] == at), None)
                if own and is_thing(own) and not _is_hue(reading, own):
                    continue  # "its roof red"
                stop = next((n.tokens[0] for n in _coloured(reading, sentence) if n.tokens[0] > at), tokens.stop)
                if found := _free(reading, range(at, stop)):
                    return found
    return _joined(reading, here) if alone else []


def _joined(reading: Reading, here: int) -> list[str]:
    """Colours of sentences that belong to one: "Red: that is its colour", "What colour is the bus? Red"."""
    tokens = tokens_of(reading, here)
    if here and reading.words[tokens.start - 1] in _JOINS and not _coloured(reading, here - 1):
        return _free(reading, tokens_of(reading, here - 1))
    for sentence in (here + 1, here + 2):
        led = reading.words[tokens.stop - 1] in _JOINS
        tokens = tokens_of(reading, sentence)
        words = reading.words[tokens.start : tokens.stop]
        led = (
            led
            or (0 < len(words) < 3 and bool(_colours_in(words[0])))
            or not _PRONOUNS.isdisjoint(words)
            or (words[:1] == ("the",) and not _HUES.isdisjoint(words[:3]))
        )
        if not words or not led or _coloured(reading, sentence):
            return []
        if found := _free(reading, tokens):
            return found
    return []


def _coloured(reading: Reading, sentence: int) -> list[Noun]:
    """The things of a sentence that can have a colour of their own: not "a green body"."""
    return [noun for noun in things_of(reading, sentence) if not _is_hue(reading, noun)]


def _free(reading: Reading, tokens: range) -> list[str]:
    """Colours among some tokens that are of no thing beside them, and that nothing denies."""
    nouns = reading.nouns_from(tokens.start, len(tokens))
    taken = {at for n in nouns if _has_own(reading, n) for at in range(*n.tokens)}
    return [
        colour
        for at in tokens
        if at not in taken and (here := _colours_in(reading.words[at])) and not _denied(reading, at)
        for colour in here
    ]


def _has_own(reading: Reading, noun: Noun) -> bool:
    """Whether a colour in a noun phrase is of what it names: not in "a green body", "its green glory"."""
    if _is_hue(reading, noun) or noun.words[-1] in GENERIC:
        return False
    return has_place(noun) or is_frame(noun.words) or noun.words[-1] in _AMBIENT


def _denied(reading: Reading, at: int) -> bool:
    """Whether it is "not red", "neither red nor green", "rather than red"."""
    for before in range(at - 1, max(-1, at - _BETWEEN), -1):
        word = reading.words[before]
        if word in (",", ";", "but") or reading.sentences[before] != reading.sentences[at]:
            return word == "but" and reading.words[before - 1] == "anything"
        if word in _DENYING:
            return _YET.isdisjoint(reading.words[max(0, before - 3) : at])
    return False


def _is_hue(reading: Reading, noun: Noun) -> bool:
    """Whether a noun is only a colour, or what has it: "a deep red", "a green paint job", "a vivid | green"."""
    end = noun.tokens[1]
    split = not noun.meant and bool(_colours_in(reading.words[end])) if end < len(reading.words) else False
    if noun.determiner not in ("a", "an"):  # "its vivid | blue colour", but not "its roof | red"
        split = split and not _HUES.isdisjoint(reading.words[end + 1 : end + 2])
    return split or bool(_colours_in(noun.words[-1])) or not _HUES.isdisjoint(noun.words)


def _before(reading: Reading, noun: Noun) -> list[str]:
    """Colours that a sentence opens with, or that cover a noun: "painted red, the bus", "red covers the bus"."""
    words, first = reading.words, noun.tokens[0]
    at = first - 1
    if at < 1 or words[noun.tokens[1] : noun.tokens[1] + 1] == ("'s",):
        return []
    if words[at] == "," and reading.sentences[at] == noun.sentence:
        return _opening(reading, at)
    if words[at] not in _COVERS:
        return []
    found: list[str] = []
    at -= 1 + (words[at - 1] in _HUES)
    while at >= 0 and ((here := _colours_in(words[at])) or (words[at] == "and" and found)):
        found, at = [*here, *found], at - 1
    return found


def _opening(reading: Reading, comma: int) -> list[str]:
    """The colours between the begin of a sentence and a comma, where no thing is named there."""
    begin = comma
    while begin and comma - begin < _BETWEEN and reading.sentences[begin - 1] == reading.sentences[comma]:
        begin -= 1
    opens = begin == 0 or reading.sentences[begin - 1] != reading.sentences[comma]
    inside = [n for n in reading.nouns_from(begin, comma - begin) if not _is_hue(reading, n)]
    if not opens or inside or not _ASIDE.isdisjoint(reading.words[begin:comma]):
        return []
    return [colour for word in reading.words[begin:comma] for colour in _colours_in(word)]


def _shares(box: Box, record: Record, pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Share of each colour word in a box, inside its mask where it has one; empty for a tiny box."""
    x1, y1, x2, y2 = (max(0, round(value)) for value in box.xyxy)
    patch = pixels[y1:y2, x1:x2]
    if min(patch.shape[:2]) < _MIN_SIDE:
        return {}
    inside = None
    if box.mask:
        try:
            inside = masks.decode(box.mask, record.height, record.width)[y1:y2, x1:x2]
        except FormatError:
            inside = None  # a mask that cannot be read says nothing; the box still does
    return colour_shares(patch, inside)
