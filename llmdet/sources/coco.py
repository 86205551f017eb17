"""COCO instances: `annotations/instances_{train,val}2017.json`, photos `train2017/000000000009.jpg`.

One annotation of the file (images and categories are two more lists beside it):

    {"segmentation": [[510.66, 423.01, ...]], "area": 702.1, "iscrowd": 0, "image_id": 289343,
     "bbox": [473.07, 395.93, 38.65, 28.67], "category_id": 18, "id": 1768}

https://cocodataset.org, annotations CC BY 4.0, photos under their Flickr licences; 118,287 images and 860,001
annotations in train2017. Ids have 64 bits, category ids have gaps, `info` and `licenses` may be missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import orjson

from llmdet import boxes
from llmdet.detection_text import Negatives, detection_text
from llmdet.errors import FormatError
from llmdet.files import read_json
from llmdet.record import Box, Record, Region, record_id
from llmdet.rejects import Reject
from llmdet.sources.source import Category, Item, SourceInfo

ADDRESS = "https://cocodataset.org"
LICENCE = "CC-BY-4.0 (annotations); Flickr terms (photos)"


@dataclass(frozen=True, kw_only=True)
class Coco:
    """Reads one instances file. One image is one Record: all its classes in one text of names."""

    annotations: str
    images: str
    name: str = "coco"
    negatives: Negatives = "all"  # as LLMDet builds COCO
    crowd: Literal["drop", "keep"] = "drop"  # a crowd box stands for many objects
    masks: bool = True
    exhaustive: bool = True  # all 80 classes are labelled everywhere
    licence: str = LICENCE
    address: str = ADDRESS
    seed: int = 0

    def info(self) -> SourceInfo:
        return SourceInfo(self.name, "coco", self.licence, self.address, self.images, tuple(self._categories.values()))

    def read(self) -> Iterator[Item]:
        names = [category.name for category in self._categories.values()]
        seen: set[str] = set()
        for image in self._document["images"]:
            fault = _image_fault(image)
            image_id = str(image["id"]) if not fault else str(image)[:80]
            if not fault and image_id in seen:
                fault = f"id {image_id} stands twice in the list of images"
            if fault:
                yield self._reject(record_id(self.name, image_id, "0"), "record", "row_malformed", fault)
                continue
            seen.add(image_id)
            yield from self._image_items(image, names)
        yield from self._orphans(seen)

    @cached_property
    def _document(self) -> dict[str, Any]:
        document = read_json(self.annotations)
        lists = ("images", "annotations", "categories")
        got = sorted(document) if isinstance(document, dict) else type(document).__name__
        if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in lists):
            raise FormatError(f"{self.annotations} is not COCO instances: expected the lists {', '.join(lists)}; got {got}")
        return document

    @cached_property
    def _categories(self) -> dict[int, Category]:
        """Categories by id, ascending: a contiguous label is the rank of the id."""
        rows = self._document["categories"]
        if not rows:
            raise FormatError(f"{self.annotations} has an empty list of categories, so its boxes have no names")
        try:
            found = [
                Category(int(row["id"]), row["name"].strip(), {k: v for k, v in row.items() if k not in {"id", "name"}})
                for row in rows
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{self.annotations}: each category needs an integer id and a name ({error!r})") from error
        return {category.id: category for category in sorted(found, key=lambda category: category.id)}

    @cached_property
    def _by_image(self) -> dict[str, list[dict[str, Any]]]:
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in self._document["annotations"]:
            groups[str(row.get("image_id")) if isinstance(row, dict) else "None"].append(row)
        return groups

    def _image_items(self, image: dict[str, Any], names: list[str]) -> Iterator[Item]:
        """The rejects of an image's annotations, then its record."""
        identity = record_id(self.name, str(image["id"]), "0")
        kept: dict[int, list[Box]] = defaultdict(list)
        for order, row in enumerate(self._by_image.get(str(image["id"]), [])):
            box = self._box(row, order, image)
            if isinstance(box, Box):
                kept[row["category_id"]].append(box)
            else:
                yield self._reject(f"{identity}#{_annotation_id(row) or order}", "annotation", *box)
        yield self._record(identity, image, kept, names)

    def _record(self, identity: str, image: dict[str, Any], kept: dict[int, list[Box]], names: list[str]) -> Record:
        positives = [self._categories[key].name for key in kept]
        text, spans = detection_text(positives, names, self.negatives, f"{self.seed}|{identity}")
        regions = [
            Region((name,), (spans[name],), tuple(kept[key]), key) for key, name in zip(kept, positives, strict=True)
        ]
        return Record(
            id=identity,
            source=self.name,
            image_id=str(image["id"]),
            text_id="0",
            kind="detection",
            image=self._file_name(image),
            root=self.name,
            width=image["width"],
            height=image["height"],
            text=text,
            regions=tuple(sorted(regions, key=lambda region: region.spans)),
            negatives=tuple(span for name, span in spans.items() if name not in set(positives)),
            exhaustive=self.exhaustive,
            licence=self._licences.get(image.get("license"), self.licence),
            origin=self.address,
            extra=self._extra(image),
        )

    def _file_name(self, image: dict[str, Any]) -> str:
        return str(image["file_name"])

    def _extra(self, image: dict[str, Any]) -> dict[str, Any]:
        """What else the image row says that an export may need again."""
        return {key: image[key] for key in ("coco_url", "flickr_url", "date_captured", "license") if key in image}

    @cached_property
    def _licences(self) -> dict[Any, str]:
        rows = self._document.get("licenses")
        rows = rows if isinstance(rows, list) else []
        return {row["id"]: str(row.get("name", "")) for row in rows if isinstance(row, dict) and "id" in row}

    def _box(self, row: Any, order: int, image: dict[str, Any]) -> Box | tuple[str, str]:
        """A box, or the (reason, detail) for leaving it out."""
        fault = self._annotation_fault(row)
        if fault:
            return fault
        xyxy = tuple(boxes.from_xywh(row["bbox"]).tolist())
        reason = boxes.fault(xyxy, image["width"], image["height"])
        if reason:
            return reason, f"bbox {row['bbox']} in {image['width']}x{image['height']}"
        if row.get("iscrowd") and self.crowd == "drop":
            return "crowd", "iscrowd 1 stands for a group of objects"
        segmentation = row.get("segmentation") if self.masks else None
        return Box(
            xyxy=xyxy,
            order=order,
            annotation_id=_annotation_id(row),
            area=float(row["area"]) if isinstance(row.get("area"), int | float) else None,
            crowd=bool(row.get("iscrowd")),
            mask=orjson.dumps(segmentation).decode() if segmentation else None,
        )

    def _annotation_fault(self, row: Any) -> tuple[str, str] | None:
        if not isinstance(row, dict):
            return "row_malformed", f"expected an object, got {type(row).__name__}"
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
            return "box_malformed", f"expected bbox [x, y, w, h], got {box!r}"
        if row.get("category_id") not in self._categories:
            return "category_unknown", f"category_id {row.get('category_id')!r} is not in the list of categories"
        if row.get("ignore"):
            return "ignored", "marked ignore"
        return None

    def _orphans(self, seen: set[str]) -> Iterator[Reject]:
        for image_id, rows in self._by_image.items():
            if image_id not in seen:
                for row in rows:
                    identity = f"{record_id(self.name, image_id, '0')}#{_annotation_id(row)}"
                    yield self._reject(identity, "annotation", "image_unknown", f"image_id {image_id} is not in the list of images")

    def _reject(self, identity: str, level: Literal["annotation", "record"], reason: str, detail: str) -> Reject:
        kind: Literal["policy", "fault"] = "policy" if reason in {"crowd", "ignored"} else "fault"
        return Reject(identity, level, kind, "ingest", reason, detail)


def _image_fault(image: Any) -> str | None:
    if not isinstance(image, dict):
        return f"an image must be an object, got {type(image).__name__}"
    wanted: dict[str, type | tuple[type, ...]] = {"id": (int, str), "width": int, "height": int}
    wrong = [key for key, kind in wanted.items() if not isinstance(image.get(key), kind)]
    if not (isinstance(image.get("file_name"), str) or isinstance(image.get("coco_url"), str)):
        wrong.append("file_name")
    return f"an image needs id, width, height and file_name; missing or of another type: {wrong}" if wrong else None


def _annotation_id(row: Any) -> str | None:
    value = row.get("id") if isinstance(row, dict) else None
    return None if value is None else str(value)
