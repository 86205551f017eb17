"""True sentences about records, in forms that the template engine does not have, and the faults planted in them.

A form is a text with slots; `fill` puts the names of a scene into them. Slots:

    {a} {A}   one thing with its article ("a dog", "A dog"); {b} {B} another one
    {noun}    its bare name; {plural} the plural
    {n} {N}   a number with its plural ("three dogs"); {count} the number alone
    {side}    left or right; {other} the opposite one
    {end}     top or bottom; {level} upper or lower
    {colour}  a colour word
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from llmdet.nouns import article, class_noun, count_word
from llmdet.record import Record

OBJECTS = (
    "{A} rests close to {b}.",
    "Not far from {a} lies {b}.",
    "What stands out first is {a}; {b} shares the frame.",
    "Somebody has photographed {a} together with {b}.",
    "Next to {b}, {a} catches the eye.",
    "This is a close view of {a} and, further back, {b}.",
    "The scene is dominated by {a}, with {b} nearby.",
    "{B} appears beside {a}, both in sharp focus.",
    "One can make out {a} as well as {b}.",
    "Behind {a}, partly hidden, is {b}.",
    "The photographer caught {a} while {b} stayed in the background.",
    "a shot of {a} and {b} in daylight",
    "There's {a} here, and {b} too.",
    "If you look closely you will notice {a} next to {b}.",
)
COUNTS = (
    "{N} are gathered here.",
    "A total of {n} fill the frame.",
    "There are {n} in view.",
    "The camera has caught {n} at once.",
    "One counts {n} in all.",
    "{N}, all of them in plain view, make up the scene.",
    "We see {n}, each in its own spot.",
    "Altogether, {n} can be counted.",
    "The frame holds exactly {n}.",
    "{N} share the space.",
    "The number of {plural} is {count}.",
    "The {plural}, {count} in number, are spread out.",
    "Spread across the scene are {n}.",
)
SIDES = (
    "On the {side} side of the frame, {a} is visible.",
    "{A} stands at the far {side}.",
    "To the {side}, there is {a}.",
    "The {side} half of the photo is taken up by {a}.",
    "{A} occupies the {side} part of the image.",
    "Look to the {side} and you find {a}.",
    "In the {side}-hand portion of the scene sits {a}.",
    "{A} appears {side} of centre.",
    "Toward the {side} edge, {a} comes into view.",
    "Over on the {side} is {a}, easy to spot.",
    "{A} is positioned on the picture's {side}.",
    "Framed on the {side}, {a} draws attention.",
    "{A} has been placed against the {side} border of the shot.",
)
ENDS = (
    "In the {level} part of the image, {a} can be found.",
    "{A} lies near the {end} edge.",
    "At the very {end} of the photo is {a}.",
    "Toward the {end}, one finds {a}.",
)
TWO_SIDES = (
    "{A} is on the {side} while {b} is on the {other}.",
    "{A} takes the {side} of the frame, {b} the {other}.",
    "On the {side} we have {a}, on the {other} {b}.",
    "{A} stands to the {side} of {b}.",
    "{A} sits {side} of {b}.",
)
COLOURS = (  # of the one thing of its name
    "The {noun} is {colour}.",
    "One {noun}, {colour} all over, is easy to spot.",
    "There is a bright {colour} {noun} in the scene.",
    "The {noun} has been painted {colour}.",
    "The {noun} appears {colour} against the background.",
    "Among the things in view is a plain {colour} {noun}.",
    "A {noun} in {colour} stands out.",
    "The colour of the {noun} is {colour}.",
    "The {noun} that one sees is {colour}.",
    "Everything is dull except for the {colour} {noun}.",
)
REGION_COLOURS = (
    "a bright {colour} {noun}",
    "{colour} {noun} with sharp edges",
    "the {noun} is {colour}",
    "a {noun} painted in {colour}",
    "a {noun} of a deep {colour} colour",
    "this {noun} looks {colour}",
    "a single {noun}, {colour} all over",
    "a {noun} whose colour is {colour}",
    "a large {colour} {noun} on a plain surface",
    "a {noun} in {colour}",
)
# Written after the checks were done, and measured once without a change to either.
LATER_OBJECTS = (
    "Beside {b} one notices {a}.",
    "{A} and {b} are what this snapshot is about.",
    "It is hard to overlook {a}, which rests in front of {b}.",
    "Here we have {a}, accompanied by {b}.",
    "The viewer's gaze goes first to {a} and then to {b}.",
    "Captured in this shot: {a}, {b}.",
)
LATER_COUNTS = (
    "You can see {n} here.",
    "{N} make up this group.",
    "This photo features {n}.",
    "Visible are {n}.",
    "In total there are {n} to be found.",
    "{N} populate the picture.",
)
LATER_SIDES = (
    "{A} can be spotted at the {side} margin of the picture.",
    "Towards the {side}-hand side, you will find {a}.",
    "{A}, on the {side}, balances the composition.",
    "The {side} of the image is home to {a}.",
    "Far over to the {side} waits {a}.",
    "At {side} is {a}.",
)
LATER_COLOURS = (
    "What catches the eye is a {colour} {noun}.",
    "The {noun}, which is {colour}, lies in plain view.",
    "A vivid {colour} covers the {noun}.",
    "The {noun} has a {colour} surface.",
    "We notice that the {noun} is coloured {colour}.",
    "Somewhere in here a {colour} {noun} is hiding.",
)
FILLERS = (  # true of any picture, and full of words that are claims elsewhere
    "The light is soft and even.",
    "The background is slightly out of focus.",
    "Shadows fall to the left.",
    "No text can be read anywhere.",
    "The mood is calm.",
    "The two halves of the picture balance each other.",
    "The right amount of light reaches the lens.",
    "Everything was taken from a slight angle, at the top of a ladder.",
)
ALL = (*OBJECTS, *COUNTS, *SIDES, *ENDS, *TWO_SIDES, *COLOURS, *REGION_COLOURS)
LATER = (*LATER_OBJECTS, *LATER_COUNTS, *LATER_SIDES, *LATER_COLOURS)
_LATER = {OBJECTS: LATER_OBJECTS, COUNTS: LATER_COUNTS, SIDES: LATER_SIDES, COLOURS: LATER_COLOURS}
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "upper": "lower", "lower": "upper"}
_LEVEL = {"top": "upper", "bottom": "lower"}


@dataclass(frozen=True)
class Fact:
    """What one sentence says: a form and what goes into its slots."""

    form: str
    name: str
    other: str = ""  # second name
    count: int = 1
    side: str = ""  # left, right, top or bottom
    colour: str = ""
    names: tuple[str, ...] = field(default=(), repr=False)  # absent ones, for planted objects

    def text(self) -> str:
        return fill(self)


def fill(fact: Fact) -> str:
    """The sentence of a fact."""
    noun, other = class_noun(fact.name), class_noun(fact.other or fact.name)
    number = f"{count_word(fact.count)} {noun.plural if fact.count > 1 else noun.bare}"
    slots = {
        "a": noun.first,
        "A": _capital(noun.first),
        "b": other.first,
        "B": _capital(other.first),
        "noun": noun.bare,
        "plural": noun.plural,
        "n": number,
        "N": _capital(number),
        "count": count_word(fact.count),
        "side": fact.side,
        "other": OPPOSITE.get(fact.side, ""),
        "end": fact.side,
        "level": _LEVEL.get(fact.side, ""),
        "colour": fact.colour,
    }
    said = fact.form.format(**slots)
    return said.replace(f" a {fact.colour}", f" {article(fact.colour)} {fact.colour}") if fact.colour else said


def wrong_object(fact: Fact, rng: random.Random) -> Fact:
    """One of the two names is one that the picture has not."""
    absent = rng.choice(fact.names)
    return replace(fact, name=absent) if rng.random() < 0.5 else replace(fact, other=absent)


def wrong_count(fact: Fact, rng: random.Random) -> Fact:
    """Another number from two up, at most two away."""
    near = [n for n in range(fact.count - 2, fact.count + 3) if n > 1 and n != fact.count]
    return replace(fact, count=rng.choice(near))


def mirrored(fact: Fact, rng: random.Random) -> Fact:
    """The opposite side."""
    return replace(fact, side=OPPOSITE[fact.side])


def wrong_colour(fact: Fact, rng: random.Random) -> Fact:
    """Another colour, and none that a person could take for the right one."""
    near = {"red": {"orange", "pink", "brown"}, "pink": {"red", "purple"}, "yellow": {"orange"}, "blue": {"purple"}}
    taken = {fact.colour} | near.get(fact.colour, set())
    return replace(fact, colour=rng.choice([c for c in ("red", "yellow", "green", "blue", "pink") if c not in taken]))


def in_later_form(fact: Fact, rng: random.Random) -> Fact | None:
    """The same fact in one of the later forms; None where there are none for it."""
    later = next((forms for old, forms in _LATER.items() if fact.form in old), ())
    return replace(fact, form=rng.choice(later)) if later else None


def object_facts(record: Record, rng: random.Random) -> list[Fact]:
    """Sentences about two things of a detection record."""
    here = names_of(record)
    absent = tuple(record.text[a:b] for a, b in record.negatives if class_noun(record.text[a:b]).plural)
    if len(here) < 2 or not absent:
        return []
    one, two = rng.sample(here, 2)
    return [Fact(rng.choice(OBJECTS), one, two, names=absent)]


def count_facts(record: Record, rng: random.Random) -> list[Fact]:
    """Sentences about the number of things of a name, where it is two to nine and all have boxes."""
    if not record.exhaustive:
        return []
    counts = {r.phrases[0]: len(r.boxes) for r in record.regions if not any(b.crowd for b in r.boxes)}
    several = [name for name in names_of(record) if 2 <= counts.get(name, 0) <= 9]
    return [Fact(rng.choice(COUNTS), name, count=counts[name]) for name in several]


def place_facts(record: Record, rng: random.Random) -> list[Fact]:
    """Sentences about where the only thing of a name is, where that is clear: its centre is in an outer third."""
    places = {}
    for region in record.regions:
        if len(region.boxes) == 1 and not region.boxes[0].crowd and region.phrases[0] in names_of(record):
            x1, y1, x2, y2 = region.boxes[0].xyxy
            places[region.phrases[0]] = ((x1 + x2) / 2 / record.width, (y1 + y2) / 2 / record.height)
    facts = []
    for name, (x, y) in places.items():
        if not 1 / 3 < x < 2 / 3:
            facts.append(Fact(rng.choice(SIDES), name, side="left" if x < 0.5 else "right"))
        if not 1 / 3 < y < 2 / 3:
            facts.append(Fact(rng.choice(ENDS), name, side="top" if y < 0.5 else "bottom"))
    lefts, rights = ([n for n, (x, _) in places.items() if lo <= x < hi] for lo, hi in ((0, 1 / 3), (2 / 3, 1)))
    if lefts and rights:
        pair = [(lefts[0], rights[0], "left"), (rights[0], lefts[0], "right")]
        one, two, side = rng.choice(pair)
        facts.append(Fact(rng.choice(TWO_SIDES), one, two, side=side))
    return facts


def names_of(record: Record) -> list[str]:
    """Names with boxes that have a plural of their own ("skis" and "broccoli" read badly in forms)."""
    return [r.phrases[0] for r in record.regions if r.boxes and class_noun(r.phrases[0]).plural]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
