"""RefCOCO, RefCOCO+, RefCOCOg: expressions that mean one object of a COCO photo; the original pickles, or MDETR's json.

One entry of `refs(unc).p`, a pickled list (the box is in `instances.json` beside it, under `ann_id`):

    {"ref_id": 7, "ann_id": 1719, "image_id": 581, "category_id": 1, "split": "testA", "sent_ids": [20],
     "file_name": "COCO_train2014_000000000581_16.jpg", "sentences": [
       {"sent_id": 20, "sent": "woman in blue", "raw": "WOMAN in blue", "tokens": ["woman", "in", "blue"]}]}

https://github.com/lichengunc/refer; the authors state no licence, boxes are COCO's (CC BY 4.0). RefCOCO 142,210
expressions of 50,000 objects, RefCOCO+ 141,564 of 49,856, RefCOCOg (umd) 95,010 of 49,822. Photos are COCO
train2014's: `_16` in the name above is no part of it. The pickle is read as data and cannot run anything. MDETR's are
`finetune_refcoco{,+,g}_{train,val,testA,testB,test}.json` and `final_refexp_val.json`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
from fsspec.core import url_to_fs

from llmdet import boxes
from llmdet.errors import FormatError, MissingError, SettingError
from llmdet.files import exists, join, read_json
from llmdet.plain_pickle import read_plain_pickle
from llmdet.record import Box, Record, Region, record_id
from llmdet.rejects import Kind, Level, Reject
from llmdet.sources.mdetr import Fault, MdetrJson, size_fault, storing_fault, xywh
from llmdet.sources.source import Item, SourceInfo

ADDRESS = "https://github.com/lichengunc/refer"
LICENCE = "not stated (expressions); CC-BY-4.0 (COCO boxes); Flickr terms (photos)"
_SUFFIX = re.compile(r"(_[0-9]{12})_[0-9]+(\.\w+)$")


@dataclass(frozen=True, kw_only=True)
class RefCoco:
    """Reads one refs pickle (or a folder with exactly one) or one MDETR json. One expression is one Record.

    Its only region is the whole expression with the box of the object meant. Record ids are <name>/<COCO image
    id>/<sent_id>. Set `name` to refcoco+ or refcocog for these: their ids overlap.
    """

    annotations: str
    images: str
    name: str = "refcoco"
    split: str = ""  # train, val, testA, testB or test; all where empty
    instances: str = ""  # the COCO 2014 file that has the boxes; default: instances.json beside the pickle
    masks: bool = True
    licence: str = LICENCE
    address: str = ADDRESS

    def info(self) -> SourceInfo:
        if not exists(self.annotations):
            raise MissingError(f"no such file or folder: {self.annotations}")
        kind = "mdetr" if self.annotations.endswith(".json") else "refcoco"
        return SourceInfo(self.name, kind, self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        if self.annotations.endswith(".json"):
            file = MdetrJson(annotations=self.annotations, name=self.name, licence=self.licence, address=self.address)
            for item in file.read():
                yield replace(item, image=photo_name(item.image)) if isinstance(item, Record) else item
            return
        path = self._pickle()
        refs = read_plain_pickle(path)
        if not isinstance(refs, list):
            raise FormatError(f"{path} is not a list of refs: it holds one {type(refs).__name__}")
        images, annotations = self._coco(self.instances or join(posixpath.dirname(path), "instances.json"))
        seen: set[str] = set()
        for index, ref in enumerate(refs):
            yield from self._ref_items(index, ref, images, annotations, seen)

    def _pickle(self) -> str:
        fs, path = url_to_fs(self.annotations)
        if not fs.isdir(path):
            return self.annotations
        found = sorted(posixpath.basename(name) for name in fs.ls(path, detail=False) if name.endswith(".p"))
        if not found:
            raise MissingError(f"no refs(...).p in {self.annotations}")
        if len(found) > 1:
            raise SettingError(f"{self.annotations} has several refs files; name one of {', '.join(found)}")
        return join(self.annotations, found[0])

    def _coco(self, path: str) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Images and annotations of the instances file by id."""
        document = read_json(path)
        if not isinstance(document, dict) or not all(
            isinstance(document.get(k), list) for k in ("images", "annotations")
        ):
            raise FormatError(f"{path} is not COCO instances: expected the lists images and annotations")
        images, annotations = (
            {row["id"]: row for row in document[key] if isinstance(row, dict) and isinstance(row.get("id"), int)}
            for key in ("images", "annotations")
        )
        return images, annotations

    def _ref_items(
        self, index: int, ref: Any, images: dict[Any, Any], annotations: dict[Any, Any], seen: set[str]
    ) -> Iterator[Item]:
        """The records of one entry, or one Reject for all its expressions."""
        name = f"refs[{index}]"
        fault = _ref_fault(ref)
        if fault:
            yield self._reject(record_id(self.name, name, "0"), fault)
            return
        if self.split and ref["split"] != self.split:
            identity = record_id(self.name, str(ref["image_id"]), name)
            yield self._reject(
                identity, Fault("other_split", f"in {ref['split']}, {self.split} was asked for"), "policy"
            )
            return
        image = images.get(ref["image_id"])
        box = self._box(ref, image, annotations.get(ref["ann_id"]))
        if image is None or isinstance(box, Fault):
            fault = box if isinstance(box, Fault) else Fault("image_unknown", "")
            yield self._reject(record_id(self.name, str(ref["image_id"]), name), fault)
            return
        for sentence in ref["sentences"]:
            fault = _sentence_fault(sentence)
            text_id = str(sentence["sent_id"]) if not fault else name
            identity = record_id(self.name, str(ref["image_id"]), text_id)
            if not fault and identity in seen:
                fault = Fault("id_repeated", f"sent_id {text_id} stands in an earlier entry as well")
            if fault:
                yield self._reject(identity, fault)
                continue
            seen.add(identity)
            yield self._record(ref, sentence, image, box)

    def _record(self, ref: dict[str, Any], sentence: dict[str, Any], image: dict[str, Any], box: Box) -> Record:
        text = sentence["sent"].strip()
        words = sentence.get("tokens")
        extra: dict[str, Any] = {"ref_id": ref["ref_id"], "file_name": ref["file_name"]}
        if isinstance(sentence.get("raw"), str):
            extra["raw"] = sentence["raw"]
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            extra["tokens"] = list(words)
        return Record(
            id=record_id(self.name, str(ref["image_id"]), str(sentence["sent_id"])),
            source=self.name,
            image_id=str(ref["image_id"]),
            text_id=str(sentence["sent_id"]),
            kind="grounding",
            image=photo_name(ref["file_name"]),
            root=self.name,
            width=int(image["width"]),
            height=int(image["height"]),
            text=text,
            regions=(Region((text,), ((0, len(text)),), (box,), ref["category_id"]),),
            split=ref["split"],
            licence=self.licence,
            origin=self.address,
            extra=extra,
        )

    def _box(self, ref: dict[str, Any], image: Any, row: Any) -> Box | Fault:
        if image is None:
            return Fault("image_unknown", f"image_id {ref['image_id']} is not in the instances file")
        if row is None:
            return Fault("annotation_unknown", f"ann_id {ref['ann_id']} is not in the instances file")
        size = size_fault(image)
        if size:
            return Fault("row_malformed", f"{size} in image {ref['image_id']}")
        xyxy = xywh(row.get("bbox"))
        if xyxy is None:
            return Fault("box_malformed", f"expected bbox [x, y, w, h], got {str(row.get('bbox'))[:80]}")
        reason = boxes.fault(xyxy, int(image["width"]), int(image["height"]))
        if reason:
            return Fault(reason, f"bbox {row['bbox']} in {image['width']}x{image['height']}")
        segmentation = row.get("segmentation") if self.masks else None
        fault = storing_fault(segmentation)
        if fault:
            return fault
        area = row.get("area")
        return Box(
            xyxy=xyxy,
            annotation_id=str(ref["ann_id"]),
            area=float(area) if isinstance(area, int | float) else None,
            crowd=bool(row.get("iscrowd")),
            mask=orjson.dumps(segmentation).decode() if segmentation else None,
        )

    def _reject(self, identity: str, fault: Fault, kind: Kind = "fault") -> Reject:
        level: Level = "record"
        return Reject(identity, level, kind, "ingest", fault.reason, fault.detail)


