"""Which noun a verb speaks of: in "a dog with a collar around its neck lies on the left" it is the dog that lies."""

from __future__ import annotations

import bisect

from llmdet.checks.reading import Noun, Reading
from llmdet.checks.things import things_of

_FINITE = frozenset(["VBZ", "VBP", "VBD", "MD"])
_VERBS = frozenset(
    "is are was were can could sits sit lies lie stands stand rests rest waits wait hangs hang appears appear looks "
    "look seems seem".split()
)
PREPOSITIONS = frozenset(
    "with without of in on at by near to from around beside behind under over against above below beneath between "
    "among along across inside outside for through past amid alongside".split()
)
_RELATIVE = frozenset("that which who".split())
_CLAUSES = frozenset("and or but as while that which who whose where when because if".split())
_LONGEST = 50  # words or nouns that are looked back over: keeps endless sentences linear
_GROUPS = frozenset(
    "group pair couple row herd bunch number lot line flock trio set stack pile crowd team pack series cluster "
    "collection variety total part most all some one each both position location placement spot whereabouts center "
    "centre bulk body outline shape figure".split()
)


def is_verb(reading: Reading, at: int) -> bool:
    """Whether a token is a verb that has a subject of its own."""
    token = reading.tokens[at]
    return token.tag in _FINITE or token.text.lower() in _VERBS


def subject(reading: Reading, verb: int) -> Noun | None:
    """The noun that the verb at a token speaks of; None where that is not certain."""
    words = reading.words
    if verb == 0 or words[verb - 1] in ("and", "or", "but"):
        return None  # "sees a cat and sits"
    stop = verb
    if words[verb - 1] == ",":  # "a dog, its fur wet, lies"
        stop = next((at for at in range(verb - 2, max(0, verb - _LONGEST), -1) if words[at] == ","), 0)
    last = _ending_by(reading, stop) - 1
    if last < 0:
        return None
    end = reading.nouns[last].tokens[1]
    if words[verb - 1] in _RELATIVE:
        return reading.nouns[last] if verb - 1 - end <= (words[end] == ",") else None
    if stop - end > _LONGEST or any(_parts(reading, at) for at in range(end, stop)):
        return None
    return _first(reading, last, reading.sentences[verb])


def _parts(reading: Reading, at: int) -> bool:
    """Whether another clause begins at a token: "a hill that you see is"."""
    if reading.tokens[at].tag == "PRP":
        return reading.words[at - 1] not in PREPOSITIONS  # not "in front of it"
    return is_verb(reading, at) or reading.words[at] in _CLAUSES


def _first(reading: Reading, last: int, sentence: int) -> Noun | None:
    """The noun at a place, or the one that it only belongs to through prepositions and participles."""
    words, before = reading.words, reading.nouns
    for place in range(last, max(-1, last - _LONGEST), -1):
        noun = before[place]
        if noun.sentence != sentence:
            return None
        lead = noun.tokens[0] - 1
        if place and lead > 0 and words[lead] == "of" and not _GROUPS.isdisjoint(before[place - 1].words[-1:]):
            return noun
        if lead >= 0 and words[lead] in ("but", "except"):
            return None  # "everything but the bus"
        if lead < 0 or not (words[lead] in PREPOSITIONS or reading.tokens[lead].tag == "VBG"):
            return noun
    return None


def _ending_by(reading: Reading, token: int) -> int:
    """How many nouns end at a token or before it."""
    return bisect.bisect_right(reading.nouns, token, key=lambda noun: noun.tokens[1])


def antecedent(reading: Reading, at: int) -> Noun | None:
    """The thing that a pronoun at a token stands for: the main one before it in its sentence, or in the one before."""
    sentence = reading.sentences[at]
    for number in (sentence, sentence - 1):
        named = [noun for noun in things_of(reading, number) if noun.tokens[1] <= at]
        if named:
            return _main(reading, named)
    return None


def _main(reading: Reading, named: list[Noun]) -> Noun | None:
    """The first of some nouns, where the others only say where it is or what is with it."""
    for noun in named[1:]:
        lead = reading.words[noun.tokens[0] - 1]
        if lead not in PREPOSITIONS and lead != "of":
            return None
    return named[0]
