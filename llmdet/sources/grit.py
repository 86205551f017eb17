"""GRIT: web photos whose captions a machine grounded (Kosmos-2).

A row of the parquet files; img2dataset writes the same members, with `status`, beside each photo that it fetched:

    {"key": "000127605", "clip_similarity_vitb32": 0.31, "clip_similarity_vitl14": 0.25, "id": 2795296601113,
     "url": "https://example.org/a.jpg", "caption": "a red bicycle against a wall", "width": 800, "height": 600,
     "noun_chunks": [[0, 13, 0.125, 0.25, 0.75, 0.9, 0.81]], "ref_exps": [[0.0, 28.0, 0.125, 0.25, 0.75, 0.9, 0.81]]}

https://huggingface.co/datasets/zzliang/GRIT, MS-PL, 20.5 million rows. An expression is [start, end, x1, y1, x2, y2,
score]: character offsets (floats in parquet), a box of 0..1. `ref_exps` are whole expressions, `noun_chunks` their
heads. Photo `000127605` is file `00012/000127605.jpg`: shard, then key. Read are parquet, lists in json, json lines, a
folder of per-photo json, and the json inside img2dataset's tars (photos are to lie unpacked below `images`).
Photos shrunk by img2dataset have another size than the parquet says: use `size="picture"` then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from llmdet.errors import ImageError
from llmdet.record import Box, Record, Region, Span, record_id
from llmdet.rejects import Kind, Level, Reject
from llmdet.sources.conversations import own_caption
from llmdet.sources.fields import (
    FieldError,
    extra,
    four,
    identity,
    number,
    picture_size,
    rest,
    scaled,
    shown,
    size,
    span,
    text,
    usable,
)
from llmdet.sources.rows import Row, read_rows
from llmdet.sources.source import Item, SourceInfo

_KNOWN = ("key", "caption", "width", "height", "status", "error_message", "json")


@dataclass(frozen=True, kw_only=True)
class Grit:
    """Reads a file or a folder of files. The caption is the text and the source's own caption."""

    annotations: str
    images: str
    name: str = "grit"
    expressions: Literal["ref_exps", "noun_chunks"] = "ref_exps"
    size: Literal["row", "picture"] = "row"  # what the boxes are scaled by
    licence: str = "MS-PL (annotations); terms of each photo"
    address: str = "https://huggingface.co/datasets/zzliang/GRIT"

    def info(self) -> SourceInfo:
        next(self._rows(), None)
        return SourceInfo(self.name, "grit", self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        for row in self._rows():
            try:
                yield from self._items(row)
            except (FieldError, ImageError) as error:
                yield self._reject(f"{self.name}/{row.where}", "record", error)

    def _rows(self) -> Iterator[Row]:
        return read_rows(self.annotations, ("ref_exps", "noun_chunks"), "GRIT")

    def _items(self, row: Row) -> Iterator[Item]:
        if isinstance(row.value, FieldError):
            raise row.value
        value = row.value
        if value.get("status") not in (None, "success"):
            raise FieldError("not_downloaded", shown(f"{value['status']}: {value.get('error_message')}"))
        caption, key = text(value.get("caption"), "caption"), identity(value.get("key"), "key")
        image = f"{key[:5]}/{key}.jpg"
        width, height = size(value) if self.size == "row" else (0, 0)
        if not width:
            width, height = picture_size(self.images, image)
        rows = value.get(self.expressions)
        if not isinstance(rows, list):
            raise FieldError("row_malformed", f"{self.expressions} must be a list, got {shown(rows)}")
        kept: dict[Span, list[Box]] = defaultdict(list)
        record_key = record_id(self.name, key, row.key)
        for order, expression in enumerate(rows):
            try:
                where, box = _expression(expression, order, caption, width, height)
                kept[where].append(box)
            except FieldError as fault:
                yield self._reject(f"{record_key}#{order}", "annotation", fault)
        yield Record(
            id=record_key,
            source=self.name,
            image_id=key,
            text_id=row.key,
            kind="grounding",
            image=image,
            root=self.name,
            width=width,
            height=height,
            text=caption,
            regions=tuple(Region((caption[slice(*at)],), (at,), tuple(boxes)) for at, boxes in kept.items()),
            captions=(own_caption(caption),) if caption.strip() else (),
            licence=self.licence,
            origin=self.address,
            extra=extra(rest(value, (*_KNOWN, self.expressions))),
        )

    def _reject(self, key: str, level: Level, error: FieldError | ImageError) -> Reject:
        kind: Kind = "policy" if error.reason == "not_downloaded" else "fault"
        return Reject(key, level, kind, "ingest", error.reason, error.detail)


def _expression(value: Any, order: int, caption: str, width: int, height: int) -> tuple[Span, Box]:
    """Where an expression stands, and its pixel box with the machine's score."""
    if not isinstance(value, list) or len(value) not in {6, 7}:
        raise FieldError("row_malformed", f"an expression is [start, end, x1, y1, x2, y2, score], got {shown(value)}")
    at = span(value[:2], caption, "offsets")
    box = usable(scaled(four(value[2:6]), width, height), width, height)
    score = number(value[6], "score") if len(value) == 7 else None
    return at, Box(box, order, origin="pseudo", score=score)
