"""Records as cards of a report: the photo with its boxes, and every text with what it names in the box's colour."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from llmdet.draw import colours_of, draw_boxes
from llmdet.markup import Html, Number, element, join, table, text
from llmdet.record import Box, Caption, Provenance, Record, Region, Span

_LONGEST_SIDE = 720  # pixels of a picture in a report
_QUALITY = 82  # of its JPEG
_OPEN_ROWS = 8  # boxes listed without a click
_ORIGINS = {"source": "the source's own", "lmm": "language model", "template": "template"}


@dataclass(frozen=True)
class Card:
    """A record and its picture with the boxes drawn, or None where the photo is missing."""

    record: Record
    picture: Image.Image | None


def sample(ids: Iterable[str], count: int = 24) -> list[str]:
    """`count` ids that look random but are the same for the same ids in whatever order they come.

    For an even share of several sources call it once per source.
    """
    return sorted(set(ids), key=lambda name: hashlib.blake2b(name.encode(), digest_size=16).digest())[:count]


def card_of(record: Record, image: Image.Image | None) -> Card:
    """A card with the photo reduced to at most 720 pixels and the record's boxes drawn on it.

    `image` is turned as `record.orientation` says; it may be smaller than the record's width and height.
    """
    if image is None:
        return Card(record, None)
    reduced = image.convert("RGB")
    reduced.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    numbered = _numbered(record)
    scale = np.array([reduced.width / record.width, reduced.height / record.height] * 2)
    boxes = np.array([box.xyxy for _, box in numbered], dtype=np.float64).reshape(-1, 4) * scale
    labels = [_name(record.regions[region]) for region, _ in numbered]
    drawn = draw_boxes(reduced, boxes, labels, [box.score for _, box in numbered])
    return Card(record, drawn)


def render(card: Card) -> Html:
    """A card as an article that the filter of the page can hide."""
    record = card.record
    view = _View(record)
    words = element(
        "div",
        element("h3", record.id, dir="auto"),
        element("p", *_badges(record), class_="badges"),
        view.marked_text(),
        *(view.caption(caption) for caption in record.captions),
        view.boxes(),
        class_="words",
    )
    return element("article", _photo(card), words, class_="card", data_source=record.source)


def _photo(card: Card) -> Html:
    record = card.record
    if card.picture is None:
        missing = element("p", "The photo is missing: ", element("code", f"{record.root}/{record.image}"))
        return element("figure", missing, class_="photo missing")
    names = ", ".join(dict.fromkeys(_name(region) for region in record.regions if region.boxes))
    label = f"Photo with {len(record.boxes)} boxes" + (f": {names}" if names else "")
    size = {"width": card.picture.width, "height": card.picture.height}
    return element("figure", element("img", src=_data_url(card.picture), alt=label, **size), class_="photo")


def _data_url(picture: Image.Image) -> str:
    plain = picture.convert("RGB")
    plain.info.clear()  # a JPEG's comment would be written again
    buffer = io.BytesIO()
    plain.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _badges(record: Record) -> list[Html]:
    plain = [record.source, record.kind, f"{record.width} x {record.height}", record.split, record.licence]
    badges = [element("span", value, class_="badge") for value in plain if value]
    badges += [element("span", tag, class_="badge") for tag in record.tags]
    return badges + [element("span", flag, class_="badge flag", title="flag") for flag in record.flags]


class _View:
    """One record with the numbers and colours that its boxes have on the photo."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.numbered = _numbered(record)
        # Boxes first and in their order, as draw_boxes sees them: so both choose the same colours.
        names = [_name(record.regions[region]) for region, _ in self.numbered]
        self.colours = colours_of([*names, *(_name(region) for region in record.regions)])

    def marked_text(self) -> Html:
        """The grounding text with what it names in colour and what is absent dimmed."""
        record = self.record
        marks = [
            _Mark(span, self._colour(region), self._numbers(region), _numbers_title(self._numbers(region)))
            for region in range(len(record.regions))
            for span in record.regions[region].spans
        ]
        marks += [_Mark(span, "negative", (), "not in this picture") for span in record.negatives]
        return element("p", marked(record.text, marks), class_="grounding", dir="auto")

    def caption(self, caption: Caption) -> Html:
        """A caption of the whole image, where it came from, and what was said before any rule."""
        raw = None
        if caption.raw and caption.raw != caption.text:
            said = element("p", caption.raw, dir="auto")
            raw = element("details", element("summary", "as it was answered"), said, class_="raw")
        body = element("p", self._linked(caption), dir="auto")
        made = element("footer", provenance(caption.provenance), _tokens(caption))
        return element("blockquote", body, made, raw)

    def boxes(self) -> Html:
        """A table of the boxes by the numbers that they have on the photo."""
        if not self.numbered:
            return element("p", "No boxes.", class_="empty")
        captioned = any(box.caption for _, box in self.numbered)
        scored = any(box.score is not None for _, box in self.numbered)
        head = ["", "phrase", *(["caption"] if captioned else []), "box", *(["score"] if scored else [])]
        rows = [self._row(number, *pair, captioned, scored) for number, pair in enumerate(self.numbered, 1)]
        made = dict.fromkeys(box.caption.provenance for _, box in self.numbered if box.caption)
        notes = [element("p", "Region captions: ", provenance(how), class_="quiet") for how in made]
        summary = element("summary", f"{len(rows)} box" + ("es" if len(rows) > 1 else ""))
        return element("details", summary, table(head, rows), *notes, open=len(rows) <= _OPEN_ROWS)

    def _row(self, number: int, region: int, box: Box, captioned: bool, scored: bool) -> list[object]:
        x1, y1, x2, y2 = box.xyxy
        corners = f"xyxy {x1:.2f}, {y1:.2f}, {x2:.2f}, {y2:.2f}"
        size = element("span", f"{x2 - x1:.0f} x {y2 - y1:.0f}", class_="size", title=corners)
        notes = [note for note, holds in (("pseudo", box.origin == "pseudo"), ("crowd", box.crowd)) if holds]
        return [
            element("span", number, class_=f"chip {self._colour(region)}"),
            element("bdi", " / ".join(self.record.regions[region].phrases)),
            *([element("bdi", self._linked(box.caption)) if box.caption else ""] if captioned else []),
            join([size, *(element("span", note, class_="badge") for note in notes)], " "),
            *([Number("" if box.score is None else f"{box.score:.2f}")] if scored else []),
        ]

    def _linked(self, caption: Caption) -> Html:
        links = [link for link in caption.links if 0 <= link.region < len(self.record.regions)]
        return marked(
            caption.text,
            [
                _Mark(link.span, self._colour(link.region), (), _name(self.record.regions[link.region]))
                for link in links
            ],
        )

    def _colour(self, region: int) -> str:
        return f"c{self.colours[_name(self.record.regions[region])]}"

    def _numbers(self, region: int) -> tuple[int, ...]:
        return tuple(number for number, (owner, _) in enumerate(self.numbered, 1) if owner == region)


