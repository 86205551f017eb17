"""Singulars of English nouns, by rule: no dictionary is needed."""

from __future__ import annotations

import functools

from llmdet.nouns import plural

_ODD = (
    "person man woman child mouse goose foot tooth ox knife wife life leaf loaf shelf wolf calf half scarf thief elf "
    "potato tomato mango buffalo mosquito cactus"
).split()
_IRREGULAR = {plural(word): word for word in _ODD} | {
    "heroes": "hero",
    "torpedoes": "torpedo",
    "axes": "axe",
    "tvs": "tv",
}
# Named in the plural, or only looking like one.
_SAME = frozenset(
    "skis scissors jeans trousers pants shorts glasses eyeglasses sunglasses binoculars tweezers pliers tongs goggles "
    "leggings tights headphones earphones pajamas pyjamas chopsticks overalls khakis clothes series species gas bus "
    "canvas christmas lens tennis atlas news gallows texas alias bias".split()
)
_KEEPS_E = frozenset("cookie movie tie pie hoodie zombie selfie smoothie brownie genie bootie".split())
_MEN = frozenset("specimen abdomen regimen acumen omen semen yemen women".split())


@functools.lru_cache(maxsize=65536)
def singular(noun: str) -> str:
    """One of what a lower-case noun names: `dogs` and `dog` both give `dog`; pairs such as `jeans` stay."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun in _SAME or len(noun) < 4:
        return noun
    for end in ("women", "men", "people", "children", "mice", "knives", "wives", "shelves", "leaves", "feet", "teeth"):
        if noun.endswith(end) and noun not in _MEN and noun != end:  # salespeople, grandchildren, bookshelves
            return noun[: -len(end)] + _IRREGULAR[end]
    return _regular(noun)


def _regular(noun: str) -> str:
    if not noun.endswith("s") or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies"):
        return noun[:-1] if noun[:-1] in _KEEPS_E else noun[:-3] + "y"
    if noun.endswith(("sses", "shes", "xes", "zzes", "buses", "lenses", "gases")):
        return noun[:-2]
    if noun.endswith("ches"):
        return noun[:-1] if noun in ("aches", "headaches", "caches", "mustaches", "moustaches") else noun[:-2]
    return noun[:-1]
