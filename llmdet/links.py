"""Links between the noun phrases of a caption and the regions of its record: only where they are certain.

A region has its name from a sentence (a grounding text) or from a list of classes. In a sentence the other phrases
count too, since "a man" may be the one that has no box: a phrase is linked where its score (see `evidence`) reaches
`min_score`, and beats that of every other thing of the sentence and of every other phrase of the caption by a margin.
A class is the kind of all its boxes, so that several phrases may be linked to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llmdet.classes import link_classes
from llmdet.evidence import score
from llmdet.mentions import Chain, Mention, chains_of, mentions_of
from llmdet.phrases import Parsed, Parser, Phrase
from llmdet.positions import agrees, only_one
from llmdet.record import Link, Region, Span

MIN_SCORE = 1.0  # precision about 0.93 and recall about 0.69 on Flickr30k Entities
MARGIN = 0.3
MAX_CHARACTERS = 20_000  # longer texts get no links
_MAX_PAIRS = 40_000

Scores = dict[tuple[int, int], float]  # (chain of the caption, column) -> score


def link(
    caption: str,
    regions: Sequence[Region],
    width: int,
    height: int,
    parser: Parser,
    text: str = "",
    min_score: float = MIN_SCORE,
) -> tuple[Link, ...]:
    """Links from spans of a caption to regions, in the order of the spans.

    `text` is what the regions' spans are of, where it is made of sentences; empty where regions are named by classes.
    `width` and `height` are the picture's, in pixels. `Link.box` is set where the phrase means one box and it is
    certain which. Raises MissingError where the parser's data is not there.
    """
    if not regions or min(width, height) < 1 or len(caption) > MAX_CHARACTERS or len(text) > MAX_CHARACTERS:
        return ()
    chains = [chain for chain in chains_of(mentions_of(parser.parse(caption))) if not chain.mention.denied]
    if text:
        chosen = _chosen(chains, _columns(regions, text, parser), (width, height), parser, min_score)
    else:
        chosen = link_classes(chains, regions, parser)
    links = []
    for chain, index in chosen:
        if _misplaced(chain.mention, regions[index], width, height):
            continue
        links += [Link(p.span, index, _box(chain.mention, regions[index], width, height)) for p in chain.phrases]
    return tuple(sorted(links, key=lambda one: one.span))


# --- regions named by a sentence -----------------------------------------------------------------------------------


class _Column:
    """One thing of the text: a region with its mentions, or a phrase without a region."""

    def __init__(self, region: int | None, boxes: int, mentions: list[Mention]) -> None:
        self.region, self.boxes, self.mentions = region, boxes, mentions


def _columns(regions: Sequence[Region], text: str, parser: Parser) -> list[_Column]:
    parsed = parser.parse(text)
    mentions = mentions_of(parsed)
    columns, taken = [], set()
    for index, region in enumerate(regions):
        column = _Column(index, len(region.boxes), [])
        for span, phrase in zip(region.spans, region.phrases, strict=True):
            place = _place_of(parsed, span)
            if place is not None:
                taken.add(place)
            alone = mentions_of(parser.parse(phrase))[:1] if place is None else []
            column.mentions += alone if place is None else [mentions[place]]
        columns.append(column)
    ids = {id(mention.phrase): place for place, mention in enumerate(mentions)}
    for chain in chains_of(mentions):
        if not any(ids[id(phrase)] in taken for phrase in chain.phrases):
            columns.append(_Column(None, 0, [chain.mention]))
    return columns


def _place_of(parsed: Parsed, span: Span) -> int | None:
    """Which phrase of the text a region's span is: of "the man 's coat" the last, of others the first."""
    inside = [
        place
        for place, phrase in enumerate(parsed.phrases)
        if span[0] <= phrase.head_span[0] and phrase.head_span[1] <= span[1]
    ]
    for place, following in pairwise(inside):
        if not _owns(parsed, parsed.phrases[place], parsed.phrases[following]):
            return place
    return inside[-1] if inside else None


def _owns(parsed: Parsed, owner: Phrase, owned: Phrase) -> bool:
    between = parsed.tokens[owner.tokens[1] : owned.tokens[0]]
    return len(between) == 1 and between[0].text in ("'s", "'", "\u2019s", "\u2019")


def _chosen(
    chains: Sequence[Chain], columns: Sequence[_Column], size: tuple[int, int], parser: Parser, min_score: float
) -> list[tuple[Chain, int]]:
    """Pairs of a chain and a region that beat every other pair of either by a margin."""
    if len(chains) * len(columns) > _MAX_PAIRS:
        return []
    scores = _scores(chains, columns, parser)
    rows, across = _best_two(scores, 0), _best_two(scores, 1)
    found = []
    for (row, place), value in scores.items():
        region = columns[place].region
        if region is None or value < min_score:
            continue
        if min(value - _rival(rows[row], value), value - _rival(across[place], value)) >= MARGIN:
            found.append((chains[row], region))
    return found


def _scores(chains: Sequence[Chain], columns: Sequence[_Column], parser: Parser) -> Scores:
    scores: Scores = {}
    for row, chain in enumerate(chains):
        for place, column in enumerate(columns):
            values = [
                value
                for mention in column.mentions
                if (value := score(chain.mention, mention, column.boxes, parser.name)) is not None
            ]
            if values:
                scores[row, place] = max(values)
    return scores


def _best_two(scores: Scores, axis: int) -> dict[int, list[float]]:
    """The two highest scores of each row (axis 0) or column (axis 1)."""
    found: dict[int, list[float]] = {}
    for key, value in scores.items():
        found.setdefault(key[axis], []).append(value)
    return {key: sorted(values, reverse=True)[:2] for key, values in found.items()}


def _rival(best: list[float], value: float) -> float:
    """The best score beside this one."""
    return (best[1] if len(best) > 1 else -99.0) if value == best[0] else best[0]


# --- boxes ---------------------------------------------------------------------------------------------------------


def _misplaced(mention: Mention, region: Region, width: int, height: int) -> bool:
    """Whether the caption puts the thing where none of the region's boxes is."""
    return bool(region.boxes and mention.places) and all(
        agrees(mention.places, box.xyxy, width, height) is False for box in region.boxes
    )


def _box(mention: Mention, region: Region, width: int, height: int) -> int | None:
    if mention.several or any(box.crowd for box in region.boxes):
        return None
    if len(region.boxes) == 1:
        return 0
    return only_one(mention.places, [box.xyxy for box in region.boxes], width, height) if mention.places else None
