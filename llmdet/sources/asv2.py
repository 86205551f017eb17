"""All-Seeing V2: relation conversations, scene graphs told in sentences; LLMDet took the 42,000 descriptions.

The answer of a row of `rec_detailed_description_wo_square_pad.json`; objects are followed by their boxes, relations by
the boxes of their subjects and of their objects:

    {"id": 0, "image": "coco/train2017/000000121586.jpg", "conversations": [
      {"from": "human", "value": "<image>\\nProvide a scene graph caption of the given image."},
      {"from": "gpt", "value": "A
        <ref>dog</ref><box>[[120, 300, 480, 910]]</box> is <pred>lying on</pred><box>[[120, 300, 480, 910]]</box>
        <box>[[0, 500, 999, 999]]</box> a <ref>sofa</ref><box>[[0, 500, 999, 999]]</box>."}]}

https://huggingface.co/datasets/OpenGVLab/AS-V2, Apache-2.0; 127,000 rows, 42,000 of them descriptions, over COCO's
photos. Coordinates are whole numbers of 0..999; in the files without `wo_square_pad` in their name they count on the
photo padded to a square. Photos are opened for their size.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import orjson

from llmdet import boxes
from llmdet.attaching import photo_key
from llmdet.boxes import XYXY
from llmdet.errors import ImageError
from llmdet.record import Box, Caption, Link, Record, Region, Span, record_id
from llmdet.rejects import Kind, Level, Reject
from llmdet.sources.conversations import read_conversation
from llmdet.sources.fields import FieldError, extra, four, picture_size, rest, scaled, shown, usable
from llmdet.sources.rows import Row, read_rows
from llmdet.sources.sharegpt4v import photo_in
from llmdet.sources.source import Item, SourceInfo

SCALE = 999
_TAG = re.compile(r"(</?(?:ref|pred|box)>)")
_POLICIES = {"other_images", "caption_missing", "caption_empty"}


@dataclass(frozen=True, kw_only=True)
class Asv2:
    """Reads the rows whose photo lies in `folder`. The text is the answer without its marks."""

    annotations: str
    images: str
    name: str = "asv2"
    folder: str = "train2017"  # below which a row's photo lies; "" takes all rows, their paths unchanged
    padded: Literal["auto", "square", "none"] = "auto"  # auto: by the name of the file
    licence: str = "Apache-2.0 (texts); Flickr terms (photos)"
    address: str = "https://huggingface.co/datasets/OpenGVLab/AS-V2"

    def info(self) -> SourceInfo:
        next(self._rows(), None)
        return SourceInfo(self.name, "asv2", self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        for row in self._rows():
            try:
                yield from self._items(row)
            except (FieldError, ImageError) as error:
                yield self._reject(f"{self.name}/{row.where}", "record", error)

    def _rows(self) -> Iterator[Row]:
        return read_rows(self.annotations, ("conversations",), "AS-V2")

    def _items(self, row: Row) -> Iterator[Item]:
        if isinstance(row.value, FieldError):
            raise row.value
        image = photo_in(self.folder, row.value.get("image"))
        answer, turns = read_conversation(row.value.get("conversations"))
        sentence, mentions = read_marks(answer)
        width, height = picture_size(self.images, image)
        key = record_id(self.name, photo_key(image), row.key)
        place = _Place(width, height, self._is_padded(row.where))
        regions: list[Region] = []
        relations: list[dict[str, Any]] = []
        order = 0
        for index, mention in enumerate(mentions):
            groups, faults = mention.place(place)
            for fault in faults:
                yield self._reject(f"{key}#{index}", "annotation", fault)
            if mention.kind == "pred":
                lists = [[list(box) for box in group] for group in groups]
                relations.append({"span": list(mention.span), "boxes": lists})
                continue
            found = [box for group in groups for box in group]
            if found:
                phrase = sentence[slice(*mention.span)]
                kept = tuple(Box(box, order + number) for number, box in enumerate(found))
                regions.append(Region((phrase,), (mention.span,), kept))
                order += len(found)
        links = tuple(Link(region.spans[0], index) for index, region in enumerate(regions))
        yield Record(
            id=key,
            source=self.name,
            image_id=photo_key(image),
            text_id=row.key,
            kind="grounding",
            image=image,
            root=self.name,
            width=width,
            height=height,
            text=sentence,
            regions=tuple(regions),
            captions=(Caption(text=sentence, raw=answer, links=links),),
            licence=self.licence,
            origin=self.address,
            extra=extra({**turns, **rest(row.value, ("image", "conversations")), "relations": relations or None}),
        )

    def _is_padded(self, where: str) -> bool:
        """`auto`: only names that say so are without; `where` names the file of the row."""
        return self.padded == "square" or (self.padded == "auto" and "wo_square_pad" not in posixpath.basename(where))

    def _reject(self, key: str, level: Level, error: FieldError | ImageError) -> Reject:
        kind: Kind = "policy" if error.reason in _POLICIES else "fault"
        return Reject(key, level, kind, "ingest", error.reason, error.detail)


@dataclass(frozen=True, slots=True)
class _Place:
    """What turns coordinates of 0..999 into pixels of the photo."""

    width: int
    height: int
    padded: bool

    def pixels(self, value: Any) -> XYXY:
        box = four(value, "box")
        if not self.padded:
            return usable(scaled(box, self.width / SCALE, self.height / SCALE), self.width, self.height)
        side = max(self.width, self.height)
        x1, y1, x2, y2 = scaled(box, side / SCALE, side / SCALE)
        left, top = (side - self.width) // 2, (side - self.height) // 2
        # Rounding to thousandths lets boxes reach into the padding, where there is no photo.
        inside = boxes.clip(np.array([x1 - left, y1 - top, x2 - left, y2 - top]), self.width, self.height)
        a, b, c, d = inside.tolist()
        return usable((a, b, c, d), self.width, self.height)


@dataclass(frozen=True, slots=True)
class Mention:
    """An object or a relation that the text names, and the lists of boxes behind it as they came."""

    kind: Literal["ref", "pred"]
    span: Span
    groups: list[str] = field(default_factory=list)

    def place(self, place: _Place) -> tuple[list[list[XYXY]], list[FieldError]]:
        """Pixel boxes, a list for each list of the file, and what was left out."""
        found: list[list[XYXY]] = []
        faults: list[FieldError] = []
        for group in self.groups:
            found.append([])
            for value in _list(group):
                try:
                    found[-1].append(place.pixels(value))
                except FieldError as fault:
                    faults.append(fault)
        return found, faults


def read_marks(answer: str) -> tuple[str, list[Mention]]:
    """The answer without its marks, and what they marked. Raises FieldError where marks do not pair."""
    plain: list[str] = []
    mentions: list[Mention] = []
    opened, start, length = "", 0, 0
    for piece in _TAG.split(answer):
        if not _TAG.fullmatch(piece):
            if opened == "box":
                mentions[-1].groups.append(piece)
            else:
                plain.append(piece)
                length += len(piece)
        elif not piece.startswith("</"):
            if opened or (piece == "<box>" and not mentions):
                raise FieldError("marks_malformed", f"{piece} inside {opened or 'no phrase'} in {shown(answer)}")
            opened, start = piece[1:-1], length
        else:
            if piece[2:-1] != opened or (opened != "box" and start == length):
                raise FieldError("marks_malformed", f"{piece} ends {opened or 'nothing'} in {shown(answer)}")
            if opened != "box":
                mentions.append(Mention("ref" if opened == "ref" else "pred", (start, length)))
            opened = ""
    if opened:
        raise FieldError("marks_malformed", f"<{opened}> does not end in {shown(answer)}")
    return "".join(plain), mentions


def _list(group: str) -> list[Any]:
    """The boxes of one mark; what is no list is handed on as one bad box."""
    try:
        value = orjson.loads(group)
    except orjson.JSONDecodeError:
        return [group]
    return value if isinstance(value, list) and value else [value]
