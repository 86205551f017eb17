"""What must be true of every Record that is written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet import boxes
from llmdet.flat import Flat, utf8
from llmdet.record import Caption, Record, Region, Span

# The leaves of a table of records that `sound` looks at, as parquet spells them.
COLUMNS = [
    "width",
    "height",
    "text",
    "negatives.list.element.list.element",
    "regions.list.element.phrases.list.element",
    "regions.list.element.spans.list.element.list.element",
    "regions.list.element.boxes.list.element.xyxy.list.element",
    *[
        f"{caption}.{leaf}"
        for caption in ("captions.list.element", "regions.list.element.boxes.list.element.caption")
        for leaf in (
            "text",
            "links.list.element.span.list.element",
            "links.list.element.region",
            "links.list.element.box",
        )
    ],
]
_LOWER = np.frombuffer(bytes(range(256)).lower(), dtype=np.uint8)


def faults(record: Record) -> list[str]:
    """Every broken invariant of a record as `reason: detail`; empty for a sound one.

    Spans lie inside the text and are not empty; `text[span]` equals the phrase up to case; boxes are finite, at least
    one pixel wide and high, and overlap the image; width and height are positive; links of captions lie inside the
    caption and name a region, and a box, that is there.
    """
    found: list[str] = []
    if record.width < 1 or record.height < 1:
        found.append(f"size_not_positive: {record.width}x{record.height}")
    for index, region in enumerate(record.regions):
        found += [f"{fault} in region {index}" for fault in _region_faults(record, region)]
    found += [fault for span in record.negatives if (fault := _span_fault(record.text, span))]
    for index, caption in enumerate(record.captions):
        found += [f"{fault} in caption {index}" for fault in _link_faults(record, caption)]
    for box in (box for region in record.regions for box in region.boxes if box.caption):
        assert box.caption is not None
        found += [f"{fault} in the caption of box {box.order}" for fault in _link_faults(record, box.caption)]
    return found


def sound(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """Which records of a batch have no fault, (n,): `faults` in bulk, column by column.

    Bulk says which, `faults` of the row says why: a record is sound exactly when `faults` finds nothing.
    """
    flat = Flat.of(batch)
    width, height = (_numbers(batch.column(name)) for name in ("width", "height"))
    lengths = _numbers(pc.utf8_length(batch.column("text")))
    record_of_box = flat.record_of_region[flat.region_of_box]
    in_step = _in_step(flat.regions)
    good = (width >= 1) & (height >= 1)
    good[record_of_box[~_usable(flat.xyxy, width[record_of_box], height[record_of_box])]] = False
    good[flat.record_of_region[~in_step]] = False
    owner = np.repeat(np.arange(batch.num_rows), _numbers(batch.column("negatives").value_lengths()))
    good[owner[~_inside(_pairs(batch.column("negatives")), lengths[owner])]] = False
    # From here on every phrase has its span, so both lists run side by side.
    regions = _those(flat.regions, in_step)
    owner = np.repeat(flat.record_of_region[in_step], _numbers(regions.field("spans").value_lengths()))
    spans = _pairs(regions.field("spans"))
    inside = _inside(spans, lengths[owner])
    good[owner[~inside]] = False
    phrases = _those(regions.field("phrases").flatten(), inside)
    there = _said(batch.column("text"), owner[inside], spans[inside], phrases)
    good[owner[inside][~there]] = False
    captions = batch.column("captions")
    owner = np.repeat(np.arange(batch.num_rows), _numbers(captions.value_lengths()))
    good[_with_broken_links(captions.flatten(), owner, flat)] = False
    good[_with_broken_links(flat.boxes.field("caption"), record_of_box, flat)] = False
    return good


def _with_broken_links(captions: pa.StructArray, owner: NDArray[np.int64], flat: Flat) -> NDArray[np.int64]:
    """The records of captions with a link that `_link_faults` would name; `owner` is the record of each caption."""
    there = captions.is_valid()
    captions, owner = captions.filter(there), owner[there.to_numpy(zero_copy_only=False)]
    lists = captions.field("links")
    counts = _numbers(lists.value_lengths().fill_null(0))
    if not counts.any():
        return owner[:0]
    links, lengths = lists.flatten(), _numbers(pc.utf8_length(captions.field("text")))
    owner, lengths = np.repeat(owner, counts), np.repeat(lengths, counts)
    region, box = _numbers(links.field("region")), links.field("box")
    known = (region >= 0) & (region < np.diff(flat.region_offsets)[owner])
    boxes = np.zeros(len(known), dtype=np.int64)
    boxes[known] = np.diff(flat.box_offsets)[flat.region_offsets[owner[known]] + region[known]]
    number = _numbers(box.fill_null(-1))
    inside = _numbers(box.is_null()).astype(bool) | ((number >= 0) & (number < boxes))
    spans = np.asarray(links.field("span").flatten().to_numpy(zero_copy_only=False), dtype=np.int64).reshape(-1, 2)
    return np.asarray(owner[~(_inside(spans, lengths) & known & inside)])


def _those(items: pa.Array, mask: NDArray[np.bool_]) -> pa.Array:
    """The items of a mask; nearly always all of them, which then need no copy."""
    return items if mask.all() else items.filter(pa.array(mask))


def _in_step(regions: pa.StructArray) -> NDArray[np.bool_]:
    """Regions with as many phrases as spans, and at least one."""
    phrases = _numbers(regions.field("phrases").value_lengths())
    return np.asarray((phrases > 0) & (phrases == _numbers(regions.field("spans").value_lengths())))


def _said(texts: pa.Array, owner: NDArray[np.int64], spans: NDArray[np.int64], phrases: pa.Array) -> NDArray[np.bool_]:
    """Whether the owner's text says each phrase at its span, up to case."""
    data, begins = utf8(texts.cast(pa.string()))
    same = (np.diff(begins) == _numbers(pc.utf8_length(texts)))[owner]  # there a character is a byte
    same &= _numbers(pc.binary_length(phrases)) == spans[:, 1] - spans[:, 0]
    if same.any():
        wanted, bounds = utf8(_those(phrases.cast(pa.string()), same))
        said = data[_runs(begins[owner[same]] + spans[same, 0], np.diff(bounds))]
        differ = np.flatnonzero(_LOWER[said] != _LOWER[wanted[bounds[0] : bounds[-1]]])
        same[np.flatnonzero(same)[np.searchsorted(bounds - bounds[0], differ, side="right") - 1]] = False
    rest = np.flatnonzero(~same)
    if len(rest):
        same[rest] = _said_in_unicode(texts, owner[rest], spans[rest], phrases.take(pa.array(rest)))
    return same


