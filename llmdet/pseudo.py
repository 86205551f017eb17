"""Pseudo boxes: the things that a caption names, what a detector found of each, and the record that comes of it.

    caption  "A dog sits by the red ball; a man watches the dog."
    things   dog: [0, 5) and [42, 49), red ball: [14, 26), man: [28, 33)
    record   one region for each thing that has a box; phrases and spans are those of the caption

Names are what a detector is asked for: a phrase without article and number, in lower case. Phrases of one name are one
thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmdet.boxes import XYXY, Boxes, fault, iou
from llmdet.nouns import count_word
from llmdet.phrases import Grammar, Parser
from llmdet.record import Box, Record, Region, Span

# Heads of phrases that name no thing with edges: the picture, a place in it, how it looks, what cannot be seen.
NO_THINGS = frozenset(
    "image picture photo photograph snapshot shot scene view video frame screenshot illustration collage close-up "
    "background foreground top bottom left right center centre middle side corner edge end front back rest "
    "distance area part half third quarter place setting surroundings position direction way kind type sort "
    "variety number group lot pair couple color colour hue tone shade light lighting shadow contrast texture "
    "pattern detail feature style design shape size atmosphere mood feeling sense impression ambiance ambience "
    "vibe touch effect presence appearance expression time day morning afternoon evening night moment season year "
    "hour minute focus angle perspective composition viewer attention space air weather thing something anything "
    "everything".split()
)
_NUMBERS = frozenset(count_word(count) for count in range(1, 13)) | set(map(str, range(1, 100)))


@dataclass(frozen=True, slots=True)
class Thing:
    """What a text names, once or several times."""

    name: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Find:
    """One box of a thing. `thing` is its number."""

    thing: int
    xyxy: XYXY
    score: float


def things_in(text: str, parser: Parser, grammar: Grammar = "default", skip: frozenset[str] = NO_THINGS) -> list[Thing]:
    """The things of a text in their order. `skip` are heads of phrases, in the singular, that name none."""
    spans: dict[str, list[Span]] = {}
    for phrase in parser.phrases(text, grammar):
        words = phrase.text.lower().split()
        if len(words) > 1 and words[0] == phrase.determiner:
            del words[0]
        if len(words) > 1 and phrase.count is not None and words[0] in _NUMBERS:
            del words[0]
        name = " ".join(words)
        if phrase.lemma not in skip and any(char.isalnum() for char in name):
            spans.setdefault(name, []).append(phrase.span)
    return [Thing(name, tuple(found)) for name, found in spans.items()]


def suppress(boxes: Boxes, scores: NDArray[np.float64], overlap: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: numbers of the boxes that stay, best first.

    A box goes where its IoU with a better one that stays is above `overlap`. Of equal scores the first comes first.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[iou(boxes[best : best + 1], boxes[rest])[0] <= overlap]
    return np.array(kept, dtype=np.int64)


def finds_of(
    thing: int, boxes: Boxes, scores: NDArray[np.float64], min_score: float, overlap: float, size: tuple[int, int]
) -> list[Find]:
    """The boxes (n, 4) of one thing that reach the score, cut to the picture, one for each place, best first.

    Coordinates have two decimals and scores six: what a picture and float32 can tell. Boxes without a pixel are none.
    """
    good = scores >= min_score
    scores = scores[good].round(6)
    boxes = boxes[good].clip(0, [*size, *size]).round(2)
    sound = np.array([fault(_xyxy(box), *size) is None for box in boxes], dtype=bool)
    boxes, scores = boxes[sound], scores[sound]
    return [Find(thing, _xyxy(boxes[i]), float(scores[i])) for i in suppress(boxes, scores, overlap)]


def settle(finds: Sequence[Find], overlap: float) -> tuple[list[Find], list[tuple[Find, Find]]]:
    """What stays where boxes of different things claim one place (IoU of `overlap` or more), and (loser, winner).

    The better score wins, then the thing that is named first. What stays is in the order of things, best first.
    """
    order = sorted(finds, key=lambda find: (-find.score, find.thing))
    shared = iou(*(np.array([find.xyxy for find in order], dtype=np.float64).reshape(-1, 4),) * 2) >= overlap
    kept: list[int] = []
    lost: list[tuple[Find, Find]] = []
    for number, find in enumerate(order):
        rival = next((i for i in kept if shared[i, number] and order[i].thing != find.thing), None)
        if rival is None:
            kept.append(number)
        else:
            lost.append((find, order[rival]))
    return sorted((order[i] for i in kept), key=lambda find: (find.thing, -find.score)), lost


def grounded(record: Record, text: str, things: Sequence[Thing], finds: Sequence[Find]) -> Record:
    """The record with `text` for its text and one region for each thing that has a box, in the order of things."""
    regions: list[Region] = []
    order = 0
    for number, thing in enumerate(things):
        mine = [find for find in finds if find.thing == number]
        boxes = [Box(find.xyxy, order + i, origin="pseudo", score=find.score) for i, find in enumerate(mine)]
        order += len(boxes)
        if boxes:
            phrases = tuple(text[slice(*span)] for span in thing.spans)
            regions.append(Region(phrases, thing.spans, tuple(boxes)))
    return dataclasses.replace(
        record, kind="grounding", text=text, regions=tuple(regions), negatives=(), exhaustive=False
    )


def joined_names(things: Sequence[Thing]) -> tuple[str, list[Thing]]:
    """A detection-style text of the names, `"dog. red ball. "`, and the things with their places in it."""
    text, placed = "", []
    for thing in things:
        placed.append(Thing(thing.name, ((len(text), len(text) + len(thing.name)),)))
        text += f"{thing.name}. "
    return text, placed


def _xyxy(box: NDArray[np.float64]) -> XYXY:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
