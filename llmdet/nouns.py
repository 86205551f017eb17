"""Names of things in English: articles, plurals and how a second mention reads.

Class names ("wine glass", "skis") get articles and plurals of our own; free phrases ("Two girls", "a blue umbrella")
keep their words. Everything is cached by name: a data set has few names and many boxes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

COLOURS = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_IRREGULAR = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "mouse": "mice", "goose": "geese",
    "foot": "feet", "tooth": "teeth", "ox": "oxen", "knife": "knives", "wife": "wives", "life": "lives",
    "leaf": "leaves", "loaf": "loaves", "shelf": "shelves", "wolf": "wolves", "calf": "calves", "half": "halves",
    "scarf": "scarves", "thief": "thieves", "elf": "elves", "potato": "potatoes", "tomato": "tomatoes",
    "mango": "mangoes", "buffalo": "buffaloes", "mosquito": "mosquitoes", "cactus": "cacti", "quiz": "quizzes",
}  # fmt: skip
_REGULAR = frozenset("human german roman shaman ottoman caiman talisman norman mongoose".split())
_INVARIANT = frozenset(
    "sheep fish deer moose bison aircraft spacecraft hovercraft watercraft salmon trout shrimp squid swine series "
    "species".split()
)
_PAIRS = frozenset(
    "skis scissors jeans trousers pants shorts glasses eyeglasses sunglasses binoculars tweezers pliers tongs goggles "
    "leggings tights headphones earphones pajamas pyjamas shears chopsticks".split()
)
_MASS = frozenset(
    "broccoli bread rice luggage furniture equipment jewelry cutlery silverware asparagus lettuce cheese butter bacon "
    "chocolate spaghetti toast popcorn celery garlic".split()
)
_S_SINGULAR = re.compile(r"(ss|us|is|as|[aeiou]x)$|^(lens|mars|christmas|texas|iris|gallows|mews)$")
_LINKING = re.compile(r" (?:of|in|on|at|with|for|from|to|by|under|over|behind|near|next|wearing|holding) ")
_YOU_SOUND = re.compile(r"(?:uni(?!n|m)|us[eu]|uten|uk|ur[aio]n|ub|eu|ewe|one\b|once|ou[ij])")
_SILENT_H = re.compile(r"(?:hour|honest|heir|honou?r)")
_DETERMINERS = frozenset(
    "a an the some several many few both all another other each every this that these those his her its their my our "
    "your one two three four five six seven eight nine ten eleven twelve".split()
)
_PRONOUNS = frozenset("he she it they him them we us i you himself herself itself themselves who which".split())
_GROUPS = frozenset("group pair couple row bunch set pile stack crowd team herd flock line".split())
_PLURAL_WORDS = frozenset([*_IRREGULAR.values(), *_INVARIANT, "police", "cattle"])


@dataclass(frozen=True, slots=True)
class Noun:
    """How one name reads in a sentence."""

    first: str  # "a dog", "two girls", "the grass"
    again: str  # "the dog", "the two girls"
    bare: str  # "dog"; empty where the words must stay as they came
    plural: str  # "dogs"; empty where a count would not fit
    one_of: str  # one box of several: "a dog", "one of the two girls"
    coloured: bool  # the name states a colour itself


def count_word(count: int) -> str:
    """`three` for 3; digits above twelve."""
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


@functools.lru_cache(maxsize=65536)
def article(words: str) -> str:
    """`a` or `an`, by the sound that the words start with."""
    start = words.split(" ", 1)[0]
    if start.isupper() and len(start) > 1:  # spelled out: an SUV, a TV
        return "an" if start[0] in "AEFHILMNORSX" else "a"
    low = start.lower()
    if low.startswith(("8", "11-", "18", "x-")) or low in ("11", "x"):
        return "an"
    if low[:1] in "aeiou":
        return "a" if _YOU_SOUND.match(low) or re.match(r"u([-.]|$)", low) else "an"
    return "an" if _SILENT_H.match(low) else "a"


@functools.lru_cache(maxsize=65536)
def plural(name: str) -> str:
    """More than one of a class name; only the head noun changes ("glasses of wine")."""
    linking = _LINKING.search(name)
    head, tail = (name[: linking.start()], name[linking.start() :]) if linking else (name, "")
    before, space, word = head.rpartition(" ")
    return f"{before}{space}{_plural_word(word)}{tail}"


def _plural_word(word: str) -> str:
    low = word.lower()
    for end, many in _IRREGULAR.items():
        if low == end or (len(end) > 2 and low.endswith(end) and low not in _REGULAR):  # "snowman", "bookshelf"
            return word[: len(word) - len(end)] + many
    if low in _INVARIANT or any(low.endswith(i) and len(i) > 3 for i in _INVARIANT):
        return word
    if re.search(r"(s|x|z|ch|sh)$", low):
        return word + "es"
    if re.search(r"[^aeiou]y$", low):
        return word[:-1] + "ies"
    return word + "s"


def phrase_of(phrase: str) -> str:
    """The words of a phrase that a sentence can hold: white space single, brackets and end marks away."""
    words = " ".join(phrase.replace("_", " ").split()).strip(" .,;:!?")
    if "(" in words:
        words = " ".join(re.sub(r"\([^()]*\)", " ", words).split())
    return words or "object"


@functools.lru_cache(maxsize=65536)
def class_noun(name: str) -> Noun:
    """A class name, or a phrase in its place that brings its own determiner."""
    words = phrase_of(name)
    start, _, rest = words.partition(" ")
    if rest and start.lower() in _DETERMINERS:
        return free_noun(words)
    last = _LINKING.split(words)[0].rpartition(" ")[2].lower()
    if last in _PAIRS:
        words = f"pair of {words}"
    elif last in _MASS:
        words = f"piece of {words}"
    elif is_plural(words):
        return Noun(words, f"the {words}", "", "", words, states_colour(words))
    first = f"{article(words)} {words}"
    return Noun(first, f"the {words}", words, plural(words), first, states_colour(words))


@functools.lru_cache(maxsize=65536)
def free_noun(phrase: str) -> Noun:
    """A phrase of a sentence, its words kept; only a leading capital, article or number is fitted."""
    words = phrase_of(phrase)
    start, _, rest = words.partition(" ")
    low = start.lower()
    if low not in _DETERMINERS or not rest:
        bare_proper = start[:1].isupper() or low in _PRONOUNS or low in _DETERMINERS
        first = words if bare_proper else f"the {words}"
        return Noun(first, first, "", "", f"one of {first}" if is_plural(words) else first, states_colour(words))
    first = f"{low} {rest}"
    again = f"the {rest}" if low in ("a", "an") else f"the {first}" if low in _NUMBERS[2:] else first
    many = low in _NUMBERS[2:] or is_plural(rest) or (rest.split()[0].lower() in _GROUPS and " of " in rest)
    return Noun(first, again, "", "", f"one of {again}" if many else first, states_colour(words))


def is_plural(words: str) -> bool:
    """Whether the head noun names several things, as far as its form tells."""
    head = _LINKING.split(words)[0].rpartition(" ")[2].lower()
    if head in _PLURAL_WORDS:
        return head not in _INVARIANT
    return len(head) > 3 and head.endswith("s") and _S_SINGULAR.search(head) is None


def is_invariant(word: str) -> bool:
    """Whether a noun has the same form for one and for many: `sheep`."""
    return word in _INVARIANT


def states_colour(words: str) -> bool:
    """Whether a colour is part of the name, so that a measured one would repeat or contradict it."""
    return any(word in COLOURS or word == "grey" for word in words.lower().split())