def _runs(starts: NDArray[np.int64], sizes: NDArray[np.int32]) -> NDArray[np.int64]:
    """The whole numbers from each start on, as many as its size (at least one), one run after the other."""
    steps = np.ones(sizes.sum(), dtype=np.int64)
    steps[0] = starts[0]
    steps[np.cumsum(sizes[:-1])] = starts[1:] - starts[:-1] - sizes[:-1] + 1
    return np.cumsum(steps)


def _said_in_unicode(
    texts: pa.Array, owner: NDArray[np.int64], spans: NDArray[np.int64], phrases: pa.Array
) -> NDArray[np.bool_]:
    """`_said` for any text: lengths and lower case are those of characters."""
    import polars as pl  # a fifth of the time that merge takes to start, and most texts do without

    frame = pl.DataFrame(
        {
            "text": pl.Series(pl.from_arrow(texts)).gather(owner),
            "phrase": pl.from_arrow(phrases),
            "start": spans[:, 0],
            "length": spans[:, 1] - spans[:, 0],
        }
    ).select("phrase", said=pl.col("text").str.slice(pl.col("start"), pl.col("length")))
    same = frame.select(pl.col("said").str.to_lowercase() == pl.col("phrase").str.to_lowercase()).to_series().to_numpy()
    same = np.array(same, dtype=np.bool_)
    for row in np.flatnonzero(~same).tolist():  # lower case and case folding differ for a few letters
        same[row] = frame["said"][row].casefold() == frame["phrase"][row].casefold()
    return same


def _usable(xyxy: NDArray[np.float64], width: NDArray[np.int64], height: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`boxes.fault` in bulk."""
    x1, y1, x2, y2 = xyxy.T
    with np.errstate(invalid="ignore"):
        large = (x2 - x1 >= 1) & (y2 - y1 >= 1)
        over = (np.minimum(x2, width) > np.maximum(x1, 0)) & (np.minimum(y2, height) > np.maximum(y1, 0))
    return np.asarray(np.isfinite(xyxy).all(axis=1) & large & over)


def _inside(spans: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    start, end = spans.T
    return np.asarray((start >= 0) & (start < end) & (end <= lengths))


def _pairs(spans: pa.ListArray) -> NDArray[np.int64]:
    """All spans of a column of lists of spans, (n, 2)."""
    return np.asarray(spans.flatten().flatten().to_numpy(zero_copy_only=False), dtype=np.int64).reshape(-1, 2)


def _numbers(array: pa.Array) -> NDArray[np.int64]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.int64)


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


def _link_faults(record: Record, caption: Caption) -> list[str]:
    found = []
    for link in caption.links:
        if fault := _span_fault(caption.text, link.span):
            found.append(f"link_{fault}")
        if not 0 <= link.region < len(record.regions):
            found.append(f"link_without_region: {link.region} of {len(record.regions)}")
        elif link.box is not None and not 0 <= link.box < len(record.regions[link.region].boxes):
            found.append(f"link_without_box: {link.box} of {len(record.regions[link.region].boxes)}")
    return found


def _span_fault(text: str, span: Span) -> str | None:
    start, end = span
    if 0 <= start < end <= len(text):
        return None
    return f"span_outside_text: [{start}, {end}) in {len(text)} characters"
