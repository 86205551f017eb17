"""Label Studio tasks: boxes as rectangles to be corrected by people, pseudo boxes as predictions.

    [{"data": {"image": "/data/local-files/?d=coco/9.jpg", "text": "dog. cat. ", "id": "coco/9/0"},
      "annotations": [{"result": [{"id": "0", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": 640, "original_height": 480, "image_rotation": 0,
        "value": {"x": 12.5, "y": 20.0, "width": 30.0, "height": 25.0, "rotation": 0, "rectanglelabels": ["dog"]}}]}],
      "predictions": []}]

x, y, width and height are percent of the picture. `config.xml` is the labelling interface for the same labels. A label
is the category's name or the region's first phrase. Human boxes are one annotation, pseudo boxes one prediction with
the lowest score of its boxes. Cannot hold: spans, negatives, masks, areas, crowd flags, all captions but the first;
percents come back to pixels within 1e-9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pyarrow as pa

from llmdet import files
from llmdet.exports.coco import boxes_in_order
from llmdet.exports.document import Rows, write_list
from llmdet.exports.exporter import ByRecord, Exported, Sources, Tally
from llmdet.exports.pictures import Pictures
from llmdet.exports.vocabulary import Vocabulary
from llmdet.record import Box, Record


@dataclass(frozen=True, kw_only=True)
class LabelStudio(ByRecord):
    """Writes `tasks.json` and `config.xml`."""

    cannot_hold: ClassVar[str] = (
        "Label Studio holds boxes with one label each, a text and the first caption; no spans, negatives or masks"
    )
    holds: ClassVar[frozenset[str]] = frozenset({"image captions", "scores", "pseudo marks", "box captions", "tags"})

    prefix: str = "/data/local-files/?d="  # of picture names: how the server finds files, or a web address

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        pictures, tally, vocabulary = Pictures(out, self.images, sources), Tally(), Vocabulary(sources)
        with Rows() as tasks:
            for record in self.records(batches, pictures, tally):
                tasks.add(self._task(record, vocabulary))
                tally.add(sum(len(region.boxes) for region in record.regions))
                tally.lose("spans", sum(len(region.spans) for region in record.regions))
                tally.lose("crowd marks", sum(box.crowd for box in record.boxes))
                tally.lose("captions after the first", max(0, len(record.captions) - 1))
            write_list(files.join(out, "tasks.json"), tasks)
        files.write_bytes(files.join(out, "config.xml"), _interface(vocabulary.names).encode())
        return tally.exported("tasks.json", "config.xml", *pictures.written)

    def _task(self, record: Record, vocabulary: Vocabulary) -> dict[str, Any]:
        human: list[dict[str, Any]] = []
        pseudo: list[dict[str, Any]] = []
        scores: list[float] = []
        for index, (box, region) in enumerate(boxes_in_order(record)):
            label = vocabulary.name_at(vocabulary.index(record, region))
            (human if box.origin == "human" else pseudo).append(_rectangle(record, box, str(index), label))
            scores += [box.score] if box.origin == "pseudo" and box.score is not None else []
        data = {
            "image": self.prefix + quote(("" if self.images == "none" else "images/") + self.filename(record)),
            "text": record.text,
            "caption": record.captions[0].text if record.captions else "",
            "tags": record.tags,
            "id": record.id,
        }
        prediction = {"model_version": "llmdet-data", "result": pseudo} | ({"score": min(scores)} if scores else {})
        return {
            "data": data,
            "annotations": [{"result": human}] if human or not pseudo else [],
            "predictions": [prediction] if pseudo else [],
        }


def _rectangle(record: Record, box: Box, number: str, label: str) -> dict[str, Any]:
    x1, y1, x2, y2 = box.xyxy
    value = {
        "x": x1 * 100 / record.width,
        "y": y1 * 100 / record.height,
        "width": (x2 - x1) * 100 / record.width,
        "height": (y2 - y1) * 100 / record.height,
        "rotation": 0,
        "rectanglelabels": [label],
    }
    row: dict[str, Any] = {
        "id": number,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": record.width,
        "original_height": record.height,
        "image_rotation": 0,
        "value": value,
    }
    if box.score is not None:
        row["score"] = box.score
    if box.caption is not None:
        row["meta"] = {"text": [box.caption.text]}
    return row


def _interface(names: list[str]) -> str:
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in dict.fromkeys(names))
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n  <Text name="text" value="$text"/>\n'
        f'  <RectangleLabels name="label" toName="image">\n{labels}\n  </RectangleLabels>\n</View>\n'
    )
