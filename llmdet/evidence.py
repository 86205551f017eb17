"""What speaks for and against two mentions naming one thing, weighed.

A score is a sum of weights and works as a logarithm of odds: 0 is even, 2 about 7 to 1. The weights were fitted by
logistic regression to half of Flickr30k Entities (see benchmarks/link_phrases.py) and rounded; colours of clothes count
for more than there, and the first place in a text for less, since captions of models are more exact and longer.
"""

from __future__ import annotations

from llmdet import synonyms
from llmdet.mentions import Mention
from llmdet.synonyms import OPPOSITES
from llmdet.tagging import ParserName

WEIGHTS = {
    "bias": -0.2,
    # what the names say
    "thing same": 1.1, "thing synonym": 0.5, "thing kind": -0.1, "thing wordnet": -0.4,
    "person same": 0.9, "person of same gender": 0.5, "person of same age": 0.5, "person anybody": -0.7,
    "person other word": -0.7, "person of other age": -1.9,
    "clothing": 0.2, "body": -0.1, "surroundings": -0.1,
    # how many
    "number one": 1.1, "number same": 1.7, "number several": 0.3, "number half said": -0.2, "number mixed": -1.4,
    "number conflict": -1.7, "boxes as many": 0.6, "boxes other number": -0.8,
    # how it looks
    "colour same": 0.4, "colour one": -0.3, "colour conflict": -2.1,
    "words shared": 0.5, "words different": 0.0, "opposite": -2.5, "same text": 0.2,
    # what it has on, who has it
    "worn same colour": 1.8, "worn same": 0.9, "worn different": 0.4, "worn other colour": -1.5,
    "owner fits": 0.5, "owner one": 0.0, "owner conflict": -0.7,
    # where it stands in its text, what is said around it
    "other both": -0.4, "other one": -1.5, "lead both": 1.1, "lead one": -0.6, "doing one": 0.2, "doing more": 0.4,
}  # fmt: skip


def score(a: Mention, b: Mention, boxes: int, parser: ParserName) -> float | None:
    """How likely two mentions are of one thing; None where they cannot be. `b` is a region with so many boxes."""
    found = evidence(a, b, boxes, parser)
    return None if found is None else WEIGHTS["bias"] + sum([WEIGHTS[name] for name in found])


def evidence(a: Mention, b: Mention, boxes: int, parser: ParserName) -> list[str] | None:
    """The names of what speaks for or against; None where the two cannot be one thing."""
    if a.person != b.person:
        return None
    kind = _people(a, b) if a.person else _things(a, b, parser)
    if not kind:
        return None
    found = [*kind, _number(a, b), *_looks(a, b), *_belongings(a, b, parser)]
    if a.phrase.words == b.phrase.words:
        found.append("same text")
    if a.other or b.other:
        found.append("other both" if a.other and b.other else "other one")
    if a.leads or b.leads:
        found.append("lead both" if a.leads and b.leads else "lead one")
    if boxes and (a.number or 0) > 1:
        found.append("boxes as many" if a.number == boxes else "boxes other number")
    shared = len(a.doing & b.doing)
    if shared:
        found.append("doing one" if shared == 1 else "doing more")
    return found


def _people(a: Mention, b: Mention) -> list[str]:
    if a.several != b.several or (a.gender and b.gender and a.gender != b.gender):
        return []
    if a.name == b.name:
        return ["person same"]
    if a.age and b.age and a.age != b.age:
        return ["person of other age"]
    if synonyms.is_anybody(a.name) or synonyms.is_anybody(b.name):
        return ["person anybody"]
    if a.gender and b.gender:
        return ["person of same gender"]
    return ["person of same age"] if a.age and b.age else ["person other word"]


def _things(a: Mention, b: Mention, parser: ParserName) -> list[str]:
    relation = synonyms.relation(a.name, b.name, parser)
    if relation == "none":
        return []
    if a.name in synonyms.CLOTHING:
        return [f"thing {relation}", "clothing"]
    if a.name in synonyms.BODY:
        return [f"thing {relation}", "body"]
    return [f"thing {relation}", "surroundings"] if a.name in synonyms.SURROUNDINGS else [f"thing {relation}"]


def _number(a: Mention, b: Mention) -> str:
    if a.several != b.several:
        return "number mixed"
    if not a.several:
        return "number one"
    if a.number and b.number:
        return "number same" if a.number == b.number else "number conflict"
    return "number half said" if a.number or b.number else "number several"


def _looks(a: Mention, b: Mention) -> list[str]:
    found = []
    if a.colours and b.colours:
        found.append("colour same" if a.colours & b.colours else "colour conflict")
    elif a.colours or b.colours:
        found.append("colour one")
    if a.words and b.words:
        found.append("words shared" if a.words & b.words else "words different")
        if any(_opposite(a.words, b.words, sides) for sides in OPPOSITES):
            found.append("opposite")
    return found


def _opposite(a: frozenset[str], b: frozenset[str], sides: dict[str, int]) -> bool:
    of_a, of_b = ({sides[word] for word in words if word in sides} for words in (a, b))
    return bool(of_a and of_b) and of_a.isdisjoint(of_b)


def _belongings(a: Mention, b: Mention, parser: ParserName) -> list[str]:
    found = []
    if a.worn and b.worn:
        found.append(_worn(a, b))
    if a.owner and b.owner:
        fits = a.owner.person and b.owner.person and bool(_people(a.owner, b.owner))
        found.append("owner fits" if fits else "owner conflict")
    elif a.owner or b.owner:
        found.append("owner one")
    return found


def _worn(a: Mention, b: Mention) -> str:
    common = [(a.worn[name], b.worn[name]) for name in a.worn if name in b.worn]
    if not common:
        return "worn different"
    if any(x & y for x, y in common):
        return "worn same colour"
    return "worn other colour" if any(x and y for x, y in common) else "worn same"
