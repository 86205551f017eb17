"""Worst mistakes of an evaluation, with what is needed to draw them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.metrics import flickr30k, refcoco
from detector.metrics.detections import Detections
from detector.metrics.mistakes import Mistake, worst
from llmdet.boxes import XYXY, from_xywh, iou
from pipelines.detect import Question
from pipelines.scoring import Judged, Rules
from pipelines.sets import Member

PER_KIND = 12  # false boxes, and missed ones, on a page
_MOST_TRUE, _MOST_FOUND = 12, 5  # boxes drawn on a picture
_LEAST_IOU = 0.5


Found = tuple[XYXY, str, float | None]  # a box, its label and score


@dataclass(frozen=True, slots=True)
class Case:
    """One mistake: what is true and what was found in its photo, xyxy pixels, its own box first."""

    kind: str  # "false" or "missed"
    title: str
    note: str
    true: list[tuple[XYXY, str]]
    found: list[Found]
    photo: Question | None = None


def cases(rules: Rules, judged: Sequence[Judged], asked: Mapping[str, Member], count: int = PER_KIND) -> list[Case]:
    """The worst of each kind; `asked` says where photos are, by name of the member. Of several sets a few of each."""
    share = max(1, count // len(judged))
    makers = {"refcoco": _refcoco, "flickr30k": _flickr30k}
    found: list[Case] = []
    for one in judged:
        found += makers.get(rules.task, _detection)(rules, one, _Photos(asked.get(one.name)), share)
    return found


class _Photos:
    """Where the photos of a member are."""

    def __init__(self, member: Member | None) -> None:
        self._by_key = dict(zip(member.keys, member.questions, strict=True)) if member else {}

    def of(self, key: Any) -> Question | None:
        return self._by_key.get(key)


# --- categories ----------------------------------------------------------------------------------------------------


def _detection(rules: Rules, one: Judged, photos: _Photos, count: int) -> list[Case]:
    false, missed = worst(one.truth, one.found, count)
    names = {row["id"]: str(row["name"]) for row in one.truth["categories"]}
    images = {mistake.image for mistake in (*false, *missed)}
    true: dict[int, list[tuple[XYXY, str]]] = {image: [] for image in images}
    for row in one.truth["annotations"]:
        if row["image_id"] in images:
            true[row["image_id"]].append((_xyxy(row["bbox"]), names.get(row["category_id"], "?")))
    found = _found(one.found.blocks(), images)
    mark = f"{one.name}: " if one.name else ""
    made = []
    for kind, mistakes in (("false", false), ("missed", missed)):
        for mistake in mistakes:
            title, note = _told(kind, mistake, names)
            boxes = _seen(mistake, found.get(mistake.image), names, kind)
            truth = _near(mistake, true[mistake.image], names[mistake.category])
            made.append(Case(kind, mark + title, note, truth, boxes, photos.of(mistake.image)))
    return made


def _near(mistake: Mistake, true: list[tuple[XYXY, str]], name: str) -> list[tuple[XYXY, str]]:
    """True boxes that touch a mistake, nearest first, then others of its class: the rest would hide the picture."""
    if not true:
        return []
    own = np.array([_xyxy(mistake.box)])
    same = iou(own, np.array([box for box, _ in true]))[0]
    order = sorted(range(len(true)), key=lambda i: (-same[i], true[i][1] != name))
    return [true[i] for i in order if same[i] > 0 or true[i][1] == name][:_MOST_TRUE]


def _found(blocks: Iterator[Detections], images: set[int]) -> dict[int, Detections]:
    """All detections of a few images, best first."""
    wanted = np.array(sorted(images), np.int64)
    rows = Detections.joined([block.take(np.isin(block.image, wanted)) for block in blocks])
    rows = rows.take(np.lexsort((rows.place, -rows.score)))
    return dict(rows.grouped(rows.image))


def _seen(mistake: Mistake, rows: Detections | None, names: Mapping[int, str], kind: str) -> list[Found]:
    """The false box, then others at least half as sure; for a missed one the best of its class, then the best."""
    if rows is None:
        return []
    if kind == "missed":
        rows = Detections.joined([rows.take(rows.category == mistake.category).take(slice(0, 3)), rows])
    boxes: list[Found] = [
        (_xyxy(box), names.get(int(category), "?"), float(score))
        for box, category, score in zip(rows.box.tolist(), rows.category, rows.score, strict=True)
    ]
    own: list[Found] = []
    if kind == "false":
        own = [(_xyxy(mistake.box), names[mistake.category], mistake.score)]
        boxes = [box for box in boxes if (box[2] or 0) >= mistake.score / 2]
    return list(dict.fromkeys([*own, *boxes]))[:_MOST_FOUND]


def _told(kind: str, mistake: Mistake, names: Mapping[int, str]) -> tuple[str, str]:
    name = names[mistake.category]
    if kind == "missed":
        near = f"best box for it: {mistake.score:.2f}" if mistake.score >= 0 else "no box was found for it"
        return f"{name}, image {mistake.image}", near
    other = "nothing like it is annotated there"
    if mistake.other is not None:
        other = f"annotated there: {names.get(mistake.other, '?')}"
    return f"{name} {mistake.score:.2f}, image {mistake.image}", other


# --- sentences -----------------------------------------------------------------------------------------------------


def _refcoco(rules: Rules, one: Judged, photos: _Photos, count: int) -> list[Case]:
    """Expressions whose first box is wrong, surest first."""
    expressions = refcoco.read(one.truth)
    rows = one.found.joined()
    wrong: list[tuple[float, int, Detections]] = []
    for key, own in rows.grouped(rows.image):
        expression = expressions[key]
        boxes = from_xywh(own.box)
        order = np.argsort(-refcoco.ranking(expression, boxes, own.score, rules.protocol), kind="stable")
        own = own.take(order)
        if iou(from_xywh(own.box[:1]), expression.box)[0, 0] < _LEAST_IOU:
            wrong.append((float(own.score[0]), key, own))
    made = []
    for best, key, own in sorted(wrong, key=lambda entry: (-entry[0], entry[1]))[:count]:
        expression = expressions[key]
        true: XYXY = tuple(expression.box[0].tolist())
        own = own.take(slice(0, 3))
        ranked = enumerate(zip(own.box.tolist(), own.score.tolist(), strict=True), 1)
        found: list[Found] = [(_xyxy(box), f"choice {rank}", s) for rank, (box, s) in ranked]
        title = f"“{expression.text}”, image {key}"
        made.append(Case("false", title, f"first box: {best:.2f}", [(true, "meant")], found, photos.of(key)))
    return made


def _flickr30k(rules: Rules, one: Judged, photos: _Photos, count: int) -> list[Case]:
    """Phrases none of whose first ten boxes is right, largest true box first; one of a sentence."""
    lost: list[tuple[float, int, str, str, flickr30k.Phrase, list[Any]]] = []
    keys: list[flickr30k.SentenceId] = []
    for row in one.found:
        key = (str(row["image_id"]), int(row["sentence_id"]))
        sentence = one.truth.get(key)
        for phrase, boxes in zip(sentence.phrases if sentence else (), row["boxes"], strict=False):
            given = np.array(boxes[:10], np.float64).reshape(-1, 4)
            if not (iou(given, phrase.boxes) >= _LEAST_IOU).any():
                size = float(np.prod(phrase.boxes[:, 2:] - phrase.boxes[:, :2], axis=1).max())
                lost.append((-size, len(keys), sentence.text[slice(*phrase.span)], sentence.text, phrase, boxes))
                keys.append(key)
    made: list[Case] = []
    seen: set[str] = set()
    for _, number, words, text, phrase, boxes in sorted(lost, key=lambda entry: entry[:2]):
        key = keys[number]
        if key[0] in seen or len(made) == count:
            continue
        seen.add(key[0])
        true: list[tuple[XYXY, str]] = [(tuple(box), words) for box in phrase.boxes.tolist()]
        found: list[Found] = [(tuple(box), f"choice {rank}", None) for rank, box in enumerate(boxes[:3], 1)]
        made.append(Case("missed", f"“{words}”, photo {key[0]}", text, true, found, photos.of(key)))
    return made


def _xyxy(xywh: Sequence[float]) -> XYXY:
    x, y, width, height = (float(value) for value in xywh)
    return x, y, x + width, y + height
