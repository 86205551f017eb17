"""Pascal VOC: an XML file per picture, `Annotations/*.xml` beside `JPEGImages/` and `ImageSets/Main/{train,val}.txt`.

    <annotation><filename>2008_000123.jpg</filename><size><width>500</width><height>375</height><depth>3</depth></size>
      <object><name>horse</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>
        <bndbox><xmin>53</xmin><ymin>87</ymin><xmax>471</xmax><ymax>420</ymax></bndbox></object></annotation>

http://host.robots.ox.ac.uk/pascal/VOC, photos under Flickr terms; VOC 2012 trainval has 11,540 images and 27,450
objects of 20 classes. Pixels are counted from 1 and `xmax` is the last one inside: such a box is [xmin - 1, ymin - 1,
xmax, ymax] here. Labelling tools write the same XML, often counted from 0, often with a wrong extension in `filename`.
Sizes may be missing or 0, coordinates fractions. Parts of objects (`part`) are not read.
"""

from __future__ import annotations

import posixpath
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from llmdet import files
from llmdet.boxes import XYXY
from llmdet.detection_text import Negatives, detection_text
from llmdet.errors import FormatError, ImageError
from llmdet.record import Box, Record, Region, record_id
from llmdet.rejects import Level, Reject
from llmdet.sources.fields import FieldError, extra, four, picture_size, printable, shown, storable, usable, whole
from llmdet.sources.folder import is_picture, list_files
from llmdet.sources.source import Category, Item, SourceInfo

_MARKS = ("pose", "truncated", "difficult", "occluded")


