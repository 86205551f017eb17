"""LLaVA conversations: one JSON list that LLaVA, LLaVA-OneVision and most fine-tuning tools train on.

    [{"id": "coco/9/0", "image": "000000000009.jpg", "conversations": [
      {"from": "human", "value": "<image>\\nDescribe the image in detail."}, {"from": "gpt", "value": "A dog ..."}]}]

One sample per caption of an image. Cannot hold: boxes, texts, tags; a record without caption is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from llmdet import files
from llmdet.exports.document import Rows, write_list
from llmdet.exports.exporter import SUFFIXES, ByRecord, Exported, Sources, Tally
from llmdet.exports.groundingcap import HUMAN, turns
from llmdet.exports.pictures import Pictures
from llmdet.record import Record


@dataclass(frozen=True, kw_only=True)
class Llava(ByRecord):
    """Writes `llava.json`."""

    cannot_hold: ClassVar[str] = "LLaVA conversations hold the captions of images; no boxes, grounding texts or tags"
    holds: ClassVar[frozenset[str]] = frozenset({"image captions"})

    human: str = HUMAN  # where the source has no human turn of its own
    compression: files.Compression | None = None

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        name = f"llava.json{SUFFIXES[self.compression]}"
        pictures, tally = Pictures(out, self.images, sources), Tally()
        with Rows() as rows:
            for record in self.records(batches, pictures, tally):
                for row in self._samples(record):
                    rows.add(row)
                if record.captions:
                    tally.add(0)
                tally.lose("records without caption", not record.captions)
                tally.lose("boxes", sum(len(region.boxes) for region in record.regions))
            write_list(files.join(out, name), rows, self.compression)
        return tally.exported(name, *pictures.written)

    def _samples(self, record: Record) -> Iterator[dict[str, Any]]:
        for index, caption in enumerate(record.captions):
            yield {
                "id": record.id if index == 0 else f"{record.id}#{index}",
                "image": self.filename(record),
                "conversations": turns(record.extra if index == 0 else {}, caption.text, self.human),
            }
