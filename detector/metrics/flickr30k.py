"""Flickr30k Entities: recall of phrase boxes at 1, 5 and 10, as MDETR's evaluator computes it; any box and merged box.

One prediction is one sentence, with a list of boxes, best first, for each phrase that has boxes, in the order of the
sentence:

    {"image_id": "36979", "sentence_id": 0, "boxes": [[[222.5, 198.8, 403.2, 343.0], ...], ...]}

A phrase is found at k where one of its first k boxes has an IoU of at least 0.5 with a true box (`any_box`), or with
the box around all of them (`merged_boxes`). Boxes are xyxy in pixels, true ones 1-based as the files have them.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmdet import files
from llmdet.boxes import Boxes, iou
from llmdet.errors import FormatError, MissingError
from llmdet.record import Span
from llmdet.sources.entities import ARCHIVES, content, parse_sentence, parse_sheet, photos

LEAST_IOU = 0.5
RANKS = (1, 5, 10, -1)  # -1: all boxes that were given, an upper bound
KINDS = ("any_box", "merged_boxes")
SPLITS = ("test", "val", "train")

SentenceId = tuple[str, int]  # photo, number of the sentence from 0


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase with boxes: its types (people, clothing, ...), true boxes, xyxy, (n, 4), and place in the sentence."""

    types: tuple[str, ...]
    boxes: Boxes
    span: Span = (0, 0)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its phrases that have boxes, and the size (width, height) of its photo."""

    text: str
    phrases: list[Phrase]
    size: tuple[int, int]


Truth = dict[SentenceId, list[Phrase]]


def read(annotations: str, split: str | None = None, predicted: Collection[str] = ()) -> Truth:
    """Sentences of a split that have a phrase with boxes.

    `annotations` is the folder or archive with Annotations, Sentences and, in or beside it, test.txt, val.txt and
    train.txt. Without a split it is the first list that holds all `predicted` photos; where there are no lists, these
    photos. Raises MissingError and FormatError.
    """
    return {key: one.phrases for key, one in sentences(annotations, split, predicted).items()}


def sentences(annotations: str, split: str | None, predicted: Collection[str] = ()) -> dict[SentenceId, Sentence]:
    """As `read`, with the sentences themselves."""
    wanted = _photos(annotations, split, {str(photo) for photo in predicted})
    found: dict[SentenceId, Sentence] = {}
    for photo, data, lines in _contents(annotations, wanted):
        sheet = parse_sheet(data)
        true_boxes: dict[str, list[tuple[float, ...]]] = {}
        for thing in sheet.things:
            if not isinstance(thing, str) and thing.xyxy:
                for entity in thing.entities:
                    true_boxes.setdefault(entity, []).append(thing.xyxy)
        for number, line in enumerate(lines.decode().rstrip().split("\n")):
            text, marked = parse_sentence(line)
            named = [phrase for phrase in marked if phrase.entity in true_boxes]
            if named:
                phrases = [Phrase(p.types, np.array(true_boxes[p.entity], np.float64), p.span) for p in named]
                found[photo, number] = Sentence(text, phrases, (sheet.width, sheet.height))
    return found


@dataclass
class Tally:
    """Phrases found and phrases in all, by kind, rank and type; those of several workers add up."""

    found: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    total: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    sentences: set[SentenceId] = field(default_factory=set)

    def add(self, truth: Truth, prediction: Mapping[str, Any]) -> None:
        """Count a prediction. A second one for a sentence, and one where nothing is to be found, do not count.

        Raises FormatError for another number of phrases than the sentence has.
        """
        sentence, boxes = _parse(prediction)
        phrases = truth.get(sentence)
        if phrases is None or sentence in self.sentences:
            return
        if len(boxes) != len(phrases):
            raise FormatError(
                f"sentence {sentence[1]} of image {sentence[0]} has {len(phrases)} phrases with boxes; "
                f"the prediction has boxes for {len(boxes)}"
            )
        self.sentences.add(sentence)
        for phrase, given in zip(phrases, boxes, strict=True):
            for kind in KINDS:
                self._count(kind, phrase, given)

    def merge(self, other: Tally) -> None:
        """Take over what another worker has counted. Raises ValueError where both have the same sentence."""
        if twice := self.sentences & other.sentences:
            raise ValueError(f"{len(twice)} sentences were counted by two workers, {min(twice)} is one")
        self.found.update(other.found)
        self.total.update(other.total)
        self.sentences |= other.sentences

    def recalls(self) -> dict[str, dict[str, dict[str, float]]]:
        """Recall by kind, rank (`R@1`, ..., `R@-1`) and type, of which `all` is one."""
        report: dict[str, dict[str, dict[str, float]]] = {}
        for (kind, rank, type_), total in self.total.items():
            by_type = report.setdefault(kind, {}).setdefault(f"R@{rank}", {})
            by_type[type_] = self.found[kind, rank, type_] / total
        return report

    def _count(self, kind: str, phrase: Phrase, given: Boxes) -> None:
        true_boxes = phrase.boxes if kind == "any_box" else _around(phrase.boxes)
        hits = np.any(iou(given, true_boxes) >= LEAST_IOU, axis=1)
        for rank in RANKS:
            hit = bool(hits[: rank if rank > 0 else None].any())
            for type_ in ("all", *phrase.types):
                self.total[kind, rank, type_] += 1
                self.found[kind, rank, type_] += hit


def evaluate(truth: Truth, predictions: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Recall by kind, rank and type; every sentence of the truth must be predicted. Raises FormatError."""
    tally = Tally()
    for prediction in predictions:
        tally.add(truth, prediction)
    if missing := sorted(truth.keys() - tally.sentences):
        photo, number = missing[0]
        raise FormatError(
            f"{len(missing)} of {len(truth)} sentences have no prediction; sentence {number} of image {photo} is one"
        )
    return tally.recalls()


