"""The json of MDETR and GLIP (`final_flickr_*`, `final_mixed_train*`, `finetune_refcoco*`), read for three sources.

COCO-like, but an "image" is one caption of a photo, and an annotation says which characters of it name its box:

    {"file_name": "2331.jpg", "height": 375, "width": 500, "id": 12, "original_id": "2331", "caption": "a red bus.",
     "tokens_negative": [[0, 1]], "data_source": "vg", "dataset_name": "mixed"}
    {"area": 5400.0, "iscrowd": 0, "image_id": 12, "category_id": 1, "id": 40, "bbox": [31, 12, 90, 60],
     "tokens_positive": [[2, 5], [6, 9]]}

https://github.com/ashkamath/mdetr. Heights and widths of the Flickr files are strings. Spans come word by word or
whole: words with one blank between them are one phrase here, "red bus" at [2, 9). Boxes are grouped by their set of
spans and stay unclipped; mmdet's goldg2odvg groups by the phrase's letters, which gives the second "a dog" of a caption
the spans of the first one. A caption without boxes is a record without regions.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from llmdet import boxes
from llmdet.errors import FormatError
from llmdet.files import read_json
from llmdet.record import Box, Record, Region, Span, record_id
from llmdet.rejects import Level, Reject
from llmdet.sources.fields import FieldError, extra
from llmdet.sources.source import Item

_SPLIT = re.compile(r"(?:^|_)(train|val|testA|testB|test)(?=[_.]|$)")
_IMAGE_KEYS = {"file_name", "height", "width", "caption"}
_ANNOTATION_KEYS = {"area", "iscrowd", "image_id", "id", "bbox", "tokens_positive"}


class Fault(NamedTuple):
    """Why a row cannot be used."""

    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class MdetrJson:
    """Reads one file; what the source says of itself comes from the source that uses it."""

    annotations: str
    name: str
    licence: str
    address: str

    def read(self) -> Iterator[Item]:
        """Records in the order of the file's images. Raises FormatError, MissingError."""
        yield from self.items(read_json(self.annotations))

    def items(self, document: Any) -> Iterator[Item]:
        """The same for a document that was read already."""
        if not is_mdetr(document):
            got = sorted(document)[:8] if isinstance(document, dict) else type(document).__name__
            raise FormatError(
                f"{self.annotations} is not an MDETR json: expected the lists images (each with a caption) and "
                f"annotations; got {got}"
            )
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for index, row in enumerate(document["annotations"]):
            if isinstance(row, dict):
                groups[str(row.get("image_id"))].append(row)
            else:
                fault = Fault("row_malformed", f"an annotation must be an object, got {type(row).__name__}")
                yield self._reject(record_id(self.name, f"annotations[{index}]", "0"), "annotation", fault)
        seen: set[str] = set()
        for index, image in enumerate(document["images"]):
            yield from self._image_items(index, image, groups, seen)
        for image_id, rows in groups.items():
            for order, row in enumerate(rows):
                detail = f"image_id {image_id} is not in the list of images"
                key = annotation_id(row) or str(order)
                yield self._reject(
                    f"{record_id(self.name, image_id, '0')}#{key}", "annotation", Fault("image_unknown", detail)
                )

    def _image_items(
        self, index: int, image: Any, groups: dict[str, list[dict[str, Any]]], seen: set[str]
    ) -> Iterator[Item]:
        """The rejects of a caption's boxes, then its record. What is used leaves `groups`."""
        fault = _image_fault(image)
        if fault:
            yield self._reject(record_id(self.name, f"images[{index}]", "0"), "record", fault)
            return
        photo, text_id = _identity(image)
        identity = record_id(self.name, photo, text_id)
        if identity in seen:
            yield self._reject(
                identity, "record", Fault("id_repeated", f"images[{index}] has the id of an earlier one")
            )
            return
        seen.add(identity)
        width, height = int(image["width"]), int(image["height"])
        regions: dict[tuple[Span, ...], list[Box]] = defaultdict(list)
        more: dict[str, dict[str, Any]] = {}
        for order, row in enumerate(groups.pop(str(image["id"]), [])):
            rest = {k: v for k, v in row.items() if k not in _ANNOTATION_KEYS and (k, v) != ("category_id", 1)}
            found = (storing_fault(rest) if rest else None) or _box(row, order, image["caption"], width, height)
            if isinstance(found, Fault):
                yield self._reject(f"{identity}#{annotation_id(row) or order}", "annotation", found)
                continue
            box, spans = found
            regions[spans].append(box)
            if rest:
                more[str(order)] = rest
        yield self._record(image, regions, more)

    def _record(
        self, image: Any, regions: dict[tuple[Span, ...], list[Box]], more: dict[str, dict[str, Any]]
    ) -> Record:
        photo, text_id = _identity(image)
        text = image["caption"]
        rest = {key: value for key, value in image.items() if key not in _IMAGE_KEYS}
        return Record(
            id=record_id(self.name, photo, text_id),
            source=self.name,
            image_id=photo,
            text_id=text_id,
            kind="grounding",
            image=image["file_name"],
            root=self.name,
            width=int(image["width"]),
            height=int(image["height"]),
            text=text,
            regions=tuple(
                Region(tuple(text[start:end] for start, end in spans), spans, tuple(found))
                for spans, found in regions.items()
            ),
            split=split_of(self.annotations),
            licence=self.licence,
            origin=self.address,
            extra={**rest, "annotations": more} if more else rest,
        )

    def _reject(self, identity: str, level: Level, fault: Fault) -> Reject:
        kind: Any = "policy" if fault.reason == "crowd" else "fault"
        return Reject(identity, level, kind, "ingest", fault.reason, fault.detail)


