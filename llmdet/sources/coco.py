"""COCO instances: `annotations/instances_{train,val}2017.json`, photos `train2017/000000000009.jpg`.

One annotation of the file (images and categories are two more lists beside it):

    {"segmentation": [[510.66, 423.01, ...]], "area": 702.1, "iscrowd": 0, "image_id": 289343,
     "bbox": [473.07, 395.93, 38.65, 28.67], "category_id": 18, "id": 1768}

https://cocodataset.org, annotations CC BY 4.0, photos under their Flickr licences; 118,287 images and 860,001
annotations in train2017. Ids have 64 bits, category ids have gaps, `info` and `licenses` may be missing. LVIS, V3Det
and Objects365 are read by thin subclasses that say what differs: `_path`, `_category`, `_names`, `_beside`, `_avoid`,
`_known_absent`, `_policy`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import orjson

from llmdet.detection_text import Negatives, detection_text
from llmdet.errors import FormatError
from llmdet.files import read_json
from llmdet.record import Box, Record, Region, record_id
from llmdet.rejects import Level, Reject
from llmdet.sources.fields import FieldError, extra, four, identity, number, rest, shown, text, usable, whole
from llmdet.sources.source import Category, Item, SourceInfo

ADDRESS = "https://cocodataset.org"
LICENCE = "CC-BY-4.0 (annotations); Flickr terms (photos)"

_IMAGE_KEYS = ("id", "width", "height", "file_name")
_ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "ignore")
# Reasons that are a choice; every other reason is a fault.
_POLICIES = {"crowd", "ignored", "fake", "reflected", "photo_known_missing"}


@dataclass(frozen=True, slots=True)
class Photo:
    """A checked row of the list of images."""

    id: str
    path: str  # relative to the image root
    width: int  # pixels
    height: int
    row: dict[str, Any]
    extra: dict[str, Any]  # what the row says beyond the fields of a Record


@dataclass(frozen=True, kw_only=True)
class Coco:
    """Reads one instances file. One image is one Record: all its classes in one text of names.

    A class of which an annotation was left out (a crowd) is in nobody's list of absent names.
    """

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

    form: ClassVar[str] = "coco"

    def info(self) -> SourceInfo:
        """What the file says of itself. Raises FormatError, MissingError."""
        categories = tuple(self._categories.values())
        return SourceInfo(self.name, self.form, self.licence, self.address, self.images, categories)

    def read(self) -> Iterator[Item]:
        """Records in the order of `images`, then what is left of the annotations. Raises FormatError, MissingError."""
        self._categories  # noqa: B018  a file without names is refused before its first record
        seen: set[str] = set()
        for index, row in enumerate(self._document["images"]):
            try:
                photo = self._photo(row)
                if photo.id in seen:
                    raise FieldError("image_repeated", f"id {photo.id} stands in the list of images before")
            except FieldError as fault:
                yield self._reject(record_id(self.name, _told_image(row, index), "0"), "record", fault)
                continue
            seen.add(photo.id)
            yield from self._photo_items(photo)
        yield from self._orphans(seen)

    # --- what the subclasses change --------------------------------------------------------------------------------

    def _path(self, row: Mapping[str, Any]) -> str:
        """Path of a photo below the image root."""
        return text(row.get("file_name"), "file_name")

    def _category(self, row: Mapping[str, Any]) -> Category:
        """A row of the list of categories under the name that stands in texts."""
        return Category(_id64(row.get("id")), text(row.get("name"), "name").strip(), extra(rest(row, ("id", "name"))))

    def _names(self, identity: str) -> Mapping[int, str]:
        """What the categories are called in one record, by id; without those that have no name."""
        return self._named

    def _beside(self, photo: Photo) -> list[str]:
        """Names that stand in the text beside those with boxes, whatever is drawn."""
        return []

    def _avoid(self, positives: Iterable[int]) -> Collection[str]:
        """Names that must not be drawn beside these categories."""
        return ()

    def _known_absent(self, photo: Photo, names: set[str]) -> set[str]:
        """Which of the names without a box the annotators know to be absent."""
        return names

    def _policy(self, row: Mapping[str, Any]) -> FieldError | None:
        """Why a sound annotation is left out all the same."""
        if row.get("iscrowd") and self.crowd == "drop":
            return FieldError("crowd", "iscrowd 1 stands for a group of objects")
        return None

    def _box_extra(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What an annotation says beyond COCO."""
        return rest(row, _ANNOTATION_KEYS)

    # --- the file ----------------------------------------------------------------------------------------------------

    @cached_property
    def _document(self) -> dict[str, Any]:
        document = read_json(self.annotations)
        lists = ("images", "annotations", "categories")
        if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in lists):
            got = shown(sorted(document) if isinstance(document, dict) else type(document).__name__)
            raise FormatError(
                f"{self.annotations} is not COCO instances: expected the lists {', '.join(lists)}; got {got}"
            )
        return document

    @cached_property
    def _categories(self) -> dict[int, Category]:
        """Categories by id, ascending: a contiguous label is the rank of the id."""
        rows = self._document["categories"]
        if not rows:
            raise FormatError(f"{self.annotations} has an empty list of categories, so its boxes have no names")
        found: dict[int, Category] = {}
        for index, row in enumerate(rows):
            try:
                category = self._category(_object(row))
            except FieldError as fault:
                raise FormatError(f"{self.annotations}: categories[{index}] cannot be used: {fault}") from fault
            if category.id in found:
                raise FormatError(f"{self.annotations}: category id {category.id} stands twice in its list")
            found[category.id] = category
        return dict(sorted(found.items()))

    @cached_property
    def _named(self) -> dict[int, str]:
        return {category.id: category.name for category in self._categories.values() if category.name}

    @cached_property
    def _by_image(self) -> dict[str, list[Any]]:
        groups: dict[str, list[Any]] = defaultdict(list)
        for row in self._document["annotations"]:
            groups[_told(row.get("image_id") if isinstance(row, dict) else None)].append(row)
        return groups

    @cached_property
    def _licences(self) -> dict[int | str, str]:
        rows = self._document.get("licenses")
        rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        return {row["id"]: str(row.get("name", "")) for row in rows if isinstance(row.get("id"), int | str)}

    # --- one photo ---------------------------------------------------------------------------------------------------

    def _photo(self, value: Any) -> Photo:
        row = _object(value)
        width, height = (whole(row.get(key), key, 1) for key in ("width", "height"))
        path = self._path(row)
        beside = rest(row, _IMAGE_KEYS)
        if row.get("license") is not None and not isinstance(row["license"], int | str):
            raise FieldError("row_malformed", f"license must be an id, got {shown(row['license'])}")
        if row.get("file_name") != path:
            beside["file_name"] = row.get("file_name")
        return Photo(identity(row.get("id")), path, width, height, row, extra(beside))

    def _photo_items(self, photo: Photo) -> Iterator[Item]:
        """The rejects of a photo's annotations, then its record."""
        record = record_id(self.name, photo.id, "0")
        kept: dict[int, list[Box]] = defaultdict(list)
        more: dict[str, dict[str, Any]] = {}
        unsure: set[int] = set()
        for order, row in enumerate(self._by_image.get(photo.id, [])):
            try:
                key, box = self._box(row, order, photo)
                if said := self._box_extra(row):
                    more |= extra({"annotations": {str(order): said}})["annotations"]
                kept[key].append(box)
            except FieldError as fault:
                unsure.update(_category_ids(row))
                yield self._reject(f"{record}#{_annotation_id(row) or order}", "annotation", fault)
        yield self._record(record, photo, kept, unsure, more)

    def _record(
        self,
        record: str,
        photo: Photo,
        kept: Mapping[int, list[Box]],
        unsure: set[int],
        more: Mapping[str, dict[str, Any]],
    ) -> Record:
        names = self._names(record)
        said = [names[key] for key in kept] + self._beside(photo)
        vocabulary = () if self.negatives == "dynamic" else tuple(names.values())
        words, spans = detection_text(said, vocabulary, self.negatives, f"{self.seed}|{record}", self._avoid(kept))
        regions = [Region((names[key],), (spans[names[key]],), tuple(found), key) for key, found in kept.items()]
        absent = self._known_absent(photo, set(spans) - {names.get(key, "") for key in (*kept, *unsure)})
        return Record(
            id=record,
            source=self.name,
            image_id=photo.id,
            text_id="0",
            kind="detection",
            image=photo.path,
            root=self.name,
            width=photo.width,
            height=photo.height,
            text=words,
            regions=tuple(sorted(regions, key=lambda region: (region.spans, region.category_id))),
            negatives=tuple(span for name, span in spans.items() if name in absent),
            exhaustive=self.exhaustive and not unsure,
            licence=self._licence(photo),
            origin=self.address,
            extra={**photo.extra, "annotations": more} if more else photo.extra,
        )

    def _licence(self, photo: Photo) -> str:
        key = photo.row.get("license")
        return self._licences.get(key, self.licence) if isinstance(key, int | str) else self.licence

    def _box(self, value: Any, order: int, photo: Photo) -> tuple[int, Box]:
        """The category and the box. Raises FieldError with the reason for leaving it out."""
        row = _object(value)
        x, y, w, h = four(row.get("bbox"))
        key = row.get("category_id")
        if not _is_id(key) or key not in self._categories:
            raise FieldError("category_unknown", f"category_id {shown(key)} is not in the list of categories")
        if key not in self._named:
            raise FieldError("category_unnamed", f"category {key} has a blank name")
        if row.get("ignore"):
            raise FieldError("ignored", "marked ignore")
        box = Box(
            xyxy=usable((x, y, x + w, y + h), photo.width, photo.height),
            order=order,
            annotation_id=_annotation_id(row),
            area=None if row.get("area") is None else number(row["area"], "area"),
            crowd=bool(whole(row.get("iscrowd") or 0, "iscrowd", 0, 1)),
            mask=_mask(row.get("segmentation")) if self.masks else None,
        )
        if choice := self._policy(row):
            raise choice
        return key, box

    def _orphans(self, seen: set[str]) -> Iterator[Reject]:
        """Annotations whose image is missing, or could not be used."""
        for image_id, rows in self._by_image.items():
            if image_id in seen:
                continue
            for order, row in enumerate(rows):
                fault = FieldError("image_unknown", f"image_id {image_id} is not among the usable rows of images")
                if not isinstance(row, dict):
                    fault = FieldError("row_malformed", f"an annotation must be an object, got {shown(row)}")
                yield self._reject(
                    f"{record_id(self.name, image_id, '0')}#{_annotation_id(row) or order}", "annotation", fault
                )

    def _reject(self, where: str, level: Level, fault: FieldError) -> Reject:
        kind: Literal["policy", "fault"] = "policy" if fault.reason in _POLICIES else "fault"
        return Reject(where, level, kind, "ingest", fault.reason, fault.detail)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError("row_malformed", f"expected an object, got {shown(value)}")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _category_ids(row: Any) -> set[int]:
    key = row.get("category_id") if isinstance(row, dict) else None
    return {key} if isinstance(key, int) else set()


