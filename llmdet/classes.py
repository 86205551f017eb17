"""Phrases of a caption linked to regions that are named by classes ("dining table", "person")."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from llmdet import synonyms
from llmdet.lemmas import singular
from llmdet.mentions import Chain, Mention
from llmdet.nouns import phrase_of
from llmdet.phrases import Parser
from llmdet.record import Region
from llmdet.tagging import ParserName

# Classes of two words whose last word alone means them in a caption.
_LAST_WORD = frozenset(
    "dining table|cell phone|tennis racket|baseball bat|baseball glove|sports ball|potted plant|wine glass|hair drier|"
    "trash can|computer monitor|picture frame".split("|")
)
_SAME, _LIKE, _WORDNET = 3, 2, 1


@dataclass(frozen=True, slots=True)
class _Class:
    """A class name as captions would say it."""

    name: str
    words: tuple[str, ...]  # lemmas
    head: str
    person: bool


@functools.lru_cache(maxsize=65536)
def _class(name: str) -> _Class:
    words = tuple(singular(word) for word in phrase_of(name).lower().split())
    whole = " ".join(words)
    return _Class(whole, words, words[-1], synonyms.is_person(whole))


def link_classes(chains: Sequence[Chain], regions: Sequence[Region], parser: Parser) -> list[tuple[Chain, int]]:
    """Pairs of a chain and the one region whose class fits it best; a chain that two fit equally well gets none."""
    found = []
    for chain in chains:
        ranks = [_rank(chain.mention, _class(region.phrases[0]), parser.name) for region in regions]
        best = max(ranks)
        if best and ranks.count(best) == 1:
            found.append((chain, ranks.index(best)))
    return found


def _rank(mention: Mention, of: _Class, parser: ParserName) -> int:
    """How well a class fits: 0 for not at all. A class may say less than the phrase, never more."""
    if mention.person:
        return _person_rank(mention, of)
    if of.person:
        return 0
    if len(of.words) > 1:
        said = {singular(word) for word in mention.phrase.words}
        if said.issuperset(of.words) and (mention.name in (of.head, of.name)):
            return _SAME
        plain = mention.name == of.head or mention.name == of.name
        return _LIKE if of.name in _LAST_WORD and (plain or _below(mention.name, of.head, parser) == _LIKE) else 0
    return _SAME if mention.name == of.name else _below(mention.name, of.name, parser)


def _below(name: str, kind: str, parser: ParserName) -> int:
    """Whether a name is another word for a class, or a kind of it."""
    relation = synonyms.relation(name, kind, parser)
    if relation == "synonym" or (relation == "kind" and synonyms.is_kind(name, kind)):
        return _LIKE
    return _WORDNET if relation == "wordnet" and synonyms.is_below(name, kind) else 0


def _person_rank(mention: Mention, of: _Class) -> int:
    if mention.name == of.name:
        return _SAME
    if not of.person:
        return 0
    if of.name in ("person", "human", "people"):
        return _LIKE
    same = synonyms.gender(of.name) == mention.gender and synonyms.age(of.name) == mention.age
    return _LIKE if same and mention.gender and mention.age else 0
