"""ODVG, the jsonl that MM-Grounding-DINO trains on: one object a line, grounding (VG) or detection (OD) form.

    {"filename": "1.jpg", "height": 375, "width": 500, "grounding": {"caption": "a dog . ", "regions":
     [{"bbox": [26.0, 1.0, 347.0, 151.0], "phrase": "a dog", "tokens_positive": [[0, 5]]}]}}
    {"filename": "1.jpg", "height": 375, "width": 500, "detection": {"instances":
     [{"bbox": [26.0, 1.0, 347.0, 151.0], "label": 16, "category": "dog"}]}}

Boxes are xyxy pixels, as stored and never clipped. One box or phrase stands alone, several stand in a list. In the OD
form a label is the rank of the category id, and `label_map.json` names the labels. Cannot hold: captions, scores,
which boxes are pseudo, masks, areas, annotation ids, negatives apart from the text, crowd boxes (left out, as every
converter does); the OD form no text either, so records of sentences are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet import files
from llmdet.errors import SettingError
from llmdet.exports.exporter import Exported, JsonLines, Sources, losses, lost_boxes
from llmdet.exports.flat import Flat
from llmdet.exports.json_text import arrays, integers, lines, objects, offsets_of, one_or_many, rows, strings


@dataclass(frozen=True, kw_only=True)
class Odvg(JsonLines):
    """Writes `odvg.jsonl`; the OD form adds `label_map.json`."""

    stem: ClassVar[str] = "odvg"
    cannot_hold: ClassVar[str] = (
        "ODVG holds no captions, scores, pseudo marks, masks, areas or annotation ids, and no crowd boxes"
    )

    form: Literal["vg", "od"] = "vg"

    def encode(self, batch: pa.RecordBatch, sources: Sources | None = None) -> bytes:
        """The lines of a batch. The OD form needs `sources` for its labels; raises SettingError without."""
        if self.form == "od":
            return lines(self._detection(batch.filter(_is_detection(batch)), _labels(sources)))
        return lines(objects({**header(self.filenames(batch), batch), "grounding": grounding(batch)}))

    def count(self, batch: pa.RecordBatch, sources: Sources | None = None) -> Exported:
        kept = batch.filter(_is_detection(batch)) if self.form == "od" else batch
        flat = Flat.of(kept)
        lost = losses(kept, flat, frozenset()) | lost_boxes(flat)
        lost |= {"records of sentences": batch.num_rows - kept.num_rows} if kept.num_rows < batch.num_rows else {}
        return Exported((), kept.num_rows, len(flat.boxes) - int(flat.crowds().sum()), lost)

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        written = super().write(batches, out, sources)
        if self.form == "od":
            files.write_json(files.join(out, "label_map.json"), label_map(sources))
            written += Exported(("label_map.json",))
        return written

    def _detection(self, batch: pa.RecordBatch, labels: dict[str, Labels]) -> pa.Array:
        flat = Flat.of(batch)
        flat = flat.keep_boxes(~flat.crowds())
        label, name = _labelled(batch, flat, labels)
        owner = flat.record_of_region[flat.region_of_box]
        # Instances stand as the source listed its annotations, whatever the order of names in the text.
        order = np.lexsort((flat.boxes.field("order").to_numpy(zero_copy_only=False), owner))
        box = objects(
            {
                "bbox": rows(flat.xyxy[order]),
                "label": integers(pa.array(label[flat.region_of_box[order]])),
                "category": name.take(pa.array(flat.region_of_box[order])),
            }
        )
        counts = np.bincount(owner, minlength=batch.num_rows)
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
        detection = objects({"instances": arrays(box, offsets)})
        return objects({**header(self.filenames(batch), batch), "detection": detection})


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one source: `label[i]` and the quoted `names[i]` belong to category id `ids[i]`."""

    ids: NDArray[np.int64]  # ascending
    label: NDArray[np.int64]
    names: pa.Array


