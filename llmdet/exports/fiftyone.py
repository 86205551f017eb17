"""FiftyOne's FiftyOneDataset format on disk, made without FiftyOne.

    metadata.json   {"name": "GroundingCap", "media_type": "image", "info": {...}}
    samples.json    {"samples": [{"filepath": "data/coco/9.jpg", "tags": ["train"], "text": "dog. cat. ",
                     "ground_truth": {"_cls": "Detections", "detections": [{"_cls": "Detection", "label": "dog",
                      "bounding_box": [0.1, 0.2, 0.3, 0.4], ...}]}}]}

Load it with `fiftyone.Dataset.from_dir(dataset_dir=OUT, dataset_type=fiftyone.types.FiftyOneDataset)`; with
`images: none` add `rel_dir=` the picture folder. No `version` in the metadata: FiftyOne then takes the plain JSON
layout that any version reads, and finds the fields by itself. A box is [x, y, width, height] as parts of the sides;
pseudo boxes are the field `predictions`. Phrase, spans and box caption are attributes of a detection, image captions a
list of texts. Cannot hold: provenance of captions, masks, negatives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from llmdet import files
from llmdet.exports.coco import boxes_in_order
from llmdet.exports.document import Rows, write_document
from llmdet.exports.exporter import ByRecord, Exported, Sources, Tally
from llmdet.exports.pictures import Pictures
from llmdet.exports.vocabulary import Vocabulary
from llmdet.record import Box, Record, Region


@dataclass(frozen=True, kw_only=True)
class FiftyOne(ByRecord):
    """Writes `metadata.json`, `samples.json` and, where wanted, pictures below `data/<root>/`."""

    cannot_hold: ClassVar[str] = "FiftyOne samples hold no provenance of captions, no masks and no negatives"
    holds: ClassVar[frozenset[str]] = frozenset(
        {"image captions", "tags", "box captions", "scores", "pseudo marks", "annotation ids", "areas"}
    )

    name: str = "GroundingCap"

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        pictures, tally = Pictures(out, self.images, sources, "data"), Tally()
        vocabulary = Vocabulary(sources)
        with Rows() as samples:
            for record in self.records(batches, pictures, tally):
                samples.add(self._sample(record, vocabulary))
                tally.add(sum(len(region.boxes) for region in record.regions))
                tally.lose("regions without boxes", sum(not region.boxes for region in record.regions))
            write_document(files.join(out, "samples.json"), {"samples": samples})
        info = {"sources": [{"name": key, "licence": s.licence, "address": s.address} for key, s in sources.items()]}
        files.write_json(files.join(out, "metadata.json"), {"name": self.name, "media_type": "image", "info": info})
        return tally.exported("metadata.json", "samples.json", *pictures.written)

    def _sample(self, record: Record, vocabulary: Vocabulary) -> dict[str, Any]:
        pairs = boxes_in_order(record)
        human = [_detection(record, *pair, vocabulary) for pair in pairs if pair[0].origin == "human"]
        pseudo = [_detection(record, *pair, vocabulary) for pair in pairs if pair[0].origin == "pseudo"]
        return {
            "filepath": ("" if self.images == "none" else "data/") + self.filename(record),
            "_media_type": "image",
            "tags": [tag for tag in (record.split, record.source) if tag],
            "metadata": {"_cls": "ImageMetadata", "width": record.width, "height": record.height},
            "record_id": record.id,
            "text": record.text,
            "captions": [caption.text for caption in record.captions],
            "nouns": list(record.tags),
            "ground_truth": {"_cls": "Detections", "detections": human},
            "predictions": {"_cls": "Detections", "detections": pseudo},
        }


def _detection(record: Record, box: Box, region: Region, vocabulary: Vocabulary) -> dict[str, Any]:
    x1, y1, x2, y2 = box.xyxy
    row: dict[str, Any] = {
        "_cls": "Detection",
        "tags": [],
        "label": vocabulary.name_at(vocabulary.index(record, region)),
        "bounding_box": [
            x1 / record.width,
            y1 / record.height,
            (x2 - x1) / record.width,
            (y2 - y1) / record.height,
        ],
        "phrase": " ".join(region.phrases),
        "spans": [list(span) for span in region.spans],
        "iscrowd": int(box.crowd),
    }
    optional = {
        "confidence": box.score,
        "annotation_id": box.annotation_id,
        "area": box.area,
        "caption": box.caption.text if box.caption else None,
    }
    return row | {key: value for key, value in optional.items() if value is not None}
