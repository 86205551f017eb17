"""Records as cards of a report: the photo with its boxes, and every text with what it names in the box's colour."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from PIL import Image

from llmdet import boxes as geometry
from llmdet.changes import LONGEST, changes, more, removed_words, shown
from llmdet.draw import colours_of, draw_boxes
from llmdet.markup import Html, Number, element, join, table, text
from llmdet.record import Box, Caption, Link, Provenance, Record, Region, Span
from llmdet.rejects import Reject

_LONGEST_SIDE = 720  # pixels of a picture in a report
_QUALITY = 82  # of its JPEG
_OPEN_ROWS = 8  # boxes listed without a click
_MOST_BOXES = 300  # listed, and lit up on the photo
_MOST_CAPTIONS = 20  # of one image
_ORIGINS = {"source": "the source's own", "lmm": "language model", "template": "template"}


@dataclass(frozen=True)
class LeftOut:
    """Something of a record that was left out, and what it said where that is known."""

    reject: Reject
    said: str = ""


@dataclass(frozen=True)
class Card:
    """A record and its picture with the boxes drawn, or None where the photo is missing."""

    record: Record
    picture: Image.Image | None
    left_out: tuple[LeftOut, ...] = ()  # the record itself, or captions of it

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why something of it was left out."""
        return tuple(dict.fromkeys(one.reject.reason for one in self.left_out))

    @property
    def changed(self) -> bool:
        """Whether rules changed a caption."""
        said = [box.caption for box in self.record.boxes if box.caption]
        return any(one.raw and one.raw != one.text for one in (*self.record.captions, *said))


def sample(ids: Iterable[str], count: int = 24) -> list[str]:
    """`count` ids that look random but are the same for the same ids in whatever order they come.

    For an even share of several sources call it once per source.
    """
    return sorted(set(ids), key=lambda name: hashlib.blake2b(name.encode(), digest_size=16).digest())[:count]


def card_of(record: Record, image: Image.Image | None, left_out: Sequence[LeftOut] = ()) -> Card:
    """A card with the photo reduced to at most 720 pixels and the record's boxes drawn on it.

    `image` is turned as `record.orientation` says; it may be smaller than the record's width and height.
    """
    if image is None:
        return Card(record, None, tuple(left_out))
    reduced = image.convert("RGB")
    reduced.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    numbered = _numbered(record)
    scale = np.array([reduced.width / record.width, reduced.height / record.height] * 2)
    boxes = np.array([box.xyxy for _, box in numbered], dtype=np.float64).reshape(-1, 4) * scale
    labels = [_name(record.regions[region]) for region, _ in numbered]
    drawn = draw_boxes(reduced, boxes, labels, [box.score for _, box in numbered])
    return Card(record, drawn, tuple(left_out))


def render(card: Card, number: int = 0) -> Html:
    """A card as an article that the filters of the page can hide. `number` tells it from the page's others."""
    record = card.record
    view = _View(record)
    captions = record.captions[:_MOST_CAPTIONS]
    words = element(
        "div",
        element("h3", record.id, dir="auto"),
        element("p", *_badges(record), class_="badges"),
        *(_left_out(one) for one in card.left_out),
        view.marked_text(),
        *(view.caption(caption) for caption in captions),
        _rest(len(record.captions) - len(captions), "captions"),
        view.boxes(),
        class_="words",
    )
    about = {"source": record.source, "flags": _json(record.flags), "reasons": _json(card.reasons)}
    data = {f"data_{key}": value for key, value in about.items()}
    return element("article", _photo(card, view, number), words, class_="card", data_changed=card.changed, **data)


def _json(words: Sequence[str]) -> str:
    return orjson.dumps([word.encode("utf-8", "replace").decode() for word in words]).decode()


def _left_out(one: LeftOut) -> Html:
    reject = one.reject
    head = [element("b", reject.reason), f" left out by {reject.stage}"]
    detail = element("p", element("bdi", shown(reject.detail))) if reject.detail else None
    said = element("p", element("del", shown(one.said)), dir="auto") if one.said else None
    return element("div", element("p", *head), detail, said, class_="lost")


def _rest(count: int, what: str) -> Html | None:
    return element("p", f"and {count:,} more {what}", class_="quiet") if count > 0 else None


