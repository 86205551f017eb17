"""GQA: photos of Visual Genome, as scene graphs or as MDETR's and GLIP's `final_mixed_train(_no_coco).json`.

One photo of `{train,val}_sceneGraphs.json`, an object that maps photo ids to graphs:

    "2331": {"width": 500, "height": 375, "location": "street", "weather": "sunny", "objects": {
      "805": {"name": "dog", "x": 20, "y": 180, "w": 90, "h": 70, "attributes": ["brown"],
              "relations": [{"name": "to the left of", "object": "806"}]},
      "806": {"name": "car", "x": 200, "y": 120, "w": 250, "h": 160, "attributes": ["red"], "relations": []}}}

https://cs.stanford.edu/people/dorarad/gqa, CC BY 4.0; 74,942 graphs in train, 10,696 in val; photos `<id>.jpg`, some
ids begin with n. The mixed file has 1,107,631 captions of Visual Genome and COCO photos (GLIP's copy: only the
former) and is read as described in `mdetr`; it is one json document, so plan for about ten times its size in memory.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from llmdet import boxes
from llmdet.errors import FormatError, MissingError
from llmdet.files import exists, join, read_json
from llmdet.record import Box, Record, Region, Span, record_id
from llmdet.rejects import Kind, Level, Reject
from llmdet.sources.mdetr import Fault, MdetrJson, is_mdetr, size_fault, split_of, storing_fault, xywh
from llmdet.sources.scene_text import SceneText, Thing, scene_texts
from llmdet.sources.source import Item, SourceInfo
from llmdet.tokens import estimate_bert_tokens

ADDRESS = "https://cs.stanford.edu/people/dorarad/gqa"
LICENCE = "CC-BY-4.0"
_GRAPHS = "_sceneGraphs.json"


@dataclass(frozen=True, kw_only=True)
class Gqa:
    """Reads one file of either format, or a folder with `*_sceneGraphs.json`.

    A photo's graph is told in one Record, or in several where the text would be too long; each names other objects, and
    an object that is named by a relation has its box there as well. Relations, attributes, place and weather stay in
    `extra` as the file has them.
    """

    annotations: str
    images: str
    name: str = "gqa"
    relations: int = 1  # sentences that an object opens, at most
    max_tokens: int = 254  # of a text, as `tokens.estimate_bert_tokens` counts
    licence: str = LICENCE
    address: str = ADDRESS

    def info(self) -> SourceInfo:
        if not exists(self.annotations):
            raise MissingError(f"no such file or folder: {self.annotations}")
        return SourceInfo(self.name, "gqa", self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        for path in self._files():
            document = read_json(path)
            if is_mdetr(document):
                file = MdetrJson(annotations=path, name=self.name, licence=self.licence, address=self.address)
                yield from file.items(document)
                continue
            if not _is_graphs(document):
                got = sorted(document)[:5] if isinstance(document, dict) else type(document).__name__
                raise FormatError(
                    f"{path} is neither GQA scene graphs (photo id -> objects) nor an MDETR json; got {got}"
                )
            for photo, graph in document.items():
                yield from self._graph_items(photo, graph, split_of(path.removesuffix(_GRAPHS)))

    def _files(self) -> list[str]:
        fs, path = url_to_fs(self.annotations)
        if not fs.isdir(path):
            return [self.annotations]
        names = sorted(posixpath.basename(name) for name in fs.ls(path, detail=False) if name.endswith(_GRAPHS))
        if not names:
            raise MissingError(f"no *{_GRAPHS} in {self.annotations}")
        return [join(self.annotations, name) for name in names]

    def _graph_items(self, photo: str, graph: Any, split: str) -> Iterator[Item]:
        """The rejects of a graph's objects and relations, then its records."""
        identity = record_id(self.name, photo, "0")
        fault = _graph_fault(graph)
        if fault:
            yield self._reject(identity, fault)
            return
        things: dict[str, Thing] = {}
        found: dict[str, Box] = {}
        for order, (key, row) in enumerate(graph["objects"].items()):
            box = _box(row, order, key, graph)
            if isinstance(box, Fault):
                yield self._reject(f"{identity}#{key}", box, level="annotation")
                continue
            found[key] = box
            relations, faults = _relations(row, graph["objects"])
            things[key] = Thing(_phrase(row), " ".join(row["name"].split()), relations)
            for fault in faults:
                yield self._reject(f"{identity}#{key}", fault, level="annotation")
        if not things:
            yield self._reject(identity, Fault("text_empty", "the graph has no usable object to speak of"), "policy")
        for number, scene in enumerate(scene_texts(things, self.relations, estimate_bert_tokens, self.max_tokens)):
            yield self._record(photo, number, split, graph, scene, found)

    def _record(
        self, photo: str, number: int, split: str, graph: dict[str, Any], scene: SceneText, found: dict[str, Box]
    ) -> Record:
        regions: dict[tuple[Span, ...], list[Box]] = defaultdict(list)
        for key, spans in scene.spans.items():
            regions[tuple(spans)].append(found[key])
        text = scene.text
        return Record(
            id=record_id(self.name, photo, str(number)),
            source=self.name,
            image_id=photo,
            text_id=str(number),
            kind="grounding",
            image=f"{photo}.jpg",
            root=self.name,
            width=int(graph["width"]),
            height=int(graph["height"]),
            text=text,
            regions=tuple(
                Region(tuple(text[start:end] for start, end in spans), spans, tuple(regions[spans]))
                for spans in sorted(regions)
            ),
            split=split,
            licence=self.licence,
            origin=self.address,
            extra=_extra(graph, list(scene.spans)),
        )

    def _reject(self, identity: str, fault: Fault, kind: Kind = "fault", level: Level = "record") -> Reject:
        return Reject(identity, level, kind, "ingest", fault.reason, fault.detail)


