"""COCO instances, one JSON document that pycocotools and nearly every detector reads.

    {"info": {...}, "licenses": [...],
     "images": [{"id": 9, "file_name": "000000000009.jpg", "height": 480, "width": 640}],
     "annotations": [{"id": 1768, "image_id": 9, "category_id": 18, "bbox": [473.07, 395.93, 38.65, 28.67],
                      "area": 702.1, "iscrowd": 0, "segmentation": [[510.66, 423.01, ...]]}],
     "categories": [{"supercategory": "animal", "id": 18, "name": "dog"}]}

Several records of one image give one image. One source keeps its image, annotation and category ids; of several
sources all are numbered anew. A region without a category becomes the category of its first phrase. A pseudo box
carries `score`. Cannot hold: the grounding text, spans and negatives, captions, tags; nor that a picture is not
searched in full, so a class of which ingest left a crowd out reads as absent: ingest with `crowd=keep`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson
import pyarrow as pa

from llmdet import boxes, files
from llmdet.exports.document import Rows, write_document
from llmdet.exports.exporter import SUFFIXES, ByRecord, Exported, Sources, Tally
from llmdet.exports.pictures import Pictures
from llmdet.exports.vocabulary import Vocabulary
from llmdet.record import Box, Record, Region
from llmdet.sources.source import Category

# Boxes that have no id of their own are numbered from here: above COCO's ids (of up to 2**40), exact as a double.
FIRST_FREE_ID = 2**50
# Members of `Record.extra` that are about something else than the picture.
_NOT_OF_IMAGE = {"annotations", "phrases", "human", "conversations", "checks"}


@dataclass(frozen=True, kw_only=True)
class Coco(ByRecord):
    """Writes `instances.json`."""

    cannot_hold: ClassVar[str] = (
        "COCO holds boxes and categories; no grounding text or spans, no negatives, captions or tags"
    )
    holds: ClassVar[frozenset[str]] = frozenset({"masks", "scores", "annotation ids", "areas"})

    compression: files.Compression | None = None

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        name = f"instances.json{SUFFIXES[self.compression]}"
        pictures, tally = Pictures(out, self.images, sources), Tally()
        with Rows() as images, Rows() as annotations:
            numbers = Numbers(single=len(sources) == 1)
            vocabulary = Vocabulary(sources)
            for record in self.records(batches, pictures, tally):
                image_id, new = numbers.image(record)
                if new:
                    images.add(image_row(record, image_id, self.filename(record)))
                for box, region in boxes_in_order(record):
                    category_id = vocabulary.id_at(vocabulary.index(record, region))
                    annotations.add(annotation_row(record, box, numbers.box(box), image_id, category_id))
                count(record, tally)
            head = {"info": {"description": ", ".join(sources)}, "licenses": numbers.licences}
            tail = {"categories": [category_row(category) for category in vocabulary.categories]}
            write_document(
                files.join(out, name), {**head, "images": images, "annotations": annotations, **tail}, self.compression
            )
        return tally.exported(name, *pictures.written)


@dataclass(slots=True)
class Numbers:
    """Ids of images, boxes and licences."""

    single: bool  # one source: its own ids can stay
    _images: dict[tuple[str, str], int | str] = field(default_factory=dict)
    _texts: set[int] = field(default_factory=set)
    _boxes: set[int | str] = field(default_factory=set)
    _licences: dict[Any, str] = field(default_factory=dict)
    _free: int = 0

    def image(self, record: Record) -> tuple[int | str, bool]:
        """The id of a record's image, and whether it is the first record of it."""
        key = (record.source, record.image_id)
        if key in self._images:
            return self._images[key], False
        self._images[key] = own_id(record.image_id) if self.single else len(self._images) + 1
        if "license" in record.extra:
            self._licences.setdefault(record.extra["license"], record.licence)
        return self._images[key], True

    def text(self, record: Record) -> int:
        """The id of a record where each text counts as an image: the source's own (`extra["id"]`) where it is free."""
        own = record.extra.get("id") if self.single else None
        number = own if isinstance(own, int) and own not in self._texts else len(self._texts)
        while number in self._texts:
            number += FIRST_FREE_ID
        self._texts.add(number)
        return number

    def box(self, box: Box) -> int | str:
        """The id of a box; one that stands under several texts has its own id once only."""
        own = own_id(box.annotation_id) if self.single and box.annotation_id is not None else None
        if own is not None and own not in self._boxes:
            self._boxes.add(own)
            return own
        self._free += 1
        return self._free + (FIRST_FREE_ID if self.single else 0)

    @property
    def licences(self) -> list[dict[str, Any]]:
        """The `licenses` that the image rows point at."""
        return [{"id": number, "name": name} for number, name in self._licences.items()]


def own_id(text: str) -> int | str:
    """The number that an id is, where it is one: "139" is 139, "0139" and "a" stay."""
    return int(text) if text.isdecimal() and text.isascii() and str(int(text)) == text else text


def boxes_in_order(record: Record) -> list[tuple[Box, Region]]:
    """All boxes as the source listed them, each with its region."""
    pairs = [(box, region) for region in record.regions for box in region.boxes]
    return sorted(pairs, key=lambda pair: pair[0].order)


def image_row(record: Record, image_id: int | str, filename: str) -> dict[str, Any]:
    """An image with what else its source said of it."""
    own = {"id": image_id, "file_name": filename, "height": record.height, "width": record.width}
    return own | {key: value for key, value in record.extra.items() if key not in own and key not in _NOT_OF_IMAGE}


def annotation_row(
    record: Record, box: Box, number: int | str, image_id: int | str, category_id: int
) -> dict[str, Any]:
    """A box in xywh. The area is the mask's where the source gave it, else the box's."""
    xywh = boxes.to_xywh(box.xyxy)
    row: dict[str, Any] = {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": xywh,
        "area": xywh[2] * xywh[3] if box.area is None else box.area,
        "iscrowd": int(box.crowd),
        "segmentation": orjson.Fragment(box.mask) if box.mask else [],
    }
    if box.score is not None:
        row["score"] = box.score
    return {**said_of_box(record, box), **row}


def said_of_box(record: Record, box: Box) -> dict[str, Any]:
    """What the source said of a box beyond the fields of a Box."""
    said = record.extra.get("annotations", {}).get(str(box.order), {})
    return dict(said)


def category_row(category: Category) -> Mapping[str, Any]:
    """A category with what else its source said of it."""
    return {"id": category.id, "name": category.name, **category.extra}


def count(record: Record, tally: Tally, crowds: bool = True) -> None:
    """Add a record and its boxes; a record of sentences loses its text."""
    found = [box for region in record.regions for box in region.boxes if crowds or not box.crowd]
    tally.add(len(found))
    tally.lose("sentences", record.kind == "grounding")
    tally.lose("crowd boxes", sum(len(region.boxes) for region in record.regions) - len(found))
