"""MDETR's and GLIP's `final_*.json`: COCO's layout with one "image" per caption and character spans per box.

    {"file_name": "2331.jpg", "height": 375, "width": 500, "id": 12, "original_id": "2331", "caption": "a red bus.",
     "tokens_negative": [[0, 10]], "dataset_name": "gqa"}
    {"id": 40, "image_id": 12, "category_id": 1, "bbox": [31.0, 12.0, 90.0, 60.0], "area": 5400.0, "iscrowd": 0,
     "tokens_positive": [[2, 9]]}

Read by MDETR, GLIP, YOLO-World and mmdet's goldg2odvg. A record that came from such a file gives its other members
back. Cannot hold: captions, box captions, tags, scores, masks, phrases without a box.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from llmdet import boxes, files
from llmdet.exports.coco import Numbers, boxes_in_order, own_id, said_of_box
from llmdet.exports.document import Rows, write_document
from llmdet.exports.exporter import SUFFIXES, ByRecord, Exported, Sources, Tally
from llmdet.exports.pictures import Pictures
from llmdet.record import Box, Record, Region

CATEGORIES = [{"supercategory": "object", "id": 1, "name": "object"}]


@dataclass(frozen=True, kw_only=True)
class Mdetr(ByRecord):
    """Writes `final_<name>.json`."""

    cannot_hold: ClassVar[str] = (
        "MDETR json holds texts, boxes and spans; no captions, tags, scores, masks, and no phrase without a box"
    )
    holds: ClassVar[frozenset[str]] = frozenset({"negatives", "annotation ids", "areas"})

    name: str = "llmdet_train"
    compression: files.Compression | None = None

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        name = f"final_{self.name}.json{SUFFIXES[self.compression]}"
        pictures, tally = Pictures(out, self.images, sources), Tally()
        with Rows() as images, Rows() as annotations:
            numbers = Numbers(single=len(sources) == 1)
            for record in self.records(batches, pictures, tally):
                number = numbers.text(record)
                images.add(_image(record, number, self.filename(record)))
                for box, region in boxes_in_order(record):
                    annotations.add(_annotation(record, box, region, numbers.box(box), number))
                tally.add(sum(len(region.boxes) for region in record.regions))
                tally.lose("regions without boxes", sum(not region.boxes for region in record.regions))
            lists = {"images": images, "annotations": annotations, "categories": CATEGORIES}
            write_document(files.join(out, name), {"info": [], "licenses": [], **lists}, self.compression)
        return tally.exported(name, *pictures.written)


def _image(record: Record, number: int, filename: str) -> dict[str, Any]:
    own = {"file_name": filename, "height": record.height, "width": record.width, "id": number, "caption": record.text}
    if "id" in record.extra:  # it came from such a file
        return own | {
            key: value for key, value in record.extra.items() if key not in own and key not in ("annotations", "checks")
        }
    return own | {
        "original_img_id": own_id(record.image_id),
        "sentence_id": own_id(record.text_id),
        "dataset_name": record.source,
        "tokens_negative": record.negatives or ((0, len(record.text)),),
        "tokens_positive_eval": [[span] for region in record.regions if region.boxes for span in region.spans],
    }


def _annotation(record: Record, box: Box, region: Region, number: int | str, image: int) -> dict[str, Any]:
    xywh = boxes.to_xywh(box.xyxy)
    own = {
        "area": xywh[2] * xywh[3] if box.area is None else box.area,
        "iscrowd": int(box.crowd),
        "image_id": image,
        "category_id": 1,
        "id": number,
        "bbox": xywh,
        "tokens_positive": region.spans,
    }
    return own | {key: value for key, value in said_of_box(record, box).items() if key != "category_id"}
