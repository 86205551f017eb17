"""OpenImages: `oidv6-train-annotations-bbox.csv` with `class-descriptions-boxable.csv`; photos `<ImageID>.jpg`.

Header and one row of each file:

    ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
    000002b66c9c498e,xclick,/m/01g317,1,0.012500,0.195312,0.148438,0.587500,0,1,0,0,0

    LabelName,DisplayName
    /m/01g317,Person

https://storage.googleapis.com/openimages/web/index.html, annotations CC BY 4.0, photos CC BY 2.0; train: 1,743,042
photos, 14,610,229 boxes, 600 classes. Boxes are fractions of the photo, XMin, XMax, YMin, YMax, so every photo is
opened for its size. The rows of a photo stand together: a photo that comes again later is a fault, since its record is
written by then. The list of classes has a header or none. Only labels that people verified are known to be absent, and
they are in other files: a record has no negatives, and names that are drawn into its text are not said to be absent.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, NamedTuple

from llmdet.boxes import XYXY
from llmdet.detection_text import Negatives, detection_text
from llmdet.errors import FormatError, ImageError, MissingError
from llmdet.files import exists, join, open_bytes
from llmdet.record import Box, Record, Region, record_id
from llmdet.rejects import Level, Reject
from llmdet.sources.fields import FieldError, picture_size, rest, scaled, shown, text, usable
from llmdet.sources.source import Category, Item, SourceInfo

ADDRESS = "https://storage.googleapis.com/openimages/web/index.html"
LICENCE = "CC-BY-4.0 (annotations); CC-BY-2.0 (photos)"

_SIDES = ("XMin", "YMin", "XMax", "YMax")
_USED = ("ImageID", "LabelName", *_SIDES)
# Names of the list of classes in the releases, the one with boxes first.
_CLASS_FILES = (
    "class-descriptions-boxable.csv",
    "oidv7-class-descriptions-boxable.csv",
    "oidv6-class-descriptions.csv",
    "oidv7-class-descriptions.csv",
    "class-descriptions.csv",
)
_POLICIES = {"group_of", "depiction"}


class _Row(NamedTuple):
    """A line of the csv, and the photo that it counts to."""

    line: int
    photo: str
    values: dict[str, str] | FieldError


@dataclass(frozen=True, kw_only=True)
class OpenImages:
    """Reads one csv of boxes, a photo at a time. One photo is one Record: all its classes in one text of names."""

    annotations: str
    images: str
    name: str = "openimages"
    classes: str = ""  # address of the list of classes; none: beside the annotations under its published name
    suffix: str = ".jpg"
    group: Literal["drop", "keep"] = "drop"  # a box around more than five things that touch; kept ones are crowds
    depiction: Literal["drop", "keep"] = "keep"  # a drawing or statue of the thing
    negatives: Negatives = "dynamic"
    licence: str = LICENCE
    address: str = ADDRESS
    seed: int = 0

    def info(self) -> SourceInfo:
        """What the files say of themselves; the id of a category is its place in the list of classes, from 1."""
        categories = tuple(self._categories.values())
        return SourceInfo(self.name, "openimages", self.licence, self.address, self.images, categories)

    def read(self) -> Iterator[Item]:
        """Records in the order of the csv. Raises FormatError, MissingError."""
        self._categories  # noqa: B018  classes without names are refused before the first record
        seen: set[int] = set()  # hashes: the ids themselves would take three times the memory
        for photo, rows in groupby(self._rows(), key=lambda row: row.photo):
            if hash(photo) in seen:
                yield from self._late(photo, rows)
                continue
            seen.add(hash(photo))
            yield from self._items(photo, list(rows))

    def _items(self, photo: str, rows: list[_Row]) -> Iterator[Item]:
        """The rejects of a photo's rows, then its record."""
        record = record_id(self.name, photo, "0")
        if not photo:  # nothing before the first usable line
            for row in rows:
                fault = row.values if isinstance(row.values, FieldError) else FieldError("row_malformed", "no ImageID")
                yield self._reject(f"{record}#line{row.line}", "annotation", fault)
            return
        path = f"{photo}{self.suffix}"
        try:
            width, height = picture_size(self.images, path)
        except ImageError as error:
            yield self._reject(record, "record", FieldError(error.reason, f"line {rows[0].line}: {error.detail}"))
            return
        kept: dict[str, list[Box]] = defaultdict(list)
        more: dict[str, dict[str, str]] = {}
        for order, row in enumerate(rows):
            try:
                label, box = self._box(row.values, order, width, height)
            except FieldError as fault:
                told = FieldError(fault.reason, f"line {row.line}: {fault.detail}")
                yield self._reject(f"{record}#{order}", "annotation", told)
                continue
            kept[label].append(box)
            more[str(order)] = rest(row.values, _USED)  # type: ignore[arg-type]
        yield self._record(record, photo, (width, height), kept, more)

    def _record(
        self,
        record: str,
        photo: str,
        size: tuple[int, int],
        kept: dict[str, list[Box]],
        more: dict[str, dict[str, str]],
    ) -> Record:
        classes = [self._categories[label] for label in kept]
        said, spans = detection_text((c.name for c in classes), self._names, self.negatives, f"{self.seed}|{record}")
        regions = [
            Region((c.name,), (spans[c.name],), tuple(boxes), c.id)
            for c, boxes in zip(classes, kept.values(), strict=True)
        ]
        return Record(
            id=record,
            source=self.name,
            image_id=photo,
            text_id="0",
            kind="detection",
            image=f"{photo}{self.suffix}",
            root=self.name,
            width=size[0],
            height=size[1],
            text=said,
            regions=tuple(sorted(regions, key=lambda region: (region.spans, region.category_id))),
            licence=self.licence,
            origin=self.address,
            extra={"annotations": more} if more else {},
        )

    def _box(self, row: dict[str, str] | FieldError, order: int, width: int, height: int) -> tuple[str, Box]:
        """The label and the box. Raises FieldError with the reason for leaving it out."""
        if isinstance(row, FieldError):
            raise row
        label = row["LabelName"]
        if label not in self._categories:
            raise FieldError("category_unknown", f"LabelName {shown(label)} is not in the list of classes")
        box = usable(scaled(_fractions(row), width, height), width, height)
        if row.get("IsGroupOf") == "1" and self.group == "drop":
            raise FieldError("group_of", "IsGroupOf 1 stands for a group of objects")
        if row.get("IsDepiction") == "1" and self.depiction == "drop":
            raise FieldError("depiction", "IsDepiction 1 is a picture of the thing")
        return label, Box(box, order, crowd=row.get("IsGroupOf") == "1")

    def _late(self, photo: str, rows: Iterable[_Row]) -> Iterator[Reject]:
        for row in rows:
            fault = FieldError("rows_not_adjacent", f"line {row.line}: the record of photo {shown(photo)} ended before")
            yield self._reject(f"{record_id(self.name, photo, '0')}#line{row.line}", "annotation", fault)

    def _rows(self) -> Iterator[_Row]:
        """Lines of the csv. One that cannot be used counts to the photo of the line before it."""
        photo = ""
        with _csv_rows(self.annotations, csv.QUOTE_NONE) as lines:
            header = next(lines, (0, []))[1]
            if isinstance(header, FieldError) or not set(_USED) <= set(header):
                raise FormatError(
                    f"{self.annotations} is not OpenImages' csv of boxes: expected the columns {', '.join(_USED)}; "
                    f"got {shown(header)}"
                )
            for line, row in lines:
                values = row if isinstance(row, FieldError) else _values(header, row)
                photo = photo if isinstance(values, FieldError) else values["ImageID"]
                yield _Row(line, photo, values)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(category.name for category in self._categories.values()))

    @cached_property
    def _categories(self) -> dict[str, Category]:
        """Categories by label name (`/m/01g317`), in the order of the list."""
        address = self.classes or self._classes_beside()
        found: dict[str, Category] = {}
        with _csv_rows(address) as lines:
            for line, row in lines:
                if row == ["LabelName", "DisplayName"]:
                    continue
                if isinstance(row, FieldError) or len(row) != 2 or not all(cell.strip() for cell in row):
                    raise FormatError(f"{address} line {line}: expected LabelName,DisplayName; got {shown(row)}")
                label, name = (text(cell.strip(), "class") for cell in row)
                found[label] = Category(len(found) + 1, name, {"label_name": label})
        if not found:
            raise FormatError(f"{address} has no classes, so boxes have no names")
        return found

    def _classes_beside(self) -> str:
        folder = posixpath.dirname(self.annotations)
        for name in _CLASS_FILES:
            if exists(join(folder, name)):
                return join(folder, name)
        raise MissingError(f"no list of classes beside {self.annotations}; expected {_CLASS_FILES[0]} or the like")

    def _reject(self, where: str, level: Level, fault: FieldError) -> Reject:
        kind: Literal["policy", "fault"] = "policy" if fault.reason in _POLICIES else "fault"
        return Reject(where, level, kind, "ingest", fault.reason, fault.detail)


