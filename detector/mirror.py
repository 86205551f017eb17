"""Mirrored records: what was on the left is on the right, in boxes and in words.

A mirrored photo under the same words would teach that left and right are the same. So the words are swapped as well,
spans follow, and a record stays as it is where that could go wrong: where lettering or a clock is in the photo, or
where a "left" or "right" may be something else than a side ("the man left", "right behind him").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from llmdet.boxes import XYXY
from llmdet.record import Box, Caption, Record, Region, Span

# What looks wrong in a mirror, or says so of itself.
_LETTERING = re.compile(
    r"\b(?:texts?|letter(?:s|ing)?|word(?:s|ing)?|writ(?:ing|ten)|script|reads?|reading|spell\w*|say(?:s|ing)|"
    r"label(?:s|led|ed)?|inscri\w+|logos?|brand\w*|slogans?|captions?|titles?|numbers?|numerals?|digits?|"
    r"signs?|signage|billboards?|posters?|banners?|plates? number|licen[sc]e plates?|newspapers?|maps?|"
    r"clocks?|clockwise|counterclockwise|o'clock|mirrors?|mirrored)\b|[\"“”«»]",
    re.I,
)
_SIDE = re.compile(r"\b(?P<side>left|right)(?P<more>-?most|wards?|-?hand(?:ed)?)?\b", re.I)
_BEFORE = re.compile(  # "the right ...", "to the left", "from left": a side
    r"\b(?:the|its|his|her|their|your|my|to|from|on|at|far|upper|lower|top|bottom|middle|cent(?:er|re)|front|back|rear|"
    r"(?:left|right) (?:to|and|or))[ -]$",
    re.I,
)
_AFTER = re.compile(  # "left side", "right hand", "left of": a side
    r"[ -](?:sides?|of|hands?|arms?|legs?|foot|feet|eyes?|ears?|shoulders?|knees?|elbows?|wrists?|corners?|edges?|half|"
    r"halves|part|portion|third|quarter|wing|lane|turn|(?:to|and|or) (?:the )?(?:left|right))\b",
    re.I,
)
_NOT_A_SIDE = re.compile(r"\bright (?:next|behind|above|below|beside|under|in front|after|before|angles?)\b", re.I)
_OTHER = {"left": "right", "right": "left"}


def mirror(record: Record) -> Record | None:
    """The record of the mirrored photo, or None where it must not be mirrored. Masks are left out."""
    if has_lettering(record):
        return None
    text = _Swapped.of(record.text)
    said = {caption.text for caption in _captions(record)}
    swapped = {caption: _Swapped.of(caption) for caption in said}
    if text is None or any(one is None for one in swapped.values()):
        return None
    told = {caption: one.text for caption, one in swapped.items() if one is not None}
    return replace(
        record,
        text=text.text,
        regions=tuple(_region(region, text, told, record.width) for region in record.regions),
        negatives=tuple(map(text.span, record.negatives)),
        captions=tuple(_told(caption, told) for caption in record.captions),
    )


def has_lettering(record: Record) -> bool:
    """Whether the photo has lettering, by the record's flags or by what its texts say is in it."""
    if any("text" in flag or "lettering" in flag for flag in record.flags):
        return True
    named = [record.text] if record.kind == "grounding" else [p for region in record.regions for p in region.phrases]
    return any(_LETTERING.search(text) for text in (*named, *(caption.text for caption in _captions(record))))


def _captions(record: Record) -> list[Caption]:
    own = [box.caption for region in record.regions for box in region.boxes if box.caption]
    return [*record.captions, *own]


def _region(region: Region, text: _Swapped, told: dict[str, str], width: int) -> Region:
    spans = tuple(map(text.span, region.spans))
    boxes = tuple(_box(box, told, width) for box in region.boxes)
    return replace(region, phrases=tuple(text.text[start:end] for start, end in spans), spans=spans, boxes=boxes)


def _box(box: Box, told: dict[str, str], width: int) -> Box:
    x1, y1, x2, y2 = box.xyxy
    turned: XYXY = (width - x2, y1, width - x1, y2)
    return replace(box, xyxy=turned, mask=None, caption=_told(box.caption, told) if box.caption else None)


def _told(caption: Caption, told: dict[str, str]) -> Caption:
    return replace(caption, text=told[caption.text], links=())


class _Swapped:
    """A text with its sides swapped, and where its spans have gone."""

    def __init__(self, text: str, edits: Sequence[tuple[int, int, str]]) -> None:
        self.edits = edits
        pieces, place = [], 0
        for start, end, new in edits:
            pieces += [text[place:start], new]
            place = end
        self.text = "".join([*pieces, text[place:]])

    @classmethod
    def of(cls, text: str) -> _Swapped | None:
        """None where a word may or may not be a side."""
        edits = []
        for found in _SIDE.finditer(text):
            is_side = _is_side(text, found)
            if is_side is None:
                return None
            if is_side:
                edits.append((*found.span("side"), _like(found["side"], _OTHER[found["side"].lower()])))
        return cls(text, edits)

    def span(self, span: Span) -> Span:
        start, end = span
        return self._place(start, lambda begin, grown: begin), self._place(end, lambda begin, grown: begin + grown)

    def _place(self, place: int, inside: Callable[[int, int], int]) -> int:
        """Where a place of the old text is in the new one; `inside` says so for one within a swapped word."""
        shift = 0
        for start, end, new in self.edits:
            if start < place < end:
                return inside(start + shift, len(new))
            if place >= end:
                shift += len(new) - (end - start)
        return place + shift


def _is_side(text: str, found: re.Match[str]) -> bool | None:
    """Whether a "left" or "right" is a side of the picture or of a body; None where that is not plain."""
    before, after = text[max(0, found.start() - 24) : found.start()], found.end()
    if found["more"] or _AFTER.match(text, after):
        return True
    if _NOT_A_SIDE.match(text, found.start()):
        return None if _BEFORE.search(before) else False
    return True if _BEFORE.search(before) else None


def _like(old: str, new: str) -> str:
    """A word in the case of the one that it stands for."""
    if old.isupper():
        return new.upper()
    return new.capitalize() if old[0].isupper() else new
