"""What a text says of each thing that it names: kind, number, colours, clothes, owner, place and what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmdet import synonyms
from llmdet.phrases import Parsed, Phrase
from llmdet.positions import Place, places_of
from llmdet.synonyms import COLOURS

Worn = Mapping[str, frozenset[str]]

_WORN = frozenset("in wearing with dressed wears wear having has holding carrying".split())
_POSSESSIVE = frozenset("his her their its".split())
_OTHERS = frozenset("another other others second third".split())
# Around a phrase these words tell nothing.
_DULL = frozenset(
    "the are was were been being and with for from his her their its this that while who which there she they one some "
    "wearing dressed looking standing sitting".split()
)
_DEFINITE = frozenset("the this that these those".split())
_PICTURES = frozenset("image picture photo photograph scene view".split())
# Two words that are not what the second alone is.
_COMPOUNDS = frozenset(
    "hot dog|teddy bear|stuffed bear|toy car|toy truck|stop sign|traffic light|street light|parking meter|fire hydrant|"
    "computer mouse|french fry|ice cream|rocking horse|hot plate|cutting board|christmas tree|bow tie|wine glass|"
    "baseball bat|hair dryer|hair drier|cell phone|sea lion|stuffed animal|toy dog|tennis racket|baseball glove|"
    "sports ball".split("|")
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A phrase and what is known of its thing."""

    phrase: Phrase
    name: str  # lemma of the head; two words where the head alone is something else ("hot dog")
    person: bool
    gender: str  # "m", "f" or ""
    age: str  # "child", "adult" or ""
    several: bool
    number: int | None  # how many are meant; None where that is not said
    colours: frozenset[str]
    words: frozenset[str]  # adjectives and nouns before the head, without colours
    other: bool  # "another man", "the other dog"
    leads: bool  # the first thing of its text
    worn: Worn  # what it has on or with it, and the colours of that
    owner: Mention | None  # who has it
    doing: frozenset[str]  # stems of the words around it
    places: frozenset[Place]
    denied: bool = False  # "no dogs", "without a hat", or the picture itself


@dataclass(frozen=True, slots=True)
class Chain:
    """Phrases of one text that certainly mean the same: "a man ... the man"."""

    mention: Mention  # the first, with what the others add
    phrases: tuple[Phrase, ...]


def mentions_of(parsed: Parsed) -> list[Mention]:
    """One mention per phrase, in their order."""
    plain = [_mention(phrase) for phrase in parsed.phrases]
    owners = _owners(parsed, plain)
    worn: dict[int, dict[str, frozenset[str]]] = {}
    for thing, owner in owners.items():
        worn.setdefault(owner, {})[plain[thing].name] = plain[thing].colours
    lead = next((place for place, mention in enumerate(plain) if not _denied(parsed, mention.phrase)), None)
    return [
        replace(
            mention,
            leads=place == lead,
            worn=worn.get(place, {}),
            owner=plain[owners[place]] if place in owners else None,
            doing=_doing(parsed, mention.phrase),
            places=places_of(parsed, place),
            denied=_denied(parsed, mention.phrase),
        )
        for place, mention in enumerate(plain)
    ]


def chains_of(mentions: Sequence[Mention]) -> list[Chain]:
    """Mentions, each with those later ones that certainly mean the same.

    Later ones start with "the" or the like and add no word to tell them apart, and there is nothing else of that name.
    Pronouns are never taken for anybody.
    """
    chains: list[Chain] = []
    for mention in mentions:
        named = [place for place, chain in enumerate(chains) if chain.mention.name == mention.name]
        if len(named) == 1 and _again(chains[named[0]].mention, mention):
            before = chains[named[0]]
            chains[named[0]] = Chain(_joined(before.mention, mention), (*before.phrases, mention.phrase))
        else:
            chains.append(Chain(mention, (mention.phrase,)))
    return chains


def _again(first: Mention, later: Mention) -> bool:
    if later.phrase.determiner not in _DEFINITE or later.other or first.several != later.several:
        return False
    if first.number and later.number and first.number != later.number:
        return False
    return later.words <= first.words and later.colours <= first.colours and later.places <= first.places


def _joined(first: Mention, later: Mention) -> Mention:
    return replace(first, worn={**later.worn, **first.worn}, owner=first.owner or later.owner)


def _denied(parsed: Parsed, phrase: Phrase) -> bool:
    before = parsed.tokens[phrase.tokens[0] - 1].text.lower() if phrase.tokens[0] else ""
    if phrase.determiner == "no" or before in ("no", "without"):
        return True
    return phrase.lemma in _PICTURES and phrase.determiner in ("the", "this") and not phrase.modifiers


def _mention(phrase: Phrase) -> Mention:
    before = frozenset(phrase.modifiers)
    name = phrase.lemma
    if phrase.modifiers and f"{phrase.modifiers[-1]} {name}" in _COMPOUNDS:
        name = f"{phrase.modifiers[-1]} {name}"
    person = synonyms.is_person(name)
    several = phrase.plural or (person and synonyms.is_group(name))
    number = (2 if name == "couple" else phrase.count if phrase.plural else None) if several else 1
    return Mention(
        phrase,
        name,
        person,
        synonyms.gender(name, before) if person else "",
        synonyms.age(name, before) if person else "",
        several,
        number,
        frozenset([COLOURS[word] for word in before if word in COLOURS]),
        frozenset([word for word in before if word not in COLOURS and word.isalnum() and word != "and"]),
        not _OTHERS.isdisjoint(phrase.words[:2]),
        False,
        {},
        None,
        frozenset(),
        frozenset(),
    )


def _owners(parsed: Parsed, plain: list[Mention]) -> dict[int, int]:
    """Index of a thing -> index of the person who wears, holds or has it, where the sentence says so."""
    owners: dict[int, int] = {}
    person: int | None = None  # the last one of the sentence
    for place, mention in enumerate(plain):
        gap = _gap(parsed, place)
        if "." in gap:
            person = None
        if mention.person:
            person = place
            continue
        near = 0 < len(gap) <= 3 and gap[-1] in _WORN
        if near and plain[place - 1].person:
            owners[place] = place - 1
        elif place - 1 in owners and (near or gap in (["and"], [","], [",", "and"])):
            owners[place] = owners[place - 1]
        elif person is not None and (
            mention.phrase.determiner in _POSSESSIVE or (gap and gap[-1] in ("wearing", "wears") and "and" not in gap)
        ):
            owners[place] = person
    return owners


def _gap(parsed: Parsed, place: int) -> list[str]:
    """The words between a phrase and the one before."""
    start = parsed.phrases[place - 1].tokens[1] if place else 0
    return [token.text.lower() for token in parsed.tokens[start : parsed.phrases[place].tokens[0]]]


def _doing(parsed: Parsed, phrase: Phrase) -> frozenset[str]:
    first, stop = phrase.tokens
    around = (*parsed.tokens[max(0, first - 4) : first], *parsed.tokens[stop : stop + 7])
    words = [token.text.lower() for token in around]
    return frozenset([_stem(word) for word in words if len(word) > 2 and word.isalpha() and word not in _DULL])


def _stem(word: str) -> str:
    """`plays` and `playing` as one; not for showing."""
    for end in ("ing", "es", "ed", "s"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            word = word[: -len(end)]
            break
    return word[:-1] if len(word) > 3 and (word[-1] == "e" or word[-1] == word[-2]) else word
