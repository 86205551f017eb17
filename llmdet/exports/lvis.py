"""LVIS v1: COCO's layout without `file_name`, with what was searched for in each image.

    {"id": 397133, "height": 427, "width": 640, "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
     "neg_category_ids": [279, 899], "not_exhaustive_category_ids": [914], ...}
    {"id": 3, "name": "air_conditioner", "synset": "air_conditioner.n.01", "frequency": "f", "image_count": 364, ...}

Annotations have no `iscrowd`: crowd boxes are left out and their category is marked not exhaustive in that image. Where
the source has no such lists, absent names of the text are the negatives, and nothing is called exhaustive unless the
record is. Cannot hold: the grounding text and spans, captions, tags, crowd boxes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from llmdet import files
from llmdet.exports.coco import Numbers, annotation_row, boxes_in_order, category_row, count, image_row
from llmdet.exports.document import Rows, write_document
from llmdet.exports.exporter import SUFFIXES, ByRecord, Exported, Sources, Tally
from llmdet.exports.pictures import Pictures
from llmdet.exports.vocabulary import Vocabulary
from llmdet.record import Record, Region
from llmdet.sources.source import Category

URL = "http://images.cocodataset.org/"


@dataclass(frozen=True, kw_only=True)
class Lvis(ByRecord):
    """Writes `lvis_v1.json`."""

    cannot_hold: ClassVar[str] = (
        "LVIS holds boxes, categories and what was searched for; no text, spans, captions, crowds"
    )
    holds: ClassVar[frozenset[str]] = frozenset({"masks", "scores", "annotation ids", "areas", "negatives"})

    compression: files.Compression | None = None

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        name = f"lvis_v1.json{SUFFIXES[self.compression]}"
        pictures, tally = Pictures(out, self.images, sources), Tally()
        with Rows() as images, Rows() as annotations:
            numbers, table = Numbers(single=len(sources) == 1), Table(Vocabulary(sources))
            for record in self.records(batches, pictures, tally):
                image_id, new = numbers.image(record)
                if new:
                    images.add(self._image(record, image_id, table))
                for box, region in boxes_in_order(record):
                    if box.crowd:
                        continue  # counted below
                    row = annotation_row(record, box, numbers.box(box), image_id, table.category_id(record, region))
                    annotations.add({key: value for key, value in row.items() if key != "iscrowd"})
                table.count(record)
                count(record, tally, crowds=False)
            members = {"info": {"description": ", ".join(sources)}, "licenses": numbers.licences}
            lists = {"images": images, "annotations": annotations, "categories": table.rows()}
            write_document(files.join(out, name), {**members, **lists}, self.compression)
        return tally.exported(name, *pictures.written)

    def _image(self, record: Record, image_id: int | str, table: Table) -> dict[str, Any]:
        row = image_row(record, image_id, self.filename(record))
        path = row.pop("file_name")
        if self.images != "none" or "coco_url" not in row:
            row["coco_url"] = URL + path
        elif "file_name" in record.extra:
            row["file_name"] = record.extra["file_name"]  # v0.5 has one, of 2014
        return row | table.searched(record)


class Table:
    """Categories with their counts, and what was searched for in an image."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._ids = {category.name: category.id for category in vocabulary.categories}
        self._images: Counter[int] = Counter()
        self._instances: Counter[int] = Counter()

    def category_id(self, record: Record, region: Region) -> int:
        """The id of a region's category."""
        return self._vocabulary.id_at(self._vocabulary.index(record, region))

    def searched(self, record: Record) -> dict[str, list[int]]:
        """`neg_category_ids` and `not_exhaustive_category_ids` of an image."""
        lists = {key: list(record.extra.get(key, [])) for key in ("neg_category_ids", "not_exhaustive_category_ids")}
        if "neg_category_ids" not in record.extra:
            names = [record.text[start:end] for start, end in record.negatives]
            lists["neg_category_ids"] = sorted(self._ids[name] for name in names if name in self._ids)
        if "not_exhaustive_category_ids" not in record.extra:
            unsure = [
                self.category_id(record, region)
                for region in record.regions
                if not record.exhaustive or any(box.crowd for box in region.boxes)
            ]
            lists["not_exhaustive_category_ids"] = sorted(set(unsure))
        return lists

    def count(self, record: Record) -> None:
        """Add a record to the counts of its categories."""
        found = Counter[int]()
        for region in record.regions:
            found[self.category_id(record, region)] += sum(not box.crowd for box in region.boxes)
        self._instances += found
        self._images.update(key for key, count in found.items() if count)

    def rows(self) -> list[dict[str, Any]]:
        """Category rows; what the source says of itself comes before what was counted here."""
        return [self._row(category) for category in self._vocabulary.categories]

    def _row(self, category: Category) -> dict[str, Any]:
        images = self._images[category.id]
        counted_here = {
            "synset": "",
            "synonyms": [category.name],
            "def": "",
            "frequency": "r" if images <= 10 else "c" if images <= 100 else "f",
            "image_count": images,
            "instance_count": self._instances[category.id],
        }
        return counted_here | dict(category_row(category))
