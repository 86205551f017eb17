"""Places that a caption gives to things ("on the left") against their boxes."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from llmdet.checks.finding import Checked, Finding
from llmdet.checks.grounds import Ground
from llmdet.checks.places import Place, begins, places, token_at
from llmdet.checks.reading import Noun, Reading
from llmdet.checks.subjects import PREPOSITIONS, antecedent, is_verb, subject
from llmdet.checks.things import GENERIC, has_place, is_frame, nouns_of, things_of, tokens_of
from llmdet.record import Box, Span

_PARTITION = re.compile(r"\b(?:while|whereas|but)\b|;|,\s+and\b")
_ONE = re.compile(r"\b(?<!the )(?:one)\b|\b(?:ones|others?|something|someone)\b")
_ORDINAL = re.compile(
    r"\bthe\s+(?:(?P<one>former|first)|latter|second|other)\b(?!\s+(?:thing|object|item|element|side|half))(?:\s+one)?[^.;]{0,30}$"
)
_AT_LAST = frozenset("finally eventually last lastly ultimately".split())
_JOINS = frozenset(["?", ":"])
_THE_ONE = re.compile(r"\bthe\s+(?:one|thing|object|item)\b[^,;.:]*$", re.I)
# Before what a side is relative to: "Relative to the dog", "starting from the dog"
_COMPARED = (("relative", "to"), ("compared", "to"), ("compared", "with"), ("respect", "to"), ("relation", "to"))
_DEPARTS = frozenset(
    "start starting go going move moving come coming get travel pass jump step head heading look looking turn turning "
    "pan panning left right . , ! ? ; :".split()
)
_TOWARDS = frozenset("to toward towards".split())
_IS_ONE = re.compile(r"\b(?:is|was|being|as)\s+the\s+(?:only\s+)?one\b")
_HAS = frozenset("has have had having with".split())
_BARE = re.compile(r"[\s,(]*(?:\w+\s+)?(?:on|to|at|in|toward|towards|near|along)?\s*")
_STANDS_ON = re.compile(
    r"\b(?:on|in|over|against|near|across|along|through|(?<!look )(?<!looks )(?<!looking )(?<!staring )(?<!gazing )at|"
    r"(?<!ed )by)\s+$"  # "looks at a tree", "watched by a man" do not say where it stands
)
_PRONOUNS = frozenset(["it", "they", "its", "their"])
_LONGEST = 100  # words of a sentence that are looked at on either side of a place: keeps endless ones linear

Said = tuple[Place, list[Ground]]


def contradicted(reading: Reading, grounds: Sequence[Ground], size: tuple[int, int], margin: float = 0.05) -> Checked:
    """Places where the thing is not: all boxes that the noun can mean are on the other side.

    A box is on the other side where its centre is `margin` (share of the picture, whose `size` is width and height)
    past the middle and the box does not reach into the outer third that was named.
    """
    findings, claims = [], 0
    for place, nouns in attached(reading, grounds):
        relation = place.to != "picture" and len(nouns) > 1
        wrong = (_wrong_relation if relation else _wrong_place)(place, nouns, size, margin)
        if wrong is None:
            continue
        claims += 1
        if wrong:
            said = f"{reading.text[slice(*nouns[0].noun.span)]!r} {reading.text[slice(*place.span)]!r}"
            findings.append(Finding("position_contradiction", place.span, f"{said}: {_where(nouns[0].boxes, size)}"))
    return Checked(claims, tuple(findings))


# --- which nouns a place is said of ---------------------------------------------------------------------------------


def attached(reading: Reading, grounds: Sequence[Ground]) -> list[Said]:
    """Each place with the noun that it is said of; two where either can be meant ("a man with a dog on the left").

    For a place relative to a noun: the thing, and the noun that it is relative to.
    """
    found = places(reading)
    if not found:
        return []
    nouns = [g for g in grounds if (g.boxes or has_place(g.noun)) and not _inside(g.noun.span[0], found)]
    starts = [ground.noun.span[0] for ground in nouns]
    pairs: list[Said] = []
    openings: dict[int, Place] = {}  # the first place of each sentence, by where the sentence begins
    for number, place in enumerate(found):
        start, end = _sentence(reading, place.span[0])
        opening = openings.setdefault(start, place)
        low = max(start, found[number - 1].span[1]) if number else start
        high = min(end, found[number + 1].span[0]) if number + 1 < len(found) else end
        at = bisect.bisect_left(starts, place.span[0])
        before = nouns[bisect.bisect_left(starts, low) : at]
        after = nouns[at : bisect.bisect_left(starts, high)]
        if place.to == "order":
            pairs += _in_order(
                place, before, after, reading.words[token_at(reading, place.span[1]) : token_at(reading, high)]
            )
            continue
        if number and found[number - 1].to == "next" and len(before) == 1 and "," in reading.text[low : place.span[0]]:
            continue  # "a dog below a kite, near the bottom": the dog is, or the kite
        # A sentence that opens with a place goes on so: "On the left a dog, on the right a cat".
        led = bisect.bisect_left(starts, start) == bisect.bisect_left(starts, opening.span[0])
        around = _Around(reading, place, nouns, before, after, low, not before or (led and bool(after)))
        if place.to in ("picture", "next") and (two := around.compared()):
            pairs.append((replace(place, to="next"), two))
        elif said_of := around.said_of():
            pairs.append((place, said_of))
    return pairs


def _inside(at: int, found: Sequence[Place]) -> bool:
    """Whether a character is in one of the places, which are in order."""
    number = bisect.bisect_right(found, at, key=lambda place: place.span[0])
    return number > 0 and at < found[number - 1].span[1]


def _in_order(place: Place, before: list[Ground], after: list[Ground], words: Sequence[str]) -> list[Said]:
    """Neighbours in a list of things: "from left to right, a dog, a cat and a bird"; or the last one of them alone."""
    if len(after) == 1 and not before and after[0].boxes and not _AT_LAST.isdisjoint(words):
        return [(replace(place, x=-place.x, y=-place.y, to="picture"), after)]
    listed = after if len(after) > 1 else before
    return [(place, [one, other]) for one, other in pairwise(listed)]


@dataclass(frozen=True, slots=True)
class _Around:
    """A place and the nouns around it, between the places before and after it in its sentence."""

    reading: Reading
    place: Place
    nouns: list[Ground]  # of the whole caption
    before: list[Ground]
    after: list[Ground]
    start: int  # character from which on `before` was looked for
    fronted: bool  # the place opens its sentence, or a clause of one that opens so

    def said_of(self) -> list[Ground]:
        """The nouns that the place is said of."""
        if self.place.to in ("its", "owner"):
            return self._beside_owner()
        after = self.after
        if after and after[0].noun.whole[0] <= self.place.span[0]:
            if after[0].boxes:
                return after[:1]  # "the left dog"
            after = after[1:]  # "the left gestures" was taken for a noun
        if self.place.to == "next":
            return self._relative(after)
        if ordinal := _ORDINAL.search(self.reading.text[self.start : self.place.span[0]].lower()):
            return self._of_two(first=bool(ordinal["one"]))
        if pronoun := self._pronoun(self.start, self.place.span[0]):
            return self._meant(pronoun)
        if self._generic():
            return after[:1]
        fronted = self.fronted if after is self.after else not self.before
        return (after[:1] if fronted else self._subject()) or self._only() or self._joined()

    def compared(self) -> list[Ground]:
        """A thing and what its side is relative to: "Relative to the cat, the dog is to the left"."""
        words, first = self.reading.words, token_at(self.reading, self.place.span[0])
        if words[first : first + 1] == ("the",) and words[first - 1 : first] not in [(word,) for word in _TOWARDS]:
            return []
        named = self._named_in(self.reading.sentences[min(first, len(words) - 1)])
        others = [ground for ground in named if self._departs(ground.noun.tokens[0])]
        if len(named) != 2 or len(others) != 1 or not all(ground.boxes for ground in named):
            return []
        return [*[ground for ground in named if ground is not others[0]], *others]

    def _departs(self, at: int) -> bool:
        """Whether what stands before a token says that somebody looks on from there, or compares."""
        words = self.reading.words
        if at > 1 and words[at - 2 : at] in _COMPARED:
            return True
        return at > 0 and words[at - 1] == "from" and (at == 1 or words[at - 2] in _DEPARTS)

    def _named_in(self, sentence: int) -> list[Ground]:
        """The first nouns of a sentence."""
        first = bisect.bisect_left(self.nouns, sentence, key=lambda ground: ground.noun.sentence)
        return [ground for ground in self.nouns[first : first + _LONGEST] if ground.noun.sentence == sentence]

    def _with(self, ground: Ground) -> bool:
        """Whether a sentence begins with "with" and this noun."""
        first = ground.noun.tokens[0]
        opens = first == 1 or (first > 1 and self.reading.sentences[first - 2] != self.reading.sentences[first])
        return opens and self.reading.words[first - 1] == "with"

    def _of_two(self, first: bool) -> list[Ground]:
        """What "the former" or "the second" means, where exactly two things were named before it."""
        sentence = self.reading.sentences[token_at(self.reading, self.place.span[0])]
        for number in (sentence, sentence - 1):
            boxed = [g for g in self._named_in(number) if g.noun.span[1] <= self.place.span[0]]
            if boxed:
                return boxed[:1] if first and len(boxed) == 2 else boxed[1:2] if len(boxed) == 2 else []
        return []

    def _joined(self) -> list[Ground]:
        """The one thing of the sentence that answers or asks: "What is on the left? A dog", "The dog: on the left"."""
        words = self.reading.words
        sentence = self.reading.sentences[min(token_at(self.reading, self.place.span[0]), len(words) - 1)]
        tokens = tokens_of(self.reading, sentence)
        if self._named_in(sentence):
            return []
        joined = [sentence + 1] if words[tokens.stop - 1] in _JOINS else []
        if tokens.start and words[tokens.start - 1] in _JOINS:
            joined = [sentence - 1, *[sentence - 2] * (sentence > 1), *joined]
        for number in joined:
            named = self._named_in(number)
            if named:
                return named if len(named) == 1 and named[0].boxes else []
        return []

    def _relative(self, after: list[Ground]) -> list[Ground]:
        """The thing, and the one that "left of" or "above" goes on with."""
        behind = token_at(self.reading, self.place.span[1])
        if self.reading.words[behind : behind + 1] in (("of",), ("from",), ("than",)):
            behind += 1
        if self.reading.words[behind : behind + 1] == ("it",):
            return self._beside_it(behind, after)
        elif after and (self.place.x or after[0].noun.tokens[0] == behind):
            other, after = after[:1], after[1:]
        else:
            return []  # "seen from above"
        pronoun = self._pronoun(self.start, self.place.span[0])
        thing = self._meant(pronoun) if pronoun else self._subject()[:1] if self.before else after[:1]
        thing = thing or self._other_one(other)
        return [*thing, *other] if thing and other else []

    def _other_one(self, other: list[Ground]) -> list[Ground]:
        """The only thing with a box that a sentence names beside another one."""
        here = self._named_in(other[0].noun.sentence)
        named = [ground for ground in here if ground.noun.meant != other[0].noun.meant]
        return named if len(named) == 1 and named[0].boxes else []

    def _beside_it(self, pronoun: int, after: list[Ground]) -> list[Ground]:
        """The thing, and the one that "left of it" means."""
        before = self.before
        if len(before) > 1 and "," in self.reading.text[before[-1].noun.whole[1] : self.place.span[0]]:
            return []  # "a dog sits beside a bench, left of it"
        if len(before) == 2 and self.reading.words[before[1].noun.tokens[0] - 1] in _HAS:
            return [before[1], before[0]]  # "a bench has a dog above it"
        if len(before) == 1 and after and self._with(before[0]):
            return [before[0], after[0]]  # "with a dog above it, a cat"
        other = self._meant(pronoun)
        thing = self._subject()[:1] if before else after[:1]
        if thing == other and after:
            thing = after[:1]  # "there is a bench, and left of it a dog"
        elif thing and thing == other:  # "There is a bench. A dog is to the left of it."
            other = self._of(antecedent(self.reading, thing[0].noun.tokens[0]))
        return [*thing, *other] if thing and other else []

    def _beside_owner(self) -> list[Ground]:
        """ "A cat has a dog to its left", "the cat's left": the dog, and the cat."""
        if self.place.to == "owner":
            owner = [g for g in self.before if g.noun.whole[1] == self.place.span[0]]
            rest = [g for g in self.before if g not in owner]
            thing = rest[:1] if rest else self.after[:1]
            return [*thing, *owner] if thing and owner else []
        if not self.before:
            its = self._meant(token_at(self.reading, self.place.span[0]))
            if not its and self._of_frame():
                return self.after[:1]  # "the picture is calm, and its left side shows a cat"
            return [*self.after[:1], *its] if its and self.after else []
        if len(self.before) == 1:
            if self.after and self._with(self.before[0]):
                return [self.before[0], self.after[0]]  # "with a dog on its left, a cat"
            if self.after:
                return [self.after[0], self.before[0]]
            return self.before if self._of_frame() else []  # "the picture has a cat to its left"
        return [self.before[1], self.before[0]] if len(self.before) == 2 else []

    def _pronoun(self, start: int, end: int) -> int:
        """The token of the last "it" or "they" behind the last noun before the place; 0 where there is none."""
        begin = token_at(self.reading, max([start, *(g.noun.whole[1] for g in self.before[-1:])]))
        tokens = range(begin, token_at(self.reading, end))
        return next((at for at in reversed(tokens) if self.reading.words[at] in _PRONOUNS and not self._aside(at)), 0)

    def _aside(self, at: int) -> bool:
        """Whether a pronoun is not what the place is said of: "across from it", "it is on the left that"."""
        words = self.reading.words
        behind = token_at(self.reading, self.place.span[1])
        cleft = words[at + 1 : at + 2] in (("is",), ("'s",), ("was",)) and words[behind : behind + 1] in (
            ("that",),
            ("where",),
        )
        return cleft or (at > 0 and words[at - 1] in PREPOSITIONS)

    def _meant(self, pronoun: int) -> list[Ground]:
        return self._of(antecedent(self.reading, pronoun))

    def _of(self, noun: Noun | None) -> list[Ground]:
        return [ground for ground in self.nouns if ground.noun is noun and ground.boxes]

    def _generic(self) -> bool:
        """Whether it is "the object on the left is a dog"."""
        one = _THE_ONE.search(self.reading.text, self.start, self.place.span[0])
        generic = len(self.before) == 1 and self.before[0].noun.words[-1] in GENERIC
        if not self.after or not (one or generic):
            return False
        return self.reading.words[token_at(self.reading, self.place.span[1])] in ("is", "are", "was", "were", ":")

    def _only(self) -> list[Ground]:
        """The one thing that the sentence names, where nothing better is known."""
        if self.before and _BARE.fullmatch(self.reading.text, self.before[-1].noun.whole[1], self.place.span[0]):
            return []  # "the light on the left falls on a dog"
        sentence = self.reading.sentences[min(token_at(self.reading, self.place.span[0]), len(self.reading.words) - 1)]
        if len(tokens_of(self.reading, sentence)) > _LONGEST:
            return []
        things = things_of(self.reading, sentence)
        behind = self.reading.text[self.start : self.place.span[0]]
        return self._of(things[0]) if len(things) == 1 and not _ONE.search(behind.lower()) else []

    def _of_frame(self) -> bool:
        """Whether the sentence speaks of the picture before the place."""
        nouns = nouns_of(self.reading, self.reading.sentences[token_at(self.reading, self.place.span[0])])
        return any(is_frame(noun.words) for noun in nouns if noun.span[1] <= self.place.span[0])

    def _subject(self) -> list[Ground]:
        """The nouns before a place that it can be said of."""
        reading, before, place = self.reading, self.before, self.place
        cuts = _PARTITION.finditer(reading.text, before[0].noun.span[0], place.span[0])
        cut = max([match.end() for match in cuts], default=0)
        inside = [g for g in before if g.noun.span[0] >= cut] or before[-1:]
        first, last = inside[0], inside[-1]
        spoken = _spoken_of(reading, place, last)
        if spoken:
            return [ground for ground in before if ground.noun is spoken and ground.boxes]
        behind = reading.text[last.noun.whole[1] : place.span[0]]
        if _ONE.search(behind) or (" one " in behind and len(before) > 1 and not _IS_ONE.search(behind)):
            return []  # "the one on the left"
        if last.boxes:
            return [last] if first is last or not first.boxes or _BARE.fullmatch(behind) else [first, last]
        if first.boxes and _STANDS_ON.search(reading.text[first.noun.span[1] : last.noun.whole[0]]):
            return [first]  # "a dog lies on the grass on the left"
        return []


def _spoken_of(reading: Reading, place: Place, last: Ground) -> Noun | None:
    """The subject of the verb between the last noun and a place: "a dog with a red collar lies on the left"."""
    end = last.noun.tokens[1]
    for at in range(min(token_at(reading, place.span[0]), end + _LONGEST) - 1, end - 1, -1):
        if is_verb(reading, at):
            return subject(reading, at)
    return None


def _sentence(reading: Reading, at: int) -> Span:
    """Where the sentence of a character begins and ends."""
    tokens = reading.tokens
    first = last = token_at(reading, at)
    low, high = max(0, first - _LONGEST), min(len(tokens), last + _LONGEST)
    while first > low and not begins(tokens, first):
        first -= 1
    last = min(last + 1, high)
    while last < high and not begins(tokens, last):
        last += 1
    start = tokens[first].span[0] if first < len(tokens) else at
    return start, tokens[last].span[0] if last < len(tokens) else len(reading.text)


# --- whether a box is there -----------------------------------------------------------------------------------------


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
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = (ground.boxes[0].xyxy for ground in nouns)
    if place.x:
        return ((ax1 + ax2) - (bx1 + bx2)) / 2 * -place.x > margin * size[0]
    # Things overlap more often in height: a cat above a blanket may hang over it.
    upper, lower = ((ay1, ay2), (by1, by2))[:: -1 if place.y < 0 else 1]
    between = sum(lower) / 2 > upper[1] and sum(upper) / 2 < lower[0]
    return between and sum(lower) - sum(upper) > 2 * margin * size[1]


def _where(boxes: Sequence[Box], size: tuple[int, int]) -> str:
    x1, y1, x2, y2 = boxes[0].xyxy
    more = f", {len(boxes)} boxes" if len(boxes) > 1 else ""
    return f"centre at {(x1 + x2) / 2 / size[0]:.0%} across, {(y1 + y2) / 2 / size[1]:.0%} down{more}"