def photo_name(file_name: str) -> str:
    """The name of the photo: `COCO_train2014_000000000581_16.jpg` is the object 16 on `..._000000000581.jpg`."""
    return _SUFFIX.sub(r"\1\2", file_name)


def _ref_fault(ref: Any) -> Fault | None:
    if not isinstance(ref, dict):
        return Fault("row_malformed", f"a ref must be a dict, got {type(ref).__name__}")
    wanted = dict.fromkeys(("ref_id", "ann_id", "image_id", "category_id"), int) | {
        "split": str,
        "file_name": str,
        "sentences": list,
    }
    wrong = [key for key, kind in wanted.items() if type(ref.get(key)) is not kind]
    wrong = wrong or [key for key, kind in wanted.items() if kind is int and not 0 <= ref[key] < 2**63]
    return Fault("row_malformed", f"a ref lacks, or has of another type: {', '.join(wrong)}") if wrong else None


def _sentence_fault(sentence: Any) -> Fault | None:
    number, said = (sentence.get("sent_id"), sentence.get("sent")) if isinstance(sentence, dict) else (None, None)
    # Only the type is told: lists that a pickle nests by reference are short in the file and endless in print.
    if type(number) is not int or not 0 <= number < 2**63 or not isinstance(said, str):
        return Fault(
            "row_malformed", f"a sentence needs sent_id and sent, got a {type(sentence).__name__} without them"
        )
    return None if said.strip() else Fault("text_empty", f"sentence {sentence['sent_id']} has no words")