@dataclass(frozen=True, kw_only=True)
class Voc:
    """Reads all XML files of a folder, by path. `annotations`: that folder, or the one that holds `Annotations`."""

    annotations: str
    images: str
    name: str = "voc"
    first_pixel: Literal[0, 1] = 1  # what the upper left pixel is called
    classes: str = ""  # file with one name a line; else the names that occur, by alphabet
    negatives: Negatives = "all"
    exhaustive: bool = True
    licence: str = "Flickr terms (photos)"
    address: str = "http://host.robots.ox.ac.uk/pascal/VOC"
    seed: int = 0

    def info(self) -> SourceInfo:
        categories = tuple(Category(index, name) for name, index in self._ids.items())
        return SourceInfo(self.name, "voc", self.licence, self.address, self.images, categories)

    def read(self) -> Iterator[Item]:
        _ = self._ids
        for path in self._paths:
            try:
                yield from self._items(path)
            except (FieldError, ImageError) as error:
                yield self._reject(f"{self.name}/{printable(path)}", "record", error)

    @cached_property
    def _folder(self) -> str:
        inner = files.join(self.annotations, "Annotations")
        return inner if files.exists(inner) else self.annotations

    @cached_property
    def _paths(self) -> list[str]:
        found = [name for name in list_files(self._folder) if name.lower().endswith(".xml")]
        if not found:
            raise FormatError(f"{self._folder} is not Pascal VOC: it holds no .xml file")
        return found

    @cached_property
    def _ids(self) -> dict[str, int]:
        """Number of each name. Without a file of names all files are read for it."""
        if self.classes:
            lines = files.read_bytes(self.classes).decode(errors="replace").splitlines()
            return {name: index for index, name in enumerate(line.strip() for line in lines if line.strip())}
        names: set[str] = set()
        for path in self._paths:
            try:
                names |= {_said(thing, "name") for thing in self._root(path).iterfind("object")}
            except FieldError:
                continue  # `read` meets the same file again, and says why
        return {name: index for index, name in enumerate(sorted(names - {""}))}

    @cached_property
    def _pictures(self) -> dict[str, str]:
        """Path of each picture, and by path without suffix: tools write the wrong one into the XML."""
        found = [name for name in list_files(self.images) if is_picture(name) and storable(name)]
        return {**{posixpath.splitext(name)[0]: name for name in found}, **{name: name for name in found}}

    @cached_property
    def _splits(self) -> dict[str, str]:
        """Split by name of the picture, from `ImageSets/Main`."""
        lists = files.join(posixpath.dirname(self._folder.rstrip("/")), "ImageSets", "Main")
        found: dict[str, str] = {}
        for split in ("test", "val", "train"):
            path = files.join(lists, f"{split}.txt")
            if files.exists(path):
                found |= dict.fromkeys(files.read_bytes(path).decode(errors="replace").split(), split)
        return found

    def _root(self, path: str) -> ET.Element:
        data = files.read_bytes(files.join(self._folder, path))
        # A document type can define entities that grow without bound; annotation tools write none.
        if b"<!DOCTYPE" in data or b"<\0!\0D\0O\0C" in data or b"\0<\0!\0D\0O\0C" in data:
            raise FieldError("row_malformed", "XML with a document type is not read")
        try:
            root = ET.fromstring(data)
        except (ET.ParseError, ValueError, LookupError) as error:
            raise FieldError("row_malformed", f"not XML: {error}") from error
        if root.tag != "annotation":
            raise FieldError("row_malformed", f"expected <annotation>, got <{root.tag}>")
        return root

    def _items(self, path: str) -> Iterator[Item]:
        """The rejects of a file's objects, then its record."""
        if not storable(path):
            raise FieldError("text_not_unicode", "the file's name is no UTF-8")
        root, stem = self._root(path), posixpath.splitext(path)[0]
        key = record_id(self.name, stem, "0")
        image = self._picture(stem, _said(root, "filename"))
        width, height = _size(root) or picture_size(self.images, image)
        kept: dict[str, list[Box]] = defaultdict(list)
        marks: dict[str, dict[str, str]] = {}
        whole_file = True
        for order, thing in enumerate(root.iterfind("object")):
            try:
                name = self._name(thing)
                kept[name].append(Box(usable(self._xyxy(thing), width, height), order))
                marks[str(order)] = {mark: said for mark in _MARKS if (said := _said(thing, mark))}
            except FieldError as fault:
                whole_file = False
                yield self._reject(f"{key}#{order}", "annotation", fault)
        present = [name for name, boxes in kept.items() if boxes]
        sentence, spans = detection_text(present, list(self._ids), self.negatives, f"{self.seed}|{key}")
        regions = [Region((name,), (spans[name],), tuple(kept[name]), self._ids[name]) for name in present]
        yield Record(
            id=key,
            source=self.name,
            image_id=stem,
            text_id="0",
            kind="detection",
            image=image,
            root=self.name,
            width=width,
            height=height,
            text=sentence,
            regions=tuple(sorted(regions, key=lambda region: region.spans)),
            # A name whose boxes were all left out is in `kept`, and in the picture.
            negatives=tuple(span for name, span in spans.items() if name not in kept),
            exhaustive=self.exhaustive and whole_file,
            split=self._splits.get(posixpath.basename(stem), ""),
            licence=self.licence,
            origin=self.address,
            extra=extra({"objects": {order: said for order, said in marks.items() if said} or None}),
        )

    def _picture(self, stem: str, filename: str) -> str:
        """The picture that a file is about: as it says, else by its own name, else what it says, found or not."""
        filename = filename.replace("\\", "/")
        beside = posixpath.join(posixpath.dirname(stem), filename)
        places = (beside, filename, posixpath.splitext(beside)[0], stem) if filename else (stem,)
        return next((self._pictures[place] for place in places if place in self._pictures), filename or f"{stem}.jpg")

    def _name(self, thing: ET.Element) -> str:
        name = _said(thing, "name")
        if name not in self._ids:
            raise FieldError("category_unknown", f"{shown(name)} is not in {self.classes or 'the names'}")
        return name

    def _xyxy(self, thing: ET.Element) -> XYXY:
        box = thing.find("bndbox")
        words = [None if box is None else box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = four([_value(word) for word in words], "bndbox")
        return (x1 - 1, y1 - 1, x2, y2) if self.first_pixel else (x1, y1, x2, y2)

    def _reject(self, key: str, level: Level, error: FieldError | ImageError) -> Reject:
        return Reject(key, level, "fault", "ingest", error.reason, error.detail)


def _said(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _value(word: str | None) -> Any:
    """The number that a text says, or the text for whoever refuses it."""
    try:
        return float(word or "")
    except ValueError:
        return word


def _size(root: ET.Element) -> tuple[int, int] | None:
    """(width, height) in pixels, None where the file does not know. Raises FieldError for what is no size."""
    width, height = (_value(root.findtext(f"size/{side}")) for side in ("width", "height"))
    if not width and not height:
        return None
    return whole(width, "width", 1), whole(height, "height", 1)