def _id64(value: Any) -> int:
    if not _is_id(value):
        raise FieldError("row_malformed", f"id must be an integer of 64 bits, got {shown(value)}")
    return int(value)


def _mask(value: Any) -> str | None:
    """A segmentation as JSON: polygons, or run lengths as a list or as text."""
    if not value:
        return None
    polygons = isinstance(value, list) and all(isinstance(p, list) and set(map(type, p)) <= {int, float} for p in value)
    runs = (
        isinstance(value, dict) and isinstance(value.get("counts"), list | str) and isinstance(value.get("size"), list)
    )
    if not polygons and not runs:
        raise FieldError("mask_malformed", f"segmentation must be polygons or counts and size, got {shown(value)}")
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise FieldError("mask_malformed", f"segmentation cannot be stored: {error}") from error


def _annotation_id(row: Any) -> str | None:
    value = row.get("id") if isinstance(row, dict) else None
    return None if value is None else _told(value)


def _told(value: Any) -> str:
    """An id as text, whatever it is: rows find their image by it, and rejects their name."""
    return str(value) if isinstance(value, int | float | str) else shown(value)


def _told_image(row: Any, index: int) -> str:
    value = row.get("id") if isinstance(row, dict) else None
    return str(value) if isinstance(value, int | str) else f"images[{index}]"
