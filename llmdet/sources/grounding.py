"""The regions of an ODVG grounding line.

    {"bbox": [60.0, 300.0, 400.0, 360.0], "phrase": ["a puddle", "the puddle"], "tokens_positive": [[20, 28], [55, 65]]}

Box and phrase stand alone or in a list. Spans of words that a single blank parts belong to one phrase, as the public
converters write them. Older files have no spans: the phrase is looked for in the caption. `captions`, beside the
boxes, is this project's addition.
"""

from __future__ import annotations

from typing import Any

from llmdet.record import Box, Caption, Region, Span
from llmdet.sources.conversations import own_caption
from llmdet.sources.fields import FieldError, four, shown, span, text, texts, usable

# (where in the line, what is wrong)
Fault = tuple[str, FieldError]


def read_regions(value: Any, caption: str, width: int, height: int) -> tuple[list[Region], list[Fault]]:
    """Regions of a grounding line with at least one usable box, and what was left out.

    `width` 0 means that the size is not known yet; whoever opens the picture checks the boxes then.
    """
    if not isinstance(value, list):
        raise FieldError("row_malformed", f"grounding.regions must be a list, got {shown(value)}")
    regions: list[Region] = []
    faults: list[Fault] = []
    order = 0
    for index, row in enumerate(value):
        raw = _raw_boxes(row)
        try:
            boxes, bad = _boxes(row, raw, order, (width, height))
            faults += [(f"regions[{index}].bbox[{place}]", fault) for place, fault in bad]
            phrases, spans = _phrases(row, caption, regions)
            if boxes:
                regions.append(Region(phrases, spans, tuple(boxes)))
        except FieldError as fault:
            faults.append((f"regions[{index}]", fault))
        order += len(raw)
    return regions, faults


def listed_names(caption: str, spans: set[Span]) -> list[Span] | None:
    """The spans of the names in `"cat. hair drier. dog. "`, or None where the text or the spans are of another kind.

    A span that is given counts as one name, even with a dot inside ("st. bernard").
    """
    ends = dict(spans)
    found: list[Span] = []
    at = 0
    while at < len(caption):
        end = ends.get(at) or caption.find(". ", at)
        name = caption[at:end]
        if not caption.startswith(". ", end) or not name or name[0].isspace() or name[-1].isspace():
            return None
        found.append((at, end))
        at = end + 2
    return found if found and spans <= set(found) else None


def _raw_boxes(row: Any) -> list[Any]:
    """What should be boxes, one by one."""
    value = row.get("bbox") if isinstance(row, dict) else None
    if isinstance(value, list) and value and all(isinstance(box, list) for box in value):
        return value
    return [value]


def _boxes(
    row: Any, raw: list[Any], order: int, size: tuple[int, int]
) -> tuple[list[Box], list[tuple[int, FieldError]]]:
    if not isinstance(row, dict):
        raise FieldError("row_malformed", f"a region must be an object, got {shown(row)}")
    captions = _box_captions(row.get("captions"), len(raw))
    good: list[Box] = []
    bad: list[tuple[int, FieldError]] = []
    for place, value in enumerate(raw):
        try:
            box = four(value)
            good.append(Box(usable(box, *size) if size[0] else box, order + place, caption=captions[place]))
        except FieldError as fault:
            bad.append((place, fault))
    return good, bad


def _box_captions(value: Any, count: int) -> list[Caption | None]:
    if value is None:
        return [None] * count
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or len(given) != count:
        raise FieldError("captions_malformed", f"captions must be one per box ({count}), got {shown(value)}")
    return [None if item is None else own_caption(text(item, "captions")) for item in given]


def _phrases(row: dict[str, Any], caption: str, before: list[Region]) -> tuple[tuple[str, ...], tuple[Span, ...]]:
    """One phrase per span. Raises FieldError where the text does not say what the phrase says."""
    given = row.get("phrase")
    phrases = (text(given, "phrase"),) if isinstance(given, str) else texts(given, "phrase")
    raw = row.get("tokens_positive")
    if raw is None:
        return phrases, tuple(_find(phrase, caption, before) for phrase in phrases)
    if not isinstance(raw, list) or not raw:
        raise FieldError("span_malformed", f"tokens_positive must be a list of [start, end], got {shown(raw)}")
    spans = [span(item, caption) for item in raw]
    for candidate in (spans, _joined(spans, caption)):
        if _same([caption[slice(*one)] for one in candidate], phrases):
            return phrases, tuple(candidate)
    # One phrase that is said several times in other words: the text counts, if it says the phrase at all.
    said = tuple(caption[slice(*one)] for one in spans)
    if not {one.casefold() for one in said} & {phrase.casefold() for phrase in phrases}:
        raise FieldError("phrase_not_at_span", f"{shown(given)} against {shown(said)} at {shown(raw)}")
    return said, tuple(spans)


def _same(said: list[str], phrases: tuple[str, ...]) -> bool:
    return [one.casefold() for one in said] == [phrase.casefold() for phrase in phrases]


def _joined(spans: list[Span], caption: str) -> list[Span]:
    """Spans with those joined that one blank parts: `[[0, 3], [4, 7]]` of "one man" is `[[0, 7]]`."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and found[-1][1] + 1 == start and caption[start - 1] == " ":
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _find(phrase: str, caption: str, before: list[Region]) -> Span:
    """Where a phrase without spans stands: its first place that no region before it took, else its first."""
    taken = {one for region in before for one in region.spans}
    # Folding case changes the length of some texts ("İ"), and with it every offset behind.
    inside, wanted = caption.lower(), phrase.lower()
    if len(inside) != len(caption):
        inside, wanted = caption, phrase
    first = at = inside.find(wanted) if wanted else -1
    if first < 0:
        raise FieldError("phrase_not_in_text", f"{shown(phrase)} is not in {shown(caption)}")
    while at >= 0:
        if (at, at + len(wanted)) not in taken:
            return at, at + len(wanted)
        at = inside.find(wanted, at + 1)
    return first, first + len(wanted)