def _parse(prediction: Mapping[str, Any]) -> tuple[SentenceId, list[Boxes]]:
    try:
        sentence = str(prediction["image_id"]), int(prediction["sentence_id"])
        boxes = [np.array(own, np.float64).reshape(len(own), 4) for own in prediction["boxes"]]
        if all(np.isfinite(own).all() for own in boxes):
            return sentence, boxes
    except (KeyError, TypeError, ValueError):
        pass
    raise FormatError(
        "a prediction needs image_id, sentence_id and boxes (for each phrase a list of [x1, y1, x2, y2]); "
        f"got {str(prediction)[:200]}"
    )


def _around(boxes: Boxes) -> Boxes:
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])[None]


# --- which photos, and where ---------------------------------------------------------------------------------------


def _photos(annotations: str, split: str | None, predicted: set[str]) -> set[str]:
    folder = posixpath.dirname(annotations) if annotations.endswith(ARCHIVES) else annotations
    lists = {name: files.join(folder, f"{name}.txt") for name in ([split] if split else SPLITS)}
    listed = {name: set(files.read_bytes(url).decode().split()) for name, url in lists.items() if files.exists(url)}
    if not listed:
        if split or not predicted:
            raise MissingError(f"no {split or SPLITS[0]}.txt in {folder}, so it is not known which photos to look at")
        return predicted
    for name, own in listed.items():
        if split == name or predicted <= own:
            return own
    raise FormatError(f"the predicted photos are not all of one split: none of {', '.join(listed)} has them all")


def _contents(annotations: str, wanted: set[str]) -> Iterator[tuple[str, bytes, bytes]]:
    """Each photo's xml and sentences. Raises MissingError for a photo without."""
    if not annotations.endswith(ARCHIVES):
        for photo in sorted(wanted):
            sheet, lines = (
                files.read_bytes(files.safe_join(annotations, path))
                for path in (f"Annotations/{photo}.xml", f"Sentences/{photo}.txt")
            )
            yield photo, sheet, lines
        return
    left = set(wanted)
    for photo, own in photos(annotations):
        if photo in left:
            left.remove(photo)
            yield photo, content(own, "Annotations"), content(own, "Sentences")
    if left:
        raise MissingError(f"{annotations} has no annotations of {len(left)} photos, {min(left)} is one")