@dataclass(frozen=True)
class _Mark:
    span: Span
    class_: str
    numbers: tuple[int, ...] = ()  # of boxes, written behind the span
    title: str = ""


def marked(words: str, marks: Sequence[_Mark]) -> Html:
    """A text with its spans marked; where spans cover each other the shortest one shows."""
    limits = {0, len(words)} | {min(max(edge, 0), len(words)) for mark in marks for edge in mark.span}
    cuts = sorted(limits)
    by_length = sorted(marks, key=lambda mark: mark.span[1] - mark.span[0])
    parts = []
    for start, end in itertools.pairwise(cuts):
        mark = next((m for m in by_length if m.span[0] <= start and end <= m.span[1]), None)
        parts.append(text(words[start:end]) if mark is None else _marked(words[start:end], mark, end))
    return join(parts)


def _marked(words: str, mark: _Mark, end: int) -> Html:
    if mark.class_ == "negative":
        return element("span", words, class_="negative", title=mark.title)
    shown = mark.numbers[:3] if end == mark.span[1] else ()
    more = f"+{len(mark.numbers) - 3}" if shown and len(mark.numbers) > 3 else ""
    numbers = element("sup", ",".join(map(str, shown)) + more) if shown else None
    return element("mark", words, numbers, class_=mark.class_, title=mark.title)


def _numbers_title(numbers: Sequence[int]) -> str:
    return "no box" if not numbers else "box " + ", ".join(map(str, numbers))


def provenance(how: Provenance) -> Html:
    """In one line, where a caption came from."""
    model = how.model + (f" ({how.revision[:12]})" if how.revision else "")
    engine = f"{how.engine} {how.engine_version}".strip()
    parts = [_ORIGINS.get(how.origin, how.origin), model, how.prompt and f"prompt {how.prompt}", engine]
    return element("span", " · ".join(part for part in parts if part), title=how.sampling or None)


def _tokens(caption: Caption) -> Html | None:
    parts = [
        f"{count} {name} tokens"
        for count, name in ((caption.prompt_tokens, "prompt"), (caption.answer_tokens, "answer"))
        if count is not None
    ]
    parts += [f"attempt {caption.attempt}"] if caption.attempt else []
    return element("span", " · " + " · ".join(parts)) if parts else None


def _numbered(record: Record) -> list[tuple[int, Box]]:
    """Region index and box of every box, in the order of `Record.boxes`; number 1 is the first."""
    pairs = [(index, box) for index, region in enumerate(record.regions) for box in region.boxes]
    return sorted(pairs, key=lambda pair: pair[1].order)


def _name(region: Region) -> str:
    return region.phrases[0] if region.phrases else "(no phrase)"
