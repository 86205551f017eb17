"""GroundingCap jsonl as LLMDet publishes it: an ODVG grounding line with a conversation about the image and tags.

    {"filename": "1.jpg", "height": 480, "width": 640,
     "conversations": [{"from": "human", "value": "<image>\\nDescribe the image in detail."},
                       {"from": "gpt", "value": "A dog lies on a red sofa ..."}],
     "tags": ["dog", "sofa"], "grounding": {"caption": "dog. cat. ", "regions": [...]}}

Regions are those of `llmdet.exports.odvg`; where boxes have captions of their own a region has `captions` beside
`bbox`, one per box, null where a box has none. The conversation carries the record's first caption; a record without
one has no conversation. Cannot hold: further captions, provenance, scores, which boxes are pseudo, masks, areas,
annotation ids, crowd boxes, members of a line that LLMDet's lines have not (`extra` of a Record keeps those).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from llmdet.exports.exporter import Exported, JsonLines, Sources, losses, lost_boxes
from llmdet.exports.json_text import Column, arrays, joined, objects, strings
from llmdet.exports.odvg import grounding, header
from llmdet.flat import Flat, offsets_of

HUMAN = "<image>\nDescribe the image in detail."  # what LLMDet asks in training, whatever its files ask
_HELD = frozenset({"image captions", "tags", "box captions"})


@dataclass(frozen=True, kw_only=True)
class GroundingCap(JsonLines):
    """Writes `groundingcap.jsonl`."""

    stem: ClassVar[str] = "groundingcap"
    cannot_hold: ClassVar[str] = (
        "GroundingCap jsonl holds the first caption of an image and no provenance, scores, pseudo marks, masks, areas "
        "or annotation ids, and no crowd boxes"
    )

    human: str = HUMAN  # where the source has no human turn of its own

    def objects(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Column:
        tags = batch.column("tags")
        quoted = joined(arrays(strings(tags.flatten()), offsets_of(tags)))
        members: dict[str, Column] = {
            **header(self.filenames(batch), batch),
            "conversations": self._conversations(batch),
            "tags": pc.if_else(pc.greater(tags.value_lengths(), 0), quoted, pa.scalar(None, pa.string())),
            "grounding": grounding(batch, captions=True),
        }
        return objects(members)

    def count(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Exported:
        flat = Flat.of(batch)
        lost = losses(batch, flat, _HELD) | lost_boxes(flat)
        further = int(np.clip(np.diff(offsets_of(batch.column("captions"))) - 1, 0, None).sum())
        lost |= {"captions after the first": further} if further else {}
        return Exported((), batch.num_rows, len(flat.boxes) - int(flat.crowds().sum()), lost)

    def _conversations(self, batch: pa.RecordBatch) -> pa.Array:
        """Two turns for a record with a caption, null for one without."""
        offsets = offsets_of(batch.column("captions"))
        some = np.diff(offsets) > 0
        texts = batch.column("captions").flatten().field("text")
        first = texts.take(pa.array(np.where(some, offsets[:-1], 0), mask=~some))
        # Nearly all records have the same question, so only the answers are new text.
        lead = orjson.dumps([_turn("human", self.human)])[:-1].decode() + ',{"from":"gpt","value":'
        both = joined((lead, joined(strings(first)), "}]"))
        # A source's own turns are rows of Python: they differ in ways that columns cannot say.
        extra = batch.column("extra")
        own = pc.and_(pa.array(some), pc.match_substring_regex(extra, '"(human|conversations)"').fill_null(False))
        pairs = zip(extra.filter(own).to_pylist(), first.filter(own).to_pylist(), strict=True)
        told = [orjson.dumps(turns(orjson.loads(text), answer, self.human)).decode() for text, answer in pairs]
        return pc.replace_with_mask(both, own, pa.array(told, pa.string()))


def turns(extra: dict[str, Any], answer: str, human: str) -> list[dict[str, Any]]:
    """The conversation of a record: the source's own turns with `answer` as the first one of gpt, where it has any."""
    if "conversations" in extra:
        told = [dict(turn) for turn in extra["conversations"]]
        next(turn for turn in told if turn["from"] == "gpt")["value"] = answer
        return told
    return [_turn("human", extra.get("human", human)), _turn("gpt", answer)]


def _turn(speaker: str, text: str) -> dict[str, Any]:
    return {"from": speaker, "value": text}
