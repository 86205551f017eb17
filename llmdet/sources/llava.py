"""LLaVA's files: captions as conversations, or captions with boxes.

A row of `blip_laion_cc_sbu_558k.json` (LLaVA-Pretrain), one of `LLaVA-ReCap-558K/*.parquet` (the picture is inside, as
`{"bytes": ..., "path": ...}`), and a line of a file of captions and boxes (0..1, x1 y1 x2 y2):

    {"id": "003218840", "image": "00321/003218840.jpg", "conversations": [
      {"from": "human", "value": "Give a brief description of the image.\\n<image>"},
      {"from": "gpt", "value": "a wooden chair with a red cushion"}]}
    {"id": "003218840", "image": {...}, "conversations": [...], "data_source": "blip558k"}
    {"id": "000000017714", "image": "000000017714.jpg", "captions": ["A bowl of soup."],
     "instances": [{"category": "bowl", "bbox": [0.125, 0.05, 0.975, 0.8]}]}

https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain (terms of CC-3M and BLIP) and
https://huggingface.co/datasets/lmms-lab/LLaVA-ReCap-558K; 558,128 rows each, with the same ids. Mixed files of
instruction tuning have rows without image, ids that are numbers, and several turns: the first answer is the caption.
A record of captions has no text and no size until somebody grounds it and opens its picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from llmdet import files
from llmdet.detection_text import detection_text
from llmdet.errors import ImageError, MissingError
from llmdet.record import Box, Caption, Record, Region, record_id
from llmdet.rejects import Kind, Level, Reject
from llmdet.sources.conversations import own_caption, read_conversation
from llmdet.sources.fields import (
    FieldError,
    extra,
    four,
    identity,
    picture_size,
    rest,
    scaled,
    shown,
    text,
    texts,
    usable,
)
from llmdet.sources.rows import Row, read_rows
from llmdet.sources.source import Item, SourceInfo

_KNOWN = ("id", "image", "conversations", "captions", "instances")
_POLICIES = {"no_image", "several_images", "other_images", "caption_missing", "caption_empty"}
_SIGNATURES = {b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp"}


@dataclass(frozen=True, kw_only=True)
class Llava:
    """Reads json, jsonl or parquet, or a folder of them. `text_id` is the number of the row."""

    annotations: str
    images: str
    name: str = "llava"
    unpack: bool = True  # write embedded pictures below `images`; else take what lies there under the row's id
    licence: str = "terms of CC-3M and BLIP (captions); terms of each photo"
    address: str = "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain"
    seed: int = 0  # of the order of names where there are boxes

    def info(self) -> SourceInfo:
        next(self._rows(), None)
        return SourceInfo(self.name, "llava", self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        for row in self._rows():
            try:
                yield from self._items(row)
            except (FieldError, ImageError) as error:
                yield self._reject(f"{self.name}/{row.where}", "record", error)

    def _rows(self) -> Iterator[Row]:
        return read_rows(self.annotations, ("conversations", "captions"), "a LLaVA file")

    def _items(self, row: Row) -> Iterator[Item]:
        if isinstance(row.value, FieldError):
            raise row.value
        value = row.value
        captions, turns = _captions(value)
        image = self._image(value, row.where)
        image_id = self._image_id(value, image)
        key = record_id(self.name, image_id, row.key)
        record = Record(
            id=key,
            source=self.name,
            image_id=image_id,
            text_id=row.key,
            kind="grounding",
            image=image,
            root=self.name,
            width=0,
            height=0,
            text="",
            captions=captions,
            licence=self.licence,
            origin=self.address,
            extra=extra({**turns, **_number_id(value), **rest(value, _KNOWN)}),
        )
        if value.get("instances") is None:
            yield record
        else:
            yield from self._with_boxes(record, value["instances"])

    def _image(self, row: dict[str, Any], where: str) -> str:
        """The picture's path below `images`; an embedded one is written there first."""
        value = row.get("image")
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) or (value is None and ".parquet:" in where):
            name = identity(row.get("id"))
            return self._unpacked(f"{name[:5]}/{name}" if len(name) > 5 else name, value if self.unpack else None)
        if value is None or value == "":
            raise FieldError("no_image", "a row of text only")
        if isinstance(value, list):
            raise FieldError("several_images", f"a record has one image, got {shown(value)}")
        return text(value, "image")

    def _image_id(self, row: dict[str, Any], image: str) -> str:
        return identity(row["id"]) if row.get("id") is not None else image

    def _unpacked(self, stem: str, data: bytes | None) -> str:
        if data is None:
            return f"{stem}.jpg"
        suffix = _SIGNATURES.get(data[:4], ".jpg")
        for name in (f"{stem}{suffix}", f"{stem}-{files.sha256(data)[:12]}{suffix}"):
            url = files.safe_join(self.images, name)
            try:
                there = files.read_bytes(url)
            except MissingError:
                files.write_bytes(url, data)
                return name
            if there == data:
                return name
        raise FieldError("row_malformed", f"another file has the name {name}")

    def _with_boxes(self, record: Record, instances: Any) -> Iterator[Item]:
        """The rejects of boxes, then the record with a text of names."""
        if not isinstance(instances, list):
            raise FieldError("row_malformed", f"instances must be a list, got {shown(instances)}")
        width, height = picture_size(self.images, record.image)
        kept: dict[str, list[Box]] = defaultdict(list)
        for order, instance in enumerate(instances):
            try:
                name, box = _instance(instance, width, height)
                kept[name].append(Box(box, order))
            except FieldError as fault:
                yield self._reject(f"{record.id}#{order}", "annotation", fault)
        names, spans = detection_text(kept, [], "dynamic", f"{self.seed}|{record.id}")
        regions = [Region((name,), (spans[name],), tuple(boxes)) for name, boxes in kept.items()]
        regions.sort(key=lambda region: region.spans)
        yield replace(record, width=width, height=height, kind="detection", text=names, regions=tuple(regions))

    def _reject(self, key: str, level: Level, error: FieldError | ImageError) -> Reject:
        kind: Kind = "policy" if error.reason in _POLICIES else "fault"
        return Reject(key, level, kind, "ingest", error.reason, error.detail)


def _captions(row: dict[str, Any]) -> tuple[tuple[Caption, ...], dict[str, Any]]:
    """The row's captions, and what gives its conversation back."""
    if row.get("captions") is not None:
        return tuple(own_caption(said) for said in texts(row["captions"], "captions")), {}
    answer, turns = read_conversation(row.get("conversations"))
    return (own_caption(answer),), turns


def _number_id(row: dict[str, Any]) -> dict[str, Any]:
    """An id that is a number, so that it can be written as one again."""
    return {"id": row["id"]} if isinstance(row.get("id"), int) else {}


def _instance(row: Any, width: int, height: int) -> tuple[str, tuple[float, float, float, float]]:
    """Name and pixel box of an instance."""
    if not isinstance(row, dict):
        raise FieldError("row_malformed", f"an instance must be an object, got {shown(row)}")
    name = text(row.get("category"), "category")
    if not name:
        raise FieldError("row_malformed", "category is empty")
    return name, usable(scaled(four(row.get("bbox")), width, height), width, height)
