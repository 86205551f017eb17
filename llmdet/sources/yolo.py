"""YOLO labels: a text file per picture, class and box per line; the names in `data.yaml` or `classes.txt`.

`data.yaml`, then a line with a box (class, centre x, centre y, width, height), one with a score behind, one with a
polygon:

    {path: ../pears, train: images/train, val: images/val, names: {0: pear, 1: leaf}}
    0 0.5125 0.4800 0.2250 0.3100
    0 0.5125 0.4800 0.2250 0.3100 0.8731
    1 0.10 0.20 0.30 0.20 0.30 0.45 0.12 0.40

https://docs.ultralytics.com/datasets/detect, the licence is the data set's. Numbers are 0..1 of the picture as it is
shown (EXIF applied). Labels lie where the picture's path has `labels` instead of its last `images`, or beside the
picture. A picture without a label file shows none of the classes. Pictures are opened for their size.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
import yaml
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.boxes import XYXY
from llmdet.detection_text import Negatives, detection_text
from llmdet.errors import FormatError, ImageError, MissingError
from llmdet.record import Box, Record, Region, record_id
from llmdet.rejects import Level, Reject
from llmdet.sources.fields import FieldError, number, picture_size, printable, shown, storable, text, usable, whole
from llmdet.sources.folder import is_picture, list_files, plain_path
from llmdet.sources.source import Category, Item, SourceInfo

_NAME_FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")


@dataclass(frozen=True, kw_only=True)
class Yolo:
    """Reads all pictures below `images` with their labels. `annotations`: the file of names, or its folder."""

    annotations: str
    images: str
    name: str = "yolo"
    labels: str = ""  # root of the label files, where it is none of the usual places
    negatives: Negatives = "all"
    exhaustive: bool = True
    licence: str = ""
    address: str = ""
    seed: int = 0

    def info(self) -> SourceInfo:
        return SourceInfo(self.name, "yolo", self.licence, self.address, self.images, tuple(self._categories.values()))

    def read(self) -> Iterator[Item]:
        _ = self._categories
        used: set[str] = set()
        for name in list_files(self.images):
            if not is_picture(name):
                continue  # labels and name files lie here as well; labels without a picture are found below
            if not storable(name):
                error = FieldError("text_not_unicode", "the file's name is no UTF-8")
                yield self._reject(f"{self.name}/{printable(name)}", "record", error)
                continue
            label = next((place for place in self._label_places(name) if files.exists(place)), None)
            used |= {plain_path(label)} if label else set()
            try:
                yield from self._items(name, label)
            except (FieldError, ImageError) as fault:
                yield self._reject(record_id(self.name, name, "0"), "record", fault)
        yield from self._orphans(used)

    @cached_property
    def _name_file(self) -> str:
        fs, path = url_to_fs(self.annotations)
        if not fs.isdir(path):
            return self.annotations
        places = [files.join(self.annotations, name) for name in _NAME_FILES]
        found = next((place for place in places if files.exists(place)), None)
        if found is None:
            raise MissingError(f"no names of classes in {self.annotations}: looked for {', '.join(_NAME_FILES)}")
        return found

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What data.yaml says; just the names where there is only a list of them."""
        data = files.read_bytes(self._name_file)
        if not self._name_file.endswith((".yaml", ".yml")):
            return {"names": data.decode(errors="surrogateescape").rstrip().splitlines()}
        try:
            found = yaml.safe_load(data)
        except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
            raise FormatError(f"{self._name_file} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(found, dict):
            raise FormatError(f"{self._name_file} must be a mapping with names, got {shown(found)}")
        return found

    @cached_property
    def _categories(self) -> dict[int, Category]:
        names = self._settings.get("names")
        rows = dict(enumerate(names)) if isinstance(names, list) else names
        if not isinstance(rows, dict) or not rows:
            raise FormatError(f"{self._name_file} must have names: a list or {{0: name, ...}}; got {shown(names)}")
        try:
            found = [Category(whole(label, "class"), _class_name(name)) for label, name in rows.items()]
        except FieldError as error:
            raise FormatError(f"{self._name_file}: {error.detail}") from error
        return {category.id: category for category in sorted(found, key=lambda category: category.id)}

    def _label_places(self, name: str) -> list[str]:
        label = posixpath.splitext(name)[0] + ".txt"
        if self.labels:
            return [files.join(self.labels, label)]
        full = files.join(self.images, label)
        return [full] if _labels_of(full) is None else [str(_labels_of(full)), full]

    def _items(self, name: str, label: str | None) -> Iterator[Item]:
        """The rejects of a picture's lines, then its record."""
        key = record_id(self.name, name, "0")
        width, height = picture_size(self.images, name, "applied")
        lines = files.read_bytes(label).decode(errors="replace").splitlines() if label else []
        kept: dict[int, list[Box]] = defaultdict(list)  # empty where all of a class was left out: it is there
        whole_file = True
        for order, line in enumerate(line for line in lines if line.strip()):
            try:
                category, values = self._class(line)
                kept[category].append(_box(values, order, width, height))
            except FieldError as fault:
                whole_file = False
                yield self._reject(f"{key}#{order}", "annotation", fault)
        names = [category.name for category in self._categories.values()]
        there = {self._categories[category].name for category in kept}
        present = {category: self._categories[category].name for category, boxes in kept.items() if boxes}
        sentence, spans = detection_text(present.values(), names, self.negatives, f"{self.seed}|{key}")
        regions = [Region((one,), (spans[one],), tuple(kept[category]), category) for category, one in present.items()]
        yield Record(
            id=key,
            source=self.name,
            image_id=name,
            text_id="0",
            kind="detection",
            image=name,
            root=self.name,
            width=width,
            height=height,
            text=sentence,
            regions=tuple(sorted(regions, key=lambda region: region.spans)),
            negatives=tuple(span for one, span in spans.items() if one not in there),
            exhaustive=self.exhaustive and whole_file,
            orientation="applied",
            split=self._split(name),
            licence=self.licence,
            origin=self.address,
        )

    def _class(self, line: str) -> tuple[int, list[float]]:
        """Class of a line, and the numbers behind it."""
        values = _numbers(line)
        category = whole(values[0], "class")
        if category not in self._categories:
            raise FieldError("category_unknown", f"class {category} is not in {self._name_file}")
        return category, values[1:]

    def _split(self, name: str) -> str:
        """train, val or test, where data.yaml says in which folder each lies."""
        base = plain_path(posixpath.dirname(self._name_file) or ".")
        root = posixpath.join(base, str(self._settings.get("path") or ""))
        picture = plain_path(files.join(self.images, name))
        for split in ("train", "val", "test"):
            entries = self._settings.get(split)
            for entry in entries if isinstance(entries, list) else [entries]:
                # Roboflow writes "../train/images" where it means "train/images".
                for place in (entry, entry.removeprefix("../")) if isinstance(entry, str) else ():
                    if picture.startswith(posixpath.normpath(posixpath.join(root, place)) + "/"):
                        return split
        return ""

    def _orphans(self, used: set[str]) -> Iterator[Reject]:
        usual = [_labels_of(self.images.rstrip("/") + "/"), files.join(self.images, "labels")]
        root = next((place for place in [self.labels, *usual] if place and files.exists(place)), None)
        if root is None:
            return
        for name in list_files(root):
            if name.endswith(".txt") and plain_path(files.join(root, name)) not in used and name not in _NAME_FILES:
                fault = FieldError("image_missing", f"no picture belongs to the label file {shown(name)}")
                yield self._reject(f"{self.name}/{printable(name)}", "record", fault)

    def _reject(self, key: str, level: Level, error: FieldError | ImageError) -> Reject:
        return Reject(key, level, "fault", "ingest", error.reason, error.detail)


def _labels_of(path: str) -> str | None:
    """The path with `labels` instead of its last folder `images`, or None where it has none."""
    parts = path.split("/")
    found = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    return "/".join([*parts[: found[-1]], "labels", *parts[found[-1] + 1 :]]) if found else None


def _class_name(value: Any) -> str:
    """A class's name; YAML reads a name of digits as a number."""
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value, "name").strip()
    if not name:
        raise FieldError("row_malformed", "a class has an empty name")
    return name


def _box(values: list[float], order: int, width: int, height: int) -> Box:
    """The box of a line: centre and size with or without a score, or an outline."""
    if len(values) in {4, 5}:
        x, y, w, h = (v * side for v, side in zip(values[:4], (width, height, width, height), strict=True))
        box = usable((x - w / 2, y - h / 2, x + w / 2, y + h / 2), width, height)
        scored = len(values) == 5
        return Box(box, order, "pseudo" if scored else "human", values[4] if scored else None)
    if len(values) < 6 or len(values) % 2:
        raise FieldError("row_malformed", f"expected a class with 4, 5 or an even number of values: {shown(values)}")
    polygon = [v * (height if index % 2 else width) for index, v in enumerate(values)]
    xs, ys = polygon[::2], polygon[1::2]
    outline: XYXY = (min(xs), min(ys), max(xs), max(ys))
    return Box(usable(outline, width, height), order, mask=orjson.dumps([polygon]).decode())


def _numbers(line: str) -> list[float]:
    try:
        return [number(float(word), "value") for word in line.replace("_", "?").split()]
    except ValueError as error:
        if isinstance(error, FieldError):
            raise
        raise FieldError("row_malformed", f"expected numbers, got {shown(line)}") from error