def is_mdetr(document: Any) -> bool:
    """Whether a document has the two lists of an MDETR json, and captions in the first."""
    if not isinstance(document, dict) or not all(isinstance(document.get(k), list) for k in ("images", "annotations")):
        return False
    images = document["images"]
    return not images or any(isinstance(image, dict) and "caption" in image for image in images[:100])


def split_of(path: str) -> str:
    """The split that a file name such as `finetune_refcoco_testA.json` states, or ""."""
    found = _SPLIT.findall(posixpath.basename(path))
    return found[-1] if found else ""


def merge_words(spans: list[Span], text: str) -> tuple[Span, ...]:
    """Spans in order, each once, with those that stand one blank apart made one."""
    merged: list[Span] = []
    for start, end in sorted(set(spans)):
        if merged and start == merged[-1][1] + 1 and text[start - 1] == " ":
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return tuple(merged)


def annotation_id(row: Any) -> str | None:
    """The id of an annotation as text, where it has one."""
    value = row.get("id") if isinstance(row, dict) else None
    return None if value is None else str(value)


def xywh(value: Any) -> tuple[float, float, float, float] | None:
    """`[x, y, w, h]` of numbers as `xyxy`, or None for anything else."""
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(v) for v in value):
        return None
    x, y, w, h = map(float, value)
    return x, y, x + w, y + h


def size_fault(row: dict[str, Any]) -> str | None:
    """Why `width` and `height` of a row are not whole positive numbers, be they numbers or strings of digits."""
    for key in ("width", "height"):
        value = row.get(key)
        whole = (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value)
        )
        if not whole or not 0 < int(value) < 2**31:  # type: ignore[arg-type]
            return f"{key} must be a positive whole number, got {str(value)[:40]!r}"
    return None


def storing_fault(value: Any) -> Fault | None:
    """Why a value cannot be kept as JSON inside a record: it may be nested deeper than a writer can follow."""
    try:
        extra({"joined": [{"extra": {"annotations": {"0": value}}}]})  # the deepest place that it may come to
    except FieldError as error:
        return Fault(error.reason, error.detail[:160])
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _image_fault(image: Any) -> Fault | None:
    if not isinstance(image, dict):
        return Fault("row_malformed", f"an image must be an object, got {type(image).__name__}")
    if not isinstance(image.get("id"), int | str) or isinstance(image["id"], bool):
        return Fault("row_malformed", f"an image needs an id, got {str(image.get('id'))[:40]!r}")
    for key in ("file_name", "caption"):
        if not isinstance(image.get(key), str):
            return Fault(
                "row_malformed", f"{key} must be a text, got {str(image.get(key))[:40]!r} in image {image['id']}"
            )
    if not image["caption"].strip():
        return Fault("text_empty", f"image {image['id']} has an empty caption")
    size = size_fault(image)
    if size:
        return Fault("row_malformed", f"{size} in image {image['id']}")
    return storing_fault(image)


def _identity(image: dict[str, Any]) -> tuple[str, str]:
    """Id of the photo and of the text: Flickr numbers its five sentences, the others only the rows."""
    stem = posixpath.splitext(posixpath.basename(image["file_name"]))[0]
    photo = next((str(image[k]) for k in ("original_img_id", "original_id") if _is_id(image.get(k))), stem)
    sentence = image.get("sentence_id")
    return photo, str(sentence if _is_id(sentence) else image["id"])


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def _box(row: dict[str, Any], order: int, text: str, width: int, height: int) -> tuple[Box, tuple[Span, ...]] | Fault:
    """A box and the spans that name it."""
    xyxy = xywh(row.get("bbox"))
    if xyxy is None:
        return Fault("box_malformed", f"expected bbox [x, y, w, h], got {str(row.get('bbox'))[:80]}")
    spans = _spans(row.get("tokens_positive"), text)
    if isinstance(spans, Fault):
        return spans
    if row.get("iscrowd"):
        return Fault("crowd", "iscrowd 1 stands for a group of objects")
    reason = boxes.fault(xyxy, width, height)
    if reason:
        return Fault(reason, f"bbox {row['bbox']} in {width}x{height}")
    area = float(row["area"]) if _is_number(row.get("area")) else None
    return Box(xyxy=xyxy, order=order, annotation_id=annotation_id(row), area=area), spans


def _spans(value: Any, text: str) -> tuple[Span, ...] | Fault:
    if not isinstance(value, list) or not all(
        isinstance(span, list) and len(span) == 2 and all(type(end) is int for end in span) for span in value
    ):
        return Fault("spans_malformed", f"expected tokens_positive [[start, end], ...], got {str(value)[:80]}")
    if not value:
        return Fault("phrase_missing", "tokens_positive is empty: no word of the caption names this box")
    for start, end in value:
        if not 0 <= start < end <= len(text):
            return Fault("span_outside_text", f"[{start}, {end}) in {len(text)} characters")
    return merge_words([(start, end) for start, end in value], text)