@contextmanager
def _csv_rows(
    url: str, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> Iterator[Iterator[tuple[int, list[str] | FieldError]]]:
    """Numbered rows of a csv; one that is none is a FieldError."""
    with open_bytes(url) as raw:
        # Bytes that are no UTF-8 cost their row, not the file.
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", errors="backslashreplace", newline="")
        yield _numbered(csv.reader(file, quoting=quoting))


def _numbered(rows: Any) -> Iterator[tuple[int, list[str] | FieldError]]:
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield rows.line_num, FieldError("row_malformed", str(error))
            continue
        if row:
            yield rows.line_num, row


def _values(header: list[str], row: list[str]) -> dict[str, str] | FieldError:
    if len(row) != len(header):
        return FieldError("row_malformed", f"{len(row)} columns where the header has {len(header)}")
    values = dict(zip(header, row, strict=True))
    return values if values["ImageID"] else FieldError("row_malformed", "ImageID is empty")


def _fractions(row: dict[str, str]) -> XYXY:
    """The box in fractions of the photo; a little over the edge is passed on, pixels are not."""
    try:
        x1, y1, x2, y2 = (float(row[side]) for side in _SIDES)
    except ValueError as error:
        raise FieldError("box_malformed", f"expected numbers, got {shown([row[side] for side in _SIDES])}") from error
    if not all(-1 <= side <= 2 for side in (x1, y1, x2, y2)):
        raise FieldError("box_malformed", f"expected fractions of the photo, got {[x1, y1, x2, y2]}")
    return x1, y1, x2, y2
