"""Which boxes a noun of a caption means."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from llmdet.checks.reading import Known, Noun, Reading
from llmdet.lemmas import singular
from llmdet.record import Box, Link, Region
from llmdet.synonyms import is_person as is_person_word


@dataclass(frozen=True, slots=True)
class Ground:
    """A noun and the boxes of everything that it can mean."""

    noun: Noun
    boxes: tuple[Box, ...]


def grounds(reading: Reading, known: Known, regions: Sequence[Region], links: Sequence[Link] = ()) -> list[Ground]:
    """One Ground for each noun of a reading; without boxes where there are none, or where one stands for a crowd.

    A link of the caption says it best; else the name does. Linked words are a noun, whatever the tagger took them for.
    """
    nouns = [*reading.nouns, *_only_linked(reading, links)] if links else reading.nouns
    found = [Ground(noun, _boxes(noun, known, regions, links)) for noun in nouns]
    return sorted(found, key=lambda ground: ground.noun.span) if len(nouns) > len(reading.nouns) else found


def _only_linked(reading: Reading, links: Sequence[Link]) -> list[Noun]:
    """Linked words in which the parser found no noun: "an evergreen"."""
    taken = {at for noun in reading.nouns for at in range(*noun.tokens)}
    found = []
    for link in links:
        begin = bisect.bisect_left(reading.tokens, link.span[0], key=lambda token: token.span[0])
        end = bisect.bisect_left(reading.tokens, link.span[1], key=lambda token: token.span[0])
        if begin < end and taken.isdisjoint(range(begin, end)):
            words, sentence = reading.words[begin:end], reading.sentences[begin]
            found.append(Noun(link.span, link.span, {}, False, None, False, words, (), "", (begin, end), sentence))
            taken.update(range(begin, end))
    return found


def ground_of_box(reading: Reading, box: Box) -> list[Ground]:
    """The first noun of a box's own caption, which speaks of the box."""
    return [Ground(noun, (box,)) for noun in reading.nouns[:1]]


def is_person(ground: Ground) -> bool:
    """Whether the noun is a word for people, whose colours are those of many things."""
    return "person" in ground.noun.meant or any(is_person_word(singular(word)) for word in ground.noun.words[-2:])


def _boxes(noun: Noun, known: Known, regions: Sequence[Region], links: Sequence[Link]) -> tuple[Box, ...]:
    linked = [link for link in links if link.span[0] < noun.span[1] and noun.span[0] < link.span[1]]
    if linked:
        boxes = [box for link in linked for box in _linked(regions[link.region], link)]
    elif noun.claims:
        boxes = [box for name in noun.meant for region in known.present.get(name, ()) for box in region.boxes]
    else:
        boxes = []
    return () if any(box.crowd for box in boxes) else tuple(boxes)


def _linked(region: Region, link: Link) -> tuple[Box, ...]:
    return region.boxes if link.box is None else (region.boxes[link.box],)
