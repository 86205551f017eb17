"""Visual Genome: `region_descriptions.json`, or `objects.json` or `attributes.json`, each with `image_data.json`.

One item of region_descriptions, objects and image_data:

    {"id": 61, "regions": [{"region_id": 2871, "image_id": 61, "phrase": "a lamp on the desk", "x": 40, "y": 12,
     "width": 88, "height": 130}, ...]}
    {"image_id": 61, "image_url": "...", "objects": [{"object_id": 5055, "names": ["lamp"], "synsets": ["lamp.n.02"],
     "x": 44, "y": 14, "w": 80, "h": 121}, ...]}
    {"image_id": 61, "width": 800, "height": 600, "coco_id": null, "flickr_id": null,
     "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/61.jpg"}

https://homes.cs.washington.edu/~ranjay/visualgenome, CC BY 4.0; 108,077 photos, 5.4 M region descriptions, 3.8 M
objects. A description is a record of its own (`join` at ingest puts those of a photo together); equal ones of a photo,
up to case and full stop, are one record with several boxes. The whole phrase, without a full stop, is the region.
Objects make one record of names for each photo, `text_id` "objects"; `extra` keeps their further names, synsets and
attributes. Sizes and folders (`VG_100K/`, `VG_100K_2/`) come from image_data; without it a photo is `<id>.jpg`, whose
size ingest reads. The file is read in pieces.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from llmdet.detection_text import detection_text
from llmdet.errors import FormatError
from llmdet.files import iter_json_list
from llmdet.record import Box, Record, Region, record_id
from llmdet.rejects import Level, Reject
from llmdet.sources.fields import INT32_MAX, FieldError, extra, identity, number, rest, shown, size, text, usable
from llmdet.sources.source import Item, SourceInfo

ADDRESS = "https://homes.cs.washington.edu/~ranjay/visualgenome"
LICENCE = "CC-BY-4.0"

# What an item lists, and the members of one of them that a Record holds.
_LISTS = {
    "regions": ("region_id", "image_id", "phrase", "x", "y", "width", "height"),
    "objects": ("object_id", "x", "y", "w", "h"),
    "attributes": ("object_id", "x", "y", "w", "h"),
}
_FOLDER = re.compile(r"(VG_100K(?:_2)?/[^/]+)$")


@dataclass(frozen=True, slots=True)
class _Photo:
    """Where a photo lies, and its size; (0, 0) where nobody said."""

    id: str
    path: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class VisualGenome:
    """Reads one file of descriptions, objects or attributes."""

    annotations: str
    images: str
    name: str = "visual_genome"
    image_data: str = ""  # address of image_data.json
    layout: Literal["folders", "flat"] = "folders"  # photos as the two archives unpack, or all in one folder (GQA's)
    licence: str = LICENCE
    address: str = ADDRESS
    seed: int = 0

    def info(self) -> SourceInfo:
        """What the source says of itself; names are free text, so there are no categories."""
        return SourceInfo(self.name, "visual_genome", self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        """Records in the order of the file. Raises FormatError, MissingError."""
        seen: set[str] = set()
        for index, item in enumerate(iter_json_list(self.annotations)):
            kind = next((kind for kind in _LISTS if isinstance(item, dict) and kind in item), None)
            if kind is None and index == 0:
                raise FormatError(
                    f"{self.annotations} is not of Visual Genome: expected items with regions, objects or attributes; "
                    f"got {shown(sorted(item) if isinstance(item, dict) else item)}"
                )
            try:
                photo, rows = self._photo(item, kind)
                if photo.id in seen:
                    raise FieldError("image_repeated", f"item {index} is of photo {photo.id}, which came before")
                seen.add(photo.id)
            except FieldError as fault:
                yield self._reject(record_id(self.name, f"items[{index}]", "0"), "record", fault)
                continue
            yield from self._regions(photo, rows) if kind == "regions" else self._objects(photo, rows, kind or "")

    def _photo(self, item: Any, kind: str | None) -> tuple[_Photo, list[Any]]:
        """The photo of an item and the rows of its list."""
        if kind is None or not isinstance(item[kind], list):
            raise FieldError(
                "row_malformed", f"expected an object with a list of {' or '.join(_LISTS)}, got {shown(item)}"
            )
        key = identity(item.get("image_id", item.get("id")), "image_id")
        if not self.image_data:
            return _Photo(key, f"{key}.jpg", 0, 0), item[kind]
        if key not in self._photos:
            raise FieldError("image_unknown", f"photo {key} is not in {self.image_data}, or not with a size")
        return self._photos[key], item[kind]

    @cached_property
    def _photos(self) -> dict[str, _Photo]:
        """Photos of image_data by id, of the rows that can be used."""
        found: dict[str, _Photo] = {}
        for row in iter_json_list(self.image_data):
            try:
                key = identity(row.get("image_id", row.get("id")) if isinstance(row, dict) else None)
                width, height = size(row)
                place = (
                    _FOLDER.search(row["url"]) if self.layout == "folders" and isinstance(row.get("url"), str) else None
                )
            except FieldError:
                continue  # a photo that is asked for later is then rejected as image_unknown
            if width:
                found[key] = _Photo(key, place[1] if place else f"{key}.jpg", width, height)
        if not found:
            raise FormatError(
                f"{self.image_data} is not Visual Genome's image_data: no item has image_id, width and height"
            )
        return found

    def _regions(self, photo: _Photo, rows: list[Any]) -> Iterator[Item]:
        """Rejects of descriptions, then a record for each phrase."""
        phrases: dict[str, list[tuple[str, str, Box, dict[str, Any]]]] = defaultdict(list)
        for order, row in enumerate(rows):
            try:
                said = _phrase(row)
                box = _box(row, order, photo, "region_id", ("width", "height"))
                more = extra(rest(row, _LISTS["regions"]))
                phrases[said.rstrip(". ").casefold()].append((said, box.annotation_id or f"r{order}", box, more))
            except FieldError as fault:
                yield self._reject(
                    f"{record_id(self.name, photo.id, '0')}#{_told(row, 'region_id', order)}", "annotation", fault
                )
        taken: set[str] = set()
        for group in phrases.values():
            said, key = group[0][:2]
            key = key if key not in taken else f"{key}-{group[0][2].order}"
            taken.add(key)
            span = (0, len(said.rstrip(". ")))
            region = Region((said[slice(*span)],), (span,), tuple(box for _, _, box, _ in group))
            more = {str(box.order): other for _, _, box, other in group if other}
            yield self._record(photo, key, "grounding", said, (region,), more)

    def _objects(self, photo: _Photo, rows: list[Any], kind: str) -> Iterator[Item]:
        """Rejects of objects, then the record of their names."""
        kept: dict[str, list[Box]] = defaultdict(list)
        more: dict[str, dict[str, Any]] = {}
        record = record_id(self.name, photo.id, "objects")
        for order, row in enumerate(rows):
            try:
                said = _first_name(row)
                box = _box(row, order, photo, "object_id", ("w", "h"))
                other = rest(row, _LISTS[kind])
                if other.get("names") == [said]:
                    del other["names"]
                if kept_beside := extra(other):
                    more[str(order)] = kept_beside
                kept[said].append(box)
            except FieldError as fault:
                yield self._reject(f"{record}#{_told(row, 'object_id', order)}", "annotation", fault)
        said, spans = detection_text(kept, (), "dynamic", f"{self.seed}|{record}")
        regions = sorted(
            (Region((name,), (spans[name],), tuple(found)) for name, found in kept.items()), key=lambda r: r.spans
        )
        yield self._record(photo, "objects", "detection", said, tuple(regions), more)

    def _record(
        self,
        photo: _Photo,
        key: str,
        kind: Literal["detection", "grounding"],
        said: str,
        regions: tuple[Region, ...],
        more: Mapping[str, dict[str, Any]],
    ) -> Record:
        return Record(
            id=record_id(self.name, photo.id, key),
            source=self.name,
            image_id=photo.id,
            text_id=key,
            kind=kind,
            image=photo.path,
            root=self.name,
            width=photo.width,
            height=photo.height,
            text=said,
            regions=regions,
            licence=self.licence,
            origin=self.address,
            extra={"annotations": dict(more)} if more else {},
        )

    def _reject(self, where: str, level: Level, fault: FieldError) -> Reject:
        return Reject(where, level, "fault", "ingest", fault.reason, fault.detail)


def _phrase(row: Any) -> str:
    if not isinstance(row, dict):
        raise FieldError("row_malformed", f"a region must be an object, got {shown(row)}")
    said = text(row.get("phrase"), "phrase").strip()
    if not said.rstrip(". "):
        raise FieldError("phrase_empty", f"phrase {shown(said)} has no words")
    return said


def _first_name(row: Any) -> str:
    """The first of an object's names, which later ones correct or vary."""
    names = row.get("names", [row.get("name")]) if isinstance(row, dict) else None
    if not isinstance(names, list) or not names:
        raise FieldError("row_malformed", f"an object needs a list of names, got {shown(row)}")
    said = text(names[0], "names[0]").strip()
    if not said:
        raise FieldError("phrase_empty", "the first name is blank")
    return said


def _box(row: Mapping[str, Any], order: int, photo: _Photo, key: str, sides: tuple[str, str]) -> Box:
    x, y, w, h = (number(row.get(side), side, "box_malformed") for side in ("x", "y", *sides))
    # Where the size is not known yet, ingest checks again.
    found = usable((x, y, x + w, y + h), photo.width or INT32_MAX, photo.height or INT32_MAX)
    return Box(found, order, annotation_id=None if row.get(key) is None else identity(row[key], key))


def _told(row: Any, key: str, order: int) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    return str(value) if isinstance(value, int) and abs(value) < 2**64 else str(order)
