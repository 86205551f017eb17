"""ODVG, the jsonl that MM-Grounding-DINO trains on: one object a line, grounding (VG) or detection (OD) form.

    {"filename": "1.jpg", "height": 375, "width": 500, "grounding": {"caption": "a dog . ", "regions":
     [{"bbox": [26.0, 1.0, 347.0, 151.0], "phrase": "a dog", "tokens_positive": [[0, 5]]}]}}
    {"filename": "1.jpg", "height": 375, "width": 500, "detection": {"instances":
     [{"bbox": [26.0, 1.0, 347.0, 151.0], "label": 16, "category": "dog"}]}}

Boxes are xyxy pixels, as stored and never clipped. One box or phrase stands alone, several stand in a list. In the OD
form a label is the rank of the category id, and `label_map.json` names the labels. Cannot hold: captions, scores,
which boxes are pseudo, masks, areas, annotation ids, negatives apart from the text, crowd boxes (left out, as every
converter does); the OD form no text either, so sentences and boxes without a category are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet import files
from llmdet.errors import SettingError
from llmdet.exports.exporter import Exported, JsonLines, Sources, losses, lost_boxes
from llmdet.exports.json_text import (
    Column,
    Pieces,
    arrays,
    arrays_of_rows,
    integers,
    joined,
    objects,
    one_or_many,
    one_or_many_rows,
    rows,
    strings,
)
from llmdet.exports.vocabulary import Vocabulary, unknown_category
from llmdet.flat import Flat, offsets_of

# What a grounding line is made of, as parquet spells it.
_LEAVES = frozenset(
    {
        *("image", "root", "height", "width", "text"),
        "regions.list.element.phrases.list.element",
        "regions.list.element.spans.list.element.list.element",
        "regions.list.element.boxes.list.element.xyxy.list.element",
        "regions.list.element.boxes.list.element.crowd",
    }
)


@dataclass(frozen=True, kw_only=True)
class Odvg(JsonLines):
    """Writes `odvg.jsonl`; the OD form adds `label_map.json`."""

    stem: ClassVar[str] = "odvg"
    cannot_hold: ClassVar[str] = (
        "ODVG holds no captions, scores, pseudo marks, masks, areas or annotation ids, and no crowd boxes"
    )

    form: Literal["vg", "od"] = "vg"

    @property
    def leaves(self) -> frozenset[str] | None:
        return _LEAVES if self.form == "vg" else None

    def objects(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Column:
        """The OD form needs `sources` for its labels; raises SettingError without."""
        if self.form == "od":
            vocabulary = _with_names(sources)
            return self._detection(_detections(batch, vocabulary), vocabulary)
        return objects({**header(self.filenames(batch), batch), "grounding": grounding(batch)})

    def count(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Exported:
        """What the lines hold and lose; the OD form needs `sources`."""
        kept = _detections(batch, _with_names(sources)) if self.form == "od" else batch
        flat = Flat.of(kept)
        lost = losses(kept, flat, frozenset()) | lost_boxes(flat)
        if self.form == "od":
            nameless = _nameless(flat)
            lost |= {"records without categories": batch.num_rows - kept.num_rows, "boxes without a category": nameless}
            flat = flat.keep_boxes(_named(flat))
        held = len(flat.boxes) - int(flat.crowds().sum())
        return Exported((), kept.num_rows, held, {key: count for key, count in lost.items() if count})

    def _finish(self, out: str, sources: Sources, written: Exported) -> Exported:
        written = super()._finish(out, sources, written)
        if self.form == "od":
            files.write_json(files.join(out, "label_map.json"), label_map(sources))
            written += Exported(("label_map.json",))
        return written

    def _detection(self, batch: pa.RecordBatch, vocabulary: Vocabulary) -> Pieces:
        flat = Flat.of(batch)
        flat = flat.keep_boxes(_named(flat) & ~flat.crowds())
        owner = flat.record_of_region[flat.region_of_box]
        # Instances stand as the source listed its annotations, whatever the order of names in the text.
        order = np.lexsort((flat.boxes.field("order").to_numpy(zero_copy_only=False), owner))
        label = _labels(batch, flat, vocabulary)[flat.region_of_box[order]]
        names = joined(strings(pa.array(vocabulary.names, pa.string())))
        members: dict[str, Column] = {
            "bbox": rows(flat.xyxy[order]),
            "label": integers(pa.array(label)),
            "category": names.take(pa.array(label)),
        }
        counts = np.bincount(owner, minlength=batch.num_rows)
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
        detection = objects({"instances": arrays(objects(members), offsets)})
        return objects({**header(self.filenames(batch), batch), "detection": detection})


def header(filenames: pa.Array, batch: pa.RecordBatch) -> dict[str, Column]:
    """The members that every ODVG line begins with."""
    size: dict[str, Column] = {key: integers(batch.column(key)) for key in ("height", "width")}
    return {"filename": strings(filenames), **size}


def grounding(batch: pa.RecordBatch, *, captions: bool = False) -> Pieces:
    """The `grounding` objects of a batch; with `captions`, each region's box captions parallel to its boxes."""
    flat = Flat.of(batch)
    flat = flat.keep_boxes(~flat.crowds()).with_boxes_only()
    phrases, spans = flat.regions.field("phrases"), flat.regions.field("spans")
    flat_spans = spans.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, 2)
    members: dict[str, Column] = {
        "phrase": one_or_many(strings(phrases.flatten()), offsets_of(phrases)),
        "tokens_positive": arrays_of_rows(flat_spans, offsets_of(spans)),
    }
    if captions:
        members["captions"] = _box_captions(flat)
    regions = arrays(objects(members, one_or_many_rows("bbox", flat.xyxy, flat.box_offsets)), flat.region_offsets)
    return objects({"caption": strings(batch.column("text")), "regions": regions})