def _photo(card: Card, view: _View, number: int) -> Html:
    record = card.record
    if card.picture is None:
        missing = element("p", "The photo is missing: ", element("code", f"{record.root}/{record.image}"))
        return element("figure", missing, class_="photo missing")
    names = ", ".join(dict.fromkeys(_name(region) for region in record.regions if region.boxes))
    label = f"Photo with {len(record.boxes)} boxes" + (f": {names[:1000]}" if names else "")
    size = {"width": card.picture.width, "height": card.picture.height}
    image = element("img", src=_data_url(card.picture), alt=label, decoding="async", **size)
    return element("figure", element("div", image, view.spots(number), class_="picture"), class_="photo")


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
            _Mark(span, self._colour(region), self._numbers(region), _numbers_title(self._numbers(region)), True)
            for region in range(len(record.regions))
            for span in record.regions[region].spans
        ]
        marks += [_Mark(span, "negative", (), "not in this picture") for span in record.negatives]
        return element("p", marked(record.text, marks), class_="grounding", dir="auto")

    def caption(self, caption: Caption) -> Html:
        """A caption of the whole image, where it came from, and what rules took out of it."""
        body = element("p", self._linked(caption), dir="auto")
        made = element("footer", provenance(caption.provenance), _tokens(caption))
        return element("blockquote", body, made, _before(caption))

    def spots(self, number: int) -> Html | None:
        """What lies over the photo: a shade with holes for the boxes that are lit, and areas to point at."""
        if self.record.width < 1 or self.record.height < 1:
            return None
        size = (self.record.width, self.record.height)
        corners = np.array([box.xyxy for _, box in self.numbered[:_MOST_BOXES]], dtype=np.float64).reshape(-1, 4)
        clipped = geometry.clip(np.nan_to_num(corners), *size)
        # Small ones last: they lie on top, so that each can be pointed at.
        places = [(int(at) + 1, clipped[at]) for at in np.argsort(-geometry.areas(clipped), kind="stable")]
        holes = [_rect("hole", number, xyxy) for number, xyxy in places]
        areas = [_rect(f"spot {self._colour(self.numbered[at - 1][0])}", at, xyxy) for at, xyxy in places]
        whole = {"width": size[0], "height": size[1]}
        mask = element("mask", element("rect", class_="all", **whole), *holes, id=f"holes-{number}")
        shade = element("rect", class_="shade", mask=f"url(#holes-{number})", **whole)
        box = f"0 0 {size[0]} {size[1]}"
        return element(
            "svg", mask, shade, *areas, class_="spots", viewBox=box, preserveAspectRatio="none", aria_hidden="true"
        )

    def boxes(self) -> Html:
        """A table of the boxes by the numbers that they have on the photo."""
        if not self.numbered:
            return element("p", "No boxes.", class_="empty")
        captioned = any(box.caption for _, box in self.numbered)
        scored = any(box.score is not None for _, box in self.numbered)
        head = ["", "phrase", *(["caption"] if captioned else []), "box", *(["score"] if scored else [])]
        listed = self.numbered[:_MOST_BOXES]
        rows = [self._row(number, *pair, captioned, scored) for number, pair in enumerate(listed, 1)]
        made = dict.fromkeys(box.caption.provenance for _, box in self.numbered if box.caption)
        notes = [element("p", "Region captions: ", provenance(how), class_="quiet") for how in made]
        summary = element("summary", f"{len(self.numbered)} box" + ("es" if len(rows) > 1 else ""))
        rest = _rest(len(self.numbered) - len(rows), "boxes")
        return element("details", summary, table(head, rows), rest, *notes, open=len(rows) <= _OPEN_ROWS)

    def _row(self, number: int, region: int, box: Box, captioned: bool, scored: bool) -> list[object]:
        x1, y1, x2, y2 = box.xyxy
        corners = f"xyxy {x1:.2f}, {y1:.2f}, {x2:.2f}, {y2:.2f}"
        size = element("span", f"{x2 - x1:.0f} x {y2 - y1:.0f}", class_="size", title=corners)
        notes = [note for note, holds in (("pseudo", box.origin == "pseudo"), ("crowd", box.crowd)) if holds]
        return [
            element("span", number, class_=f"chip {self._colour(region)}", **_lights((number,))),
            element("bdi", shown(" / ".join(self.record.regions[region].phrases))),
            *([self._spoken(box.caption)] if captioned else []),
            join([size, *(element("span", note, class_="badge") for note in notes)], " "),
            *([Number("" if box.score is None else f"{box.score:.2f}")] if scored else []),
        ]

    def _spoken(self, caption: Caption | None) -> Html:
        """A caption of one box."""
        return join([element("bdi", self._linked(caption)), _before(caption)]) if caption else Html()

    def _linked(self, caption: Caption) -> Html:
        links = [link for link in caption.links if 0 <= link.region < len(self.record.regions)]
        return marked(
            caption.text,
            [
                _Mark(link.span, self._colour(link.region), self._linked_boxes(link), self._link_title(link))
                for link in links
            ],
        )

    def _link_title(self, link: Link) -> str:
        return f"{_name(self.record.regions[link.region])}, {_numbers_title(self._linked_boxes(link))}"

    def _linked_boxes(self, link: Link) -> tuple[int, ...]:
        boxes = self.record.regions[link.region].boxes
        if link.box is None or not 0 <= link.box < len(boxes):
            return self._numbers(link.region)
        return tuple(number for number, (_, box) in enumerate(self.numbered, 1) if box is boxes[link.box])

    def _colour(self, region: int) -> str:
        return f"c{self.colours[_name(self.record.regions[region])]}"

    def _numbers(self, region: int) -> tuple[int, ...]:
        return tuple(number for number, (owner, _) in enumerate(self.numbered, 1) if owner == region)


