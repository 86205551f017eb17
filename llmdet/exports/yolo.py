"""YOLO's folders of text files, as ultralytics reads them: one file a picture, one line a box.

    data.yaml               train: images/train   val: images/val   names: {0: "person", ...}
    images/train/coco/000000000009.jpg
    labels/train/coco/000000000009.txt      16 0.479 0.688 0.9555 0.5955

A line is class, centre x, centre y, width, height, as parts of the picture's sides, with 9 decimals. A class is the
rank of a category, or the first phrase of a region without one. Boxes are cut to the picture, because ultralytics
refuses a whole file for one number outside 0..1. Cannot hold: texts, spans, negatives, captions, tags, scores, masks,
annotation ids, crowd boxes (left out), and what lies outside the picture.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import orjson
import pyarrow as pa

from llmdet import files
from llmdet.errors import FormatError
from llmdet.exports.coco import boxes_in_order, count
from llmdet.exports.exporter import ByRecord, Exported, Sources, Tally, losses, selected
from llmdet.exports.pictures import Pictures
from llmdet.exports.vocabulary import Vocabulary
from llmdet.flat import Flat
from llmdet.record import Box, Record, from_batch


@dataclass(frozen=True, kw_only=True)
class Yolo(ByRecord):
    """Writes `data.yaml`, `labels/<split>/<root>/` and, where wanted, `images/<split>/<root>/`; no split is train."""

    cannot_hold: ClassVar[str] = (
        "YOLO holds class numbers and boxes inside the picture; no texts, captions, tags, scores, masks, ids or crowds"
    )

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        pictures, tally = Pictures(out, self.images, sources), Tally()
        vocabulary, labels = Vocabulary(sources), _Labels(out)
        for batch in selected(batches, self.split):
            tally.lost.update(losses(batch, Flat.of(batch), self.holds))
            for record in from_batch(batch):
                name = _name(record)
                pictures.put(record.root, record.source, record.image, name)
                labels.write(name, record.split or "train", "".join(_lines(record, vocabulary, tally)))
                count(record, tally, crowds=False)
        tally.lost.update(pictures.lost)
        files.write_bytes(files.join(out, "data.yaml"), _yaml(labels.splits, vocabulary.names).encode())
        return tally.exported("data.yaml", "labels/", *pictures.written)


@dataclass(slots=True)
class _Labels:
    """The label files of one export: a second text of a picture adds its lines to the first one's."""

    out: str
    splits: dict[str, None] = field(default_factory=dict)  # in order of appearance
    _pictures: dict[str, str] = field(default_factory=dict)  # label file to picture

    def write(self, picture: str, split: str, lines: str) -> None:
        """Add lines to a picture's label file. Raises FormatError where two pictures would share one."""
        self.splits[split] = None
        address = files.safe_join(f"{self.out}/labels", f"{posixpath.splitext(picture)[0]}.txt")
        known = self._pictures.get(address)
        if known is not None and known != picture:
            raise FormatError(f"{known} and {picture} would share the YOLO label file {address}; rename one of them")
        self._pictures[address] = picture
        before = files.read_bytes(address) if known else b""
        files.write_bytes(address, before + lines.encode())


def _name(record: Record) -> str:
    """Where a picture lies below images/ and its labels below labels/.

    ultralytics finds labels by the last folder called images, so no other folder may have that name (V3Det's do).
    """
    parts = f"{record.split or 'train'}/{record.root}/{record.image}".split("/")
    return "/".join("pictures" if part == "images" else part for part in parts)


def _lines(record: Record, vocabulary: Vocabulary, tally: Tally) -> Iterable[str]:
    for box, region in boxes_in_order(record):
        if not box.crowd:
            inside = _inside(box, record)
            tally.lose("boxes cut to the picture", inside != box.xyxy)
            yield f"{vocabulary.index(record, region)} {_parts(inside, record)}\n"


def _inside(box: Box, record: Record) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.xyxy
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(record.width)), min(y2, float(record.height))


def _parts(xyxy: tuple[float, float, float, float], record: Record) -> str:
    x1, y1, x2, y2 = xyxy
    values = (
        (x1 + x2) / 2 / record.width,
        (y1 + y2) / 2 / record.height,
        (x2 - x1) / record.width,
        (y2 - y1) / record.height,
    )
    return " ".join(f"{value:.9f}".rstrip("0").rstrip(".") for value in values)


def _yaml(splits: Iterable[str], names: list[str]) -> str:
    """The data set file. `train` and `val` must be there: a missing one is the other, and a comment says so."""
    found = dict.fromkeys(splits)
    lines = ["# Paths are relative to this file."]
    for name, other in (("train", "val"), ("val", "train")):
        if name not in found:
            stand_in = other if other in found else next(iter(found), other)
            lines.append(f"{name}: images/{stand_in}  # there are no {name} records")
    lines += [f"{name}: images/{name}" for name in found]
    lines += ["names:"] + [f"  {index}: {orjson.dumps(name).decode()}" for index, name in enumerate(names)]
    return "\n".join(lines) + "\n"