def _is_graphs(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    rows = list(document.values())
    return not rows or any(isinstance(row, dict) and "objects" in row for row in rows[:100])


def _graph_fault(graph: Any) -> Fault | None:
    if not isinstance(graph, dict) or not isinstance(graph.get("objects"), dict):
        return Fault("row_malformed", f"a graph must have objects by id, got {str(graph)[:80]}")
    size = size_fault(graph)
    if size:
        return Fault("row_malformed", size)
    return storing_fault([graph.get("location"), graph.get("weather")])


def _box(row: Any, order: int, key: str, graph: dict[str, Any]) -> Box | Fault:
    if not isinstance(row, dict):
        return Fault("row_malformed", f"an object must have name, x, y, w and h, got {str(row)[:80]}")
    if not isinstance(row.get("name"), str) or not row["name"].strip():
        return Fault("name_missing", f"an object needs a name, got {str(row.get('name'))[:40]!r}")
    xyxy = xywh([row.get(side) for side in "xywh"])
    if xyxy is None:
        return Fault("box_malformed", f"x, y, w, h must be numbers, got {str([row.get(side) for side in 'xywh'])[:80]}")
    reason = boxes.fault(xyxy, int(graph["width"]), int(graph["height"]))
    if reason:
        return Fault(reason, f"{xyxy} in {graph['width']}x{graph['height']}")
    return storing_fault(row) or Box(xyxy=xyxy, order=order, annotation_id=key)


def _phrase(row: dict[str, Any]) -> str:
    """Attributes, then the name, with single blanks."""
    attributes = row.get("attributes")
    words = [word for word in attributes if isinstance(word, str)] if isinstance(attributes, list) else []
    return " ".join(" ".join([*words, row["name"]]).split())


def _relations(row: dict[str, Any], objects: dict[str, Any]) -> tuple[tuple[tuple[str, str], ...], list[Fault]]:
    """The relations of an object to known objects, and what is wrong with the others."""
    rows = row.get("relations", [])
    if not isinstance(rows, list):
        return (), [Fault("relations_malformed", f"expected a list, got {type(rows).__name__}")]
    good, faults = [], []
    for relation in rows:
        name, other = (relation.get("name"), relation.get("object")) if isinstance(relation, dict) else (None, None)
        if not isinstance(name, str) or not name.strip() or not isinstance(other, str):
            faults.append(Fault("relation_malformed", f"a relation needs name and object, got {str(relation)[:80]}"))
        elif other not in objects:
            faults.append(Fault("relation_unknown", f"{name!r} leads to object {other}, which the graph lacks"))
        else:
            good.append((" ".join(name.split()), other))
    return tuple(good), faults


def _extra(graph: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """What the graph says beyond names and boxes, of the objects that a text names."""
    extra = {key: graph[key] for key in ("location", "weather") if key in graph}
    rows = {key: graph["objects"][key] for key in keys}
    return extra | {
        "objects": {
            key: {field: row[field] for field in ("name", "attributes", "relations") if row.get(field)}
            for key, row in rows.items()
        }
    }