def label_map(sources: Sources) -> dict[str, str]:
    """Label (as text) to name, over all sources that have categories."""
    return {str(label): name for label, name in enumerate(Vocabulary(sources).names)}


def _with_names(sources: Sources | None) -> Vocabulary:
    vocabulary = Vocabulary(sources or {})
    if not len(vocabulary):
        raise SettingError("the OD form of ODVG needs a source with categories; use --form vg for sentences")
    return vocabulary


def _detections(batch: pa.RecordBatch, vocabulary: Vocabulary) -> pa.RecordBatch:
    """The records that have labels: of a detection source with categories."""
    known = pa.array(
        [name for name in set(batch.column("source").to_pylist()) if vocabulary.of_source(name)], pa.string()
    )
    is_known = pc.is_in(batch.column("source"), value_set=known)
    return batch.filter(pc.and_(is_known, pc.equal(batch.column("kind"), "detection")))


def _labels(batch: pa.RecordBatch, flat: Flat, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """The label of every region, 0 where it has no category. Raises FormatError for an id that is not listed."""
    ids = flat.regions.field("category_id").fill_null(-1).to_numpy(zero_copy_only=False)
    absent = flat.regions.field("category_id").is_null().to_numpy(zero_copy_only=False)
    sources = batch.column("source").dictionary_encode()
    source_of_region = sources.indices.to_numpy(zero_copy_only=False)[flat.record_of_region]
    label = np.zeros(len(ids), dtype=np.int64)
    for code, source in enumerate(sources.dictionary.to_pylist()):
        index_of = vocabulary.of_source(source)
        known, index = np.array(sorted(index_of)), np.array([index_of[key] for key in sorted(index_of)])
        mine = (source_of_region == code) & ~absent
        rank = np.minimum(np.searchsorted(known, ids[mine]), len(known) - 1)
        wrong = known[rank] != ids[mine]
        if wrong.any():
            raise unknown_category(source, int(ids[mine][wrong][0]))
        label[mine] = index[rank]
    return label


def _named(flat: Flat) -> NDArray[np.bool_]:
    """Which boxes have a category, (n,)."""
    has: NDArray[np.bool_] = flat.regions.field("category_id").is_valid().to_numpy(zero_copy_only=False)
    return has[flat.region_of_box]


def _nameless(flat: Flat) -> int:
    return int((~_named(flat) & ~flat.crowds()).sum())


def _box_captions(flat: Flat) -> pa.Array:
    """`[text or null, ...]` for a region where at least one box has a caption, null elsewhere."""
    captions = flat.boxes.field("caption")
    present = captions.is_valid().to_numpy(zero_copy_only=False)
    texts = pc.if_else(captions.is_valid(), joined(strings(captions.field("text"))), "null")
    counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(present)])
    some = np.diff(counted[flat.box_offsets]) > 0
    return pc.if_else(pa.array(some), joined(arrays(texts, flat.box_offsets)), pa.scalar(None, pa.string()))
