"""What must be true of every Record that is written."""

from __future__ import annotations

from dataclasses import replace

from llmdet import boxes
from llmdet.record import Record, Region, Span


def faults(record: Record) -> list[str]:
    """Every broken invariant of a record as `reason: detail`; empty for a sound one.

    Spans lie inside the text and are not empty; `text[span]` equals the phrase up to case; boxes are finite, at least
    one pixel wide and high, and overlap the image; width and height are positive.
    """
    found: list[str] = []
    if record.width < 1 or record.height < 1:
        found.append(f"size_not_positive: {record.width}x{record.height}")
    for index, region in enumerate(record.regions):
        found += [f"{fault} in region {index}" for fault in _region_faults(record, region)]
    found += [fault for span in record.negatives if (fault := _span_fault(record.text, span))]
    return found


def without_bad_boxes(record: Record) -> tuple[Record, list[tuple[str, tuple[str, str]]]]:
    """The record without boxes that cannot be used, and (annotation id or order, (reason, detail)) of each.

    A region keeps its place in the text when it loses all its boxes: its name was said, and stays.
    """
    bad = []
    regions = []
    for region in record.regions:
        kept = []
        for box in region.boxes:
            reason = boxes.fault(box.xyxy, record.width, record.height)
            if reason:
                name = box.annotation_id or str(box.order)
                bad.append((name, (reason, f"{box.xyxy} in {record.width}x{record.height}")))
            else:
                kept.append(box)
        regions.append(region if len(kept) == len(region.boxes) else replace(region, boxes=tuple(kept)))
    return (replace(record, regions=tuple(regions)), bad) if bad else (record, [])


def _region_faults(record: Record, region: Region) -> list[str]:
    found = []
    if len(region.phrases) != len(region.spans) or not region.phrases:
        found.append(f"phrases_and_spans_differ: {len(region.phrases)} phrases, {len(region.spans)} spans")
    for phrase, span in zip(region.phrases, region.spans, strict=False):
        fault = _span_fault(record.text, span)
        if fault is None and record.text[slice(*span)].casefold() != phrase.casefold():
            fault = f"phrase_not_at_span: {phrase!r} against {record.text[slice(*span)]!r}"
        if fault:
            found.append(fault)
    for box in region.boxes:
        fault = boxes.fault(box.xyxy, record.width, record.height)
        if fault:
            found.append(f"{fault}: {box.xyxy} in {record.width}x{record.height}")
    return found


def _span_fault(text: str, span: Span) -> str | None:
    start, end = span
    if 0 <= start < end <= len(text):
        return None
    return f"span_outside_text: [{start}, {end}) in {len(text)} characters"
