"""Joining the texts of one image, as LLMDet did with GoldG (769,000 records became 437,000).

A joined text costs one training sample instead of several, and the phrases of one text are negatives for the boxes of
the others. So it must not contradict itself: two texts are joined only where no box would have to be positive for one
phrase and negative for another that means the same place or has the same words. Upstream says "where boxes do not
conflict" and no more; MDETR puts texts together where boxes overlap by at most one half. `SameImage` has both as
fields. Texts keep their letters, spans move by where their text begins, and nothing is left out: what cannot be joined
stays alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmdet import boxes
from llmdet.record import Box, Caption, Record, Region, Span, record_id
from llmdet.rejects import Reject
from llmdet.tokens import estimate_bert_tokens

Item = Record | Reject

_ALIKE = (
    "source",
    "split",
    "orientation",
    "width",
    "height",
    "licence",
    "image_sha256",
)  # of records that may be joined


@dataclass(frozen=True, kw_only=True)
class SameImage:
    """When and how the texts of one image become one text."""

    max_overlap: float = 0.5  # IoU above which two boxes of different texts conflict, unless they are the same thing
    same_iou: float = 0.95  # IoU from which two boxes are the same box, drawn twice
    # Two phrases for the same boxes ("a man", "a worker"): one region with both phrases, which contradicts nothing, or
    # a conflict. Of Flickr30k's 158,915 sentences 81,205 records are left with the one, 143,940 with the other.
    same_box: Literal["unite", "conflict"] = "unite"
    # Equal phrases for different boxes in two texts: each would be a false negative of the other's words.
    same_phrase: Literal["conflict", "keep"] = "conflict"
    order: Literal["first_fit", "next_fit"] = "first_fit"  # try every text begun so far, or only the last one
    max_regions: int = 256  # more break the label embedding of denoising
    max_tokens: int = 256  # of BERT, [CLS] and [SEP] counted; what is beyond is cut away at training time
    count_tokens: Callable[[str], int] = estimate_bert_tokens
    full_stop: str = "."  # put behind a text that ends without . ? or !, when another follows
    separator: str = " "  # put between texts where the first does not end in a blank


@dataclass(slots=True)
class JoinReport:
    """How many records became how many, and what kept the others apart."""

    images: int = 0
    before: int = 0
    after: int = 0
    conflicts: Counter[str] = field(default_factory=Counter)  # refused pairs of texts by reason

    def __str__(self) -> str:
        share = f" ({self.after / self.before:.0%})" if self.before else ""
        return f"{self.before} records of {self.images} images became {self.after}{share}"


def join_same_image(records: Iterable[Record], rule: SameImage, report: JoinReport | None = None) -> list[Record]:
    """The records of one image, joined in their order. Detection records, and what fits nowhere, stay as they are."""
    report = JoinReport() if report is None else report
    groups: list[Record] = []
    records = list(records)
    for record in records:
        start = max(0, len(groups) - 1) if rule.order == "next_fit" else 0
        for place in range(start, len(groups)):
            united = unite(groups[place], record, rule)
            if isinstance(united, Record):
                groups[place] = united
                break
            report.conflicts[united] += 1
        else:
            groups.append(record)
    report.images += bool(records)
    report.before += len(records)
    report.after += len(groups)
    return groups


def join_items(items: Iterable[Item], rule: SameImage, report: JoinReport, *, gather: bool = False) -> Iterator[Item]:
    """A source's items with its records joined; rejects pass by. `gather` as in `by_image`."""
    for group in by_image(items, gather=gather):
        yield from (item for item in group if isinstance(item, Reject))
        records = [item for item in group if isinstance(item, Record)]
        if records:
            yield from join_same_image(records, rule, report)


def by_image(items: Iterable[Item], *, gather: bool = False) -> Iterator[list[Item]]:
    """Items of one image after the other, images in the order of their first record.

    Only neighbours meet, and no more than one image is held; with `gather` records of an image meet wherever they
    stand, and all of them are held. A reject goes with the record behind it.
    """
    if gather:
        groups: dict[tuple[str, str], list[Item]] = {}
        for key, group in _runs(items):
            groups.setdefault(key, []).extend(group)
        yield from groups.values()
    else:
        yield from (group for _, group in _runs(items))


def _runs(items: Iterable[Item]) -> Iterator[tuple[tuple[str, str], list[Item]]]:
    held: list[Item] = []

    def parcels() -> Iterator[tuple[tuple[str, str], list[Item]]]:
        for item in items:
            held.append(item)
            if isinstance(item, Record):
                yield (item.root, item.image), list(held)
                held.clear()

    for key, run in groupby(parcels(), key=lambda parcel: parcel[0]):
        yield key, [item for _, parcel in run for item in parcel]
    if held:
        yield ("", ""), list(held)


# --- may they? -----------------------------------------------------------------------------------------------------


def unite(first: Record, second: Record, rule: SameImage) -> Record | str:
    """Two records of one image as one, or the reason against it in a word."""
    if "detection" in (first.kind, second.kind):
        return "detection"
    if any(getattr(first, name) != getattr(second, name) for name in _ALIKE):
        return "not_alike"
    if _names_a_negative(first, second) or _names_a_negative(second, first):
        return "negative_named"
    same = _same_regions(first.regions, second.regions, rule)
    if isinstance(same, str):
        return same
    if len(first.regions) + len(second.regions) - len(same) > rule.max_regions:
        return "too_many_regions"
    if rule.count_tokens(_head(first.text, rule) + second.text) > rule.max_tokens:
        return "too_long"
    return _joined(first, second, rule, same)