def header(filenames: pa.Array, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """The members that every ODVG line begins with."""
    size = {key: integers(batch.column(key)) for key in ("height", "width")}
    return {"filename": strings(filenames), **size}


def grounding(batch: pa.RecordBatch, *, captions: bool = False) -> pa.Array:
    """The `grounding` objects of a batch; with `captions`, each region's box captions parallel to its boxes."""
    flat = Flat.of(batch)
    flat = flat.keep_boxes(~flat.crowds()).with_boxes_only()
    phrases, spans = flat.regions.field("phrases"), flat.regions.field("spans")
    flat_spans = spans.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, 2)
    members = {
        "bbox": one_or_many(rows(flat.xyxy), flat.box_offsets),
        "phrase": one_or_many(strings(phrases.flatten()), offsets_of(phrases)),
        "tokens_positive": arrays(rows(flat_spans), offsets_of(spans)),
    }
    if captions:
        members["captions"] = _box_captions(flat)
    regions = arrays(objects(members), flat.region_offsets)
    return objects({"caption": strings(batch.column("text")), "regions": regions})


def label_map(sources: Sources) -> dict[str, str]:
    """Label (as text) to name, over all sources that have categories."""
    return {str(label): name for name, label in _numbered(sources)}


def _numbered(sources: Sources) -> list[tuple[str, int]]:
    """Names with their labels. One source: rank by id. Several: the same name is the same label everywhere."""
    ranked = [sorted(info.categories, key=lambda category: category.id) for info in sources.values() if info.categories]
    if len(ranked) == 1:
        return [(category.name, rank) for rank, category in enumerate(ranked[0])]
    names = dict.fromkeys(category.name for categories in ranked for category in categories)
    return [(name, label) for label, name in enumerate(names)]


def _labels(sources: Sources | None) -> dict[str, Labels]:
    having = {name: info for name, info in (sources or {}).items() if info.categories}
    if not having:
        raise SettingError("the OD form of ODVG needs a source with categories; use --form vg for sentences")
    numbered = _numbered(having)
    label_of = dict(numbered)
    found = {}
    for name, info in having.items():
        categories = sorted(info.categories, key=lambda category: category.id)
        # With one source the rank counts, even where two ids have the same name.
        label = range(len(categories)) if len(having) == 1 else [label_of[category.name] for category in categories]
        found[name] = Labels(
            np.array([category.id for category in categories], dtype=np.int64),
            np.array(label, dtype=np.int64),
            strings(pa.array([category.name for category in categories], pa.string())),
        )
    return found


def _labelled(batch: pa.RecordBatch, flat: Flat, labels: dict[str, Labels]) -> tuple[NDArray[np.int64], pa.Array]:
    """Label and quoted name of every region."""
    ids = flat.regions.field("category_id").to_numpy(zero_copy_only=False)
    source_of = batch.column("source").dictionary_encode()
    code_of_region = source_of.indices.to_numpy(zero_copy_only=False)[flat.record_of_region]
    label = np.zeros(len(ids), dtype=np.int64)
    place = np.zeros(len(ids), dtype=np.int64)  # in the names of all sources, one after the other
    base = 0
    for code, source in enumerate(source_of.dictionary.to_pylist()):
        known = labels[source]
        mine = code_of_region == code
        rank = np.searchsorted(known.ids, ids[mine].astype(np.int64))
        label[mine], place[mine] = known.label[rank], rank + base
        base += len(known.ids)
    names = [labels[source].names for source in source_of.dictionary.to_pylist()]
    return label, (pa.concat_arrays(names) if names else pa.array([], pa.string())).take(pa.array(place))


def _is_detection(batch: pa.RecordBatch) -> pa.Array:
    return pc.equal(batch.column("kind"), "detection")


def _box_captions(flat: Flat) -> pa.Array:
    """`[text or null, ...]` for a region where at least one box has a caption, null elsewhere."""
    captions = flat.boxes.field("caption")
    present = captions.is_valid().to_numpy(zero_copy_only=False)
    texts = pc.if_else(captions.is_valid(), strings(captions.field("text")), "null")
    counted = np.concatenate([np.zeros(1, np.int64), np.cumsum(present)])
    some = np.diff(counted[flat.box_offsets]) > 0
    return pc.if_else(pa.array(some), arrays(texts, flat.box_offsets), pa.scalar(None, pa.string()))
