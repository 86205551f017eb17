"""True sentences in the forms of the rounds `unseen_forms_1`, `_2`, ..., and the same sentences with a fault.

Each round was written before it was first measured, and its first figures are in the README. Slots beside those of
`caption_forms`:

    {a2} {b2}        bare names after an adjective ("a blurry {b2}")
    {group}          "a pair of dogs", "a trio of dogs", "a group of five dogs"
    {both}           "both dogs", "all three dogs"
    {digits}         the number in digits
    {above}          above or below; {otherend} {otherlevel} the opposite of {end} {level}
    {Plural} {Count} {Group} {Both} {Above} {Colour}   the same with a capital
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from caption_forms import OPPOSITE, names_of

from llmdet.nouns import article, class_noun, count_word
from llmdet.record import Record

_LEVEL = {"top": "upper", "bottom": "lower"}
_GROUPS = {2: "a pair of", 3: "a trio of", 4: "a quartet of"}
NEAR = {"red": {"orange", "pink", "brown"}, "pink": {"red", "purple"}, "yellow": {"orange"}, "blue": {"purple"}}


@dataclass(frozen=True)
class Pair:
    """A true sentence and the same one with a fault; `names` are those that it speaks of."""

    form: str
    true: str
    planted: str
    names: frozenset[str]


def forms_of(number: int) -> ModuleType:
    """The forms of a round."""
    return importlib.import_module(f"unseen_forms_{number}")


def fill(form: str, **slots: str) -> str:
    """The form with its slots filled, each also with a capital, and "an" where it belongs."""
    both = slots | {name[:1].upper() + name[1:]: words[:1].upper() + words[1:] for name, words in slots.items()}
    text = form.format(**both)
    colour = slots.get("colour", "")
    return text.replace(f" a {colour}", f" {article(colour)} {colour}") if colour else text


def _names(name: str, other: str) -> dict[str, str]:
    one, two = class_noun(name), class_noun(other)
    return {"a": one.first, "b": two.first, "a2": one.bare, "b2": two.bare, "noun": one.bare}


def objects(forms: ModuleType, record: Record, rng: random.Random) -> Pair | None:
    """Two things that are there; one of the two is replaced by one that is not."""
    here = names_of(record)
    absent = [record.text[a:b] for a, b in record.negatives if class_noun(record.text[a:b]).plural]
    if len(here) < 2 or not absent:
        return None
    one, two = rng.sample(here, 2)
    wrong = rng.choice(absent)
    form = rng.choice(forms.OBJECTS)
    false = (wrong, two) if rng.random() < 0.5 else (one, wrong)
    names = frozenset({one, two, wrong})
    return Pair(form, fill(form, **_names(one, two)), fill(form, **_names(*false)), names)


def _number(name: str, count: int) -> dict[str, str]:
    plural, word = class_noun(name).plural, count_word(count)
    assert plural is not None
    slots = {"plural": plural, "count": word, "n": f"{word} {plural}", "digits": str(count)}
    slots["group"] = f"{_GROUPS.get(count, f'a group of {word}')} {plural}"
    slots["both"] = f"both {plural}" if count == 2 else f"all {word} {plural}"
    return slots


def counts(forms: ModuleType, record: Record, rng: random.Random) -> Pair | None:
    """Two to nine things of a name; the fault is another number from two up, at most two away."""
    boxes = {r.phrases[0]: len(r.boxes) for r in record.regions if not any(b.crowd for b in r.boxes)}
    several = [name for name in names_of(record) if 2 <= boxes.get(name, 0) <= 9]
    if not several or not record.exhaustive:
        return None
    name = rng.choice(several)
    true = boxes[name]
    false = rng.choice([n for n in range(true - 2, true + 3) if n > 1 and n != true])
    form = rng.choice(forms.COUNTS)
    return Pair(form, fill(form, **_number(name, true)), fill(form, **_number(name, false)), frozenset({name}))


def _place(name: str, other: str, side: str, end: str) -> dict[str, str]:
    slots = _names(name, other) | {"side": side, "other": OPPOSITE.get(side, "")}
    slots |= {"end": end, "otherend": OPPOSITE.get(end, ""), "above": {"top": "above", "bottom": "below"}.get(end, "")}
    return slots | {"level": _LEVEL.get(end, ""), "otherlevel": _LEVEL.get(OPPOSITE.get(end, ""), "")}


def places(forms: ModuleType, record: Record, rng: random.Random) -> Pair | None:
    """Where the only thing of a name is, with its centre in an outer third; the fault is the opposite of one word."""
    where: dict[str, tuple[str, str]] = {}
    for region in record.regions:
        if len(region.boxes) == 1 and not region.boxes[0].crowd and region.phrases[0] in names_of(record):
            x1, y1, x2, y2 = region.boxes[0].xyxy
            x, y = (x1 + x2) / 2 / record.width, (y1 + y2) / 2 / record.height
            where[region.phrases[0]] = (_third(x, "left", "right"), _third(y, "top", "bottom"))
    made = []
    for name, (side, end) in where.items():
        made += [(forms.SIDES, name, name, side, "")] * 4 if side else []
        made += [(forms.ENDS, name, name, "", end)] * 2 if end else []
        made += [(forms.CORNERS, name, name, side, end)] if side and end else []
        for other, (beside, beyond) in where.items():
            made += [(forms.PAIR_SIDES, name, other, side, "")] * 2 if side and beside == OPPOSITE[side] else []
            made += [(forms.PAIR_ENDS, name, other, "", end)] if end and beyond == OPPOSITE[end] else []
    if not made:
        return None
    group, name, other, side, end = rng.choice(made)
    flipped = (OPPOSITE[side], end) if side else (side, OPPOSITE[end])
    form = rng.choice(group)
    true, false = (fill(form, **_place(name, other, *at)) for at in ((side, end), flipped))
    return Pair(form, true, false, frozenset({name, other}))


def _third(share: float, low: str, high: str) -> str:
    return low if share < 1 / 3 else high if share > 2 / 3 else ""


def colours(forms: ModuleType, name: str, colour: str, rng: random.Random) -> Pair:
    """The colour of the only thing of a name; the fault is one that nobody could take for it."""
    taken = {colour} | NEAR.get(colour, set()) | {c for c, near in NEAR.items() if colour in near}
    false = rng.choice([c for c in ("red", "yellow", "green", "blue", "pink") if c not in taken])
    form = rng.choice(forms.COLOURS)
    true, planted = (fill(form, noun=class_noun(name).bare, colour=c) for c in (colour, false))
    return Pair(form, true, planted, frozenset({name}))


MAKERS = {"wrong object": objects, "wrong count": counts, "mirrored position": places}


def captions(
    forms: ModuleType, record: Record, kind: str, rng: random.Random, fillers: tuple[str, ...]
) -> Iterator[tuple[str, str, Pair]]:
    """The true and the planted caption of one fact of a kind, with up to four other true sentences of the round."""
    pair = MAKERS[kind](forms, record, rng)
    if pair is None:
        return
    beside = [make(forms, record, rng) for make in MAKERS.values()]
    others = [one.true for one in beside if one and not one.names & pair.names]
    others = rng.sample(others, rng.randrange(len(others) + 1)) + rng.sample(fillers, rng.randrange(3))
    place = rng.randrange(len(others) + 1)
    for name, text in (("", pair.true), (kind, pair.planted)):
        yield name, " ".join([*others[:place], text, *others[place:]]), pair