@dataclass(frozen=True)
class _Mark:
    span: Span
    class_: str
    numbers: tuple[int, ...] = ()  # of boxes, which light up
    title: str = ""
    written: bool = False  # the numbers, behind the span


def marked(words: str, marks: Sequence[_Mark]) -> Html:
    """A text with its spans marked; where spans cover each other the shortest one shows."""
    length = min(len(words), LONGEST)
    limits = {0, length} | {min(max(edge, 0), length) for mark in marks for edge in mark.span}
    cuts = sorted(limits)
    by_length = sorted(marks, key=lambda mark: mark.span[1] - mark.span[0])
    parts = []
    for start, end in itertools.pairwise(cuts):
        mark = next((m for m in by_length if m.span[0] <= start and end <= m.span[1]), None)
        parts.append(text(words[start:end]) if mark is None else _marked(words[start:end], mark, end))
    return join([*parts, more(words)])


def _marked(words: str, mark: _Mark, end: int) -> Html:
    if mark.class_ == "negative":
        return element("span", words, class_="negative", title=mark.title)
    first = mark.numbers[:3] if mark.written and end == mark.span[1] else ()
    others = f"+{len(mark.numbers) - 3}" if first and len(mark.numbers) > 3 else ""
    numbers = element("sup", ",".join(map(str, first)) + others) if first else None
    return element("mark", words, numbers, class_=mark.class_, title=mark.title, **_lights(mark.numbers))


def _lights(numbers: Sequence[int]) -> dict[str, object]:
    """What makes an element light up boxes when it is pointed at, reached by keyboard or clicked."""
    if not numbers:
        return {}
    return {"data_boxes": " ".join(map(str, numbers)), "tabindex": 0, "role": "button", "aria_pressed": "false"}


def _rect(class_: str, number: int, xyxy: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Html:
    x1, y1 = (f"{value:.1f}" for value in xyxy[:2].tolist())
    width, height = (f"{value:.1f}" for value in (xyxy[2:] - xyxy[:2]).tolist())
    return element("rect", class_=class_, data_box=number, x=x1, y=y1, width=width, height=height)


def _before(caption: Caption) -> Html | None:
    """What the caption was before rules changed it, with what they took out struck."""
    if not caption.raw or caption.raw == caption.text:
        return None
    count = removed_words(caption.raw, caption.text)
    said = element("p", changes(caption.raw, caption.text), dir="auto")
    title = f"as it was answered: {count:,} word{'' if count == 1 else 's'} more"
    return element("details", element("summary", title), said, class_="raw")


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