def _same_regions(first: Sequence[Region], second: Sequence[Region], rule: SameImage) -> dict[int, int] | str:
    """Regions of the second text that have the boxes of one of the first, as {second: first}, or a conflict."""
    same: dict[int, int] = {}
    for a, b in _touching(first, second, min(rule.max_overlap, rule.same_iou)):
        overlaps = boxes.iou(_array([first[a]]), _array([second[b]]))
        alike = not _words(first[a]).isdisjoint(_words(second[b]))
        if _one_to_one(overlaps >= rule.same_iou):
            if not alike and rule.same_box == "conflict":
                return "same_box"
            same.setdefault(b, a)
        elif float(overlaps.max()) > rule.max_overlap:
            return "overlap"
    if rule.same_phrase == "conflict":
        places: dict[str, set[int]] = defaultdict(set)
        for a, region in enumerate(first):
            for word in _words(region) if region.boxes else ():
                places[word].add(a)
        for b, region in enumerate(second):
            named = set().union(*(places[word] for word in _words(region) if word in places))
            if region.boxes and not named <= {same.get(b)}:
                return "same_phrase"
    return same


def _touching(first: Sequence[Region], second: Sequence[Region], least: float) -> list[tuple[int, int]]:
    """Pairs of regions with boxes of an IoU of at least `least`."""
    one, two = _array(first), _array(second)
    owners = [[i for i, region in enumerate(regions) for _ in region.boxes] for regions in (first, second)]
    pairs = np.argwhere(boxes.iou(one, two) >= least).tolist()
    return sorted({(owners[0][i], owners[1][j]) for i, j in pairs})


def _one_to_one(same: NDArray[np.bool_]) -> bool:
    return bool(same.shape[0] == same.shape[1] and (same.sum(axis=0) == 1).all() and (same.sum(axis=1) == 1).all())


def _names_a_negative(first: Record, second: Record) -> bool:
    absent = {first.text[start:end].casefold() for start, end in first.negatives}
    return bool(absent) and any(not absent.isdisjoint(_words(region)) for region in second.regions)


def _words(region: Region) -> set[str]:
    return {phrase.casefold() for phrase in region.phrases}


def _array(regions: Sequence[Region]) -> boxes.Boxes:
    return np.array([box.xyxy for region in regions for box in region.boxes], dtype=np.float64).reshape(-1, 4)


# --- then do it ----------------------------------------------------------------------------------------------------


def _head(text: str, rule: SameImage) -> str:
    """The first text with what goes between it and the next."""
    stop = "" if text.rstrip().endswith((".", "?", "!")) else rule.full_stop
    return text + stop + ("" if (text + stop)[-1:].isspace() else rule.separator)


def _joined(first: Record, second: Record, rule: SameImage, same: dict[int, int]) -> Record:
    head = _head(first.text, rule)
    offset = len(head)
    regions = list(first.regions)
    places: list[int] = []  # where each region of the second went
    next_order = 1 + max((box.order for box in first.boxes), default=-1)
    for index, region in enumerate(second.regions):
        moved = _moved(region, offset, next_order)
        place = same.get(index, len(regions))
        if place == len(regions):
            regions.append(moved)
        else:
            own = regions[place]
            regions[place] = replace(own, phrases=own.phrases + moved.phrases, spans=own.spans + moved.spans)
        places.append(place)
    united = [box.annotation_id for index in sorted(same) for box in second.regions[index].boxes]
    text_id = f"{first.text_id}+{second.text_id}"
    return replace(
        first,
        id=record_id(first.source, first.image_id, text_id),
        text_id=text_id,
        text=head + second.text,
        regions=tuple(regions),
        negatives=first.negatives + tuple(_shift(span, offset) for span in second.negatives),
        exhaustive=first.exhaustive and second.exhaustive,
        captions=_captions(first, second, places),
        tags=tuple(dict.fromkeys(first.tags + second.tags)),
        flags=tuple(dict.fromkeys(first.flags + second.flags)),
        extra={"joined": [*_parts(first), *_parts(second, offset, united)]},
    )


def _moved(region: Region, offset: int, first_order: int) -> Region:
    moved: tuple[Box, ...] = tuple(replace(box, order=box.order + first_order) for box in region.boxes)
    return replace(region, spans=tuple(_shift(span, offset) for span in region.spans), boxes=moved)


def _shift(span: Span, offset: int) -> Span:
    return span[0] + offset, span[1] + offset


def _captions(first: Record, second: Record, places: list[int]) -> tuple[Caption, ...]:
    """Captions of both, each text once; links follow the regions, boxes of united regions stay uncertain."""
    known = {caption.text for caption in first.captions}
    moved = []
    for caption in second.captions:
        if caption.text not in known:
            links = tuple(
                replace(
                    link,
                    region=places[link.region],
                    box=link.box if places[link.region] >= len(first.regions) else None,
                )
                for link in caption.links
            )
            moved.append(replace(caption, links=links))
    return first.captions + tuple(moved)


def _parts(record: Record, offset: int = 0, united: Sequence[str | None] = ()) -> list[dict[str, Any]]:
    """What a record was joined from: text id, where its text begins, its own extra, and which of its boxes stand there
    as boxes of an earlier text."""
    parts: list[dict[str, Any]] = record.extra.get("joined") or [
        {"text_id": record.text_id, "start": 0, "extra": record.extra}
    ]
    moved = [{**part, "start": part["start"] + offset} for part in parts]
    return [{**moved[0], "united": list(united)}, *moved[1:]] if united else moved
