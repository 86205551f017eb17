"""ODVG and GroundingCap jsonl: what MM-Grounding-DINO trains on, and LLMDet's five published files unchanged.

One line in the detection form, one in the grounding form with LLMDet's additions:

    {"filename": "000000121586.jpg", "height": 480, "width": 640, "detection": {"instances":
     [{"bbox": [12.5, 30.25, 220.0, 400.75], "label": 16, "category": "dog"}]}}
    {"filename": "4400112233.jpg", "height": 375, "width": 500, "conversations": [
      {"from": "human", "value": "<image>\\nWhat is shown?"}, {"from": "gpt", "value": "Two girls jump over ..."}],
     "tags": ["puddle"], "grounding": {"caption": "Two girls jump over a puddle . ", "regions": [
      {"bbox": [[101.0, 88.5, 190.0, 320.0], [230.0, 92.0, 318.0, 318.0]], "phrase": "Two girls",
       "tokens_positive": [[0, 9]]}]}}

https://huggingface.co/fushh7/LLMDet, Apache-2.0 where its sources allow; 1.12 million lines in five files:
`instances_train2017_vg_merged6`, `flickr_train_vg7`, `gqa_train_vg7`, `LLaVA-ReCap-558K_tag_box_vg7`,
`v3det_2023_v1_train_vg7`. Boxes are xyxy pixels; one box, phrase or caption stands alone, several stand in a list.
A line with both forms is two records. The detection form needs the label map for its negatives and may name its
labels differently from its lines: the map counts. Numbers come back as floats, and spans that a blank parts as one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from llmdet.detection_text import Negatives, detection_text
from llmdet.errors import FormatError
from llmdet.record import Box, Caption, Record, Region, Span, record_id
from llmdet.rejects import Kind, Level, Reject
from llmdet.sources.conversations import own_caption, read_conversation
from llmdet.sources.fields import FieldError, extra, four, rest, shown, size, text, texts, usable, whole
from llmdet.sources.grounding import listed_names, read_regions
from llmdet.sources.rows import Row, load_json, read_rows
from llmdet.sources.source import Category, Item, SourceInfo

FINISHED = "https://huggingface.co/fushh7/LLMDet"  # address of LLMDet's five files
_KNOWN = ("filename", "height", "width", "conversations", "tags", "grounding", "detection")
# What makes a record poorer but is no fault of the file: upstream's lines may lack an answer.
_POLICIES = {"caption_missing", "caption_empty"}


@dataclass(frozen=True, kw_only=True)
class Odvg:
    """Reads a jsonl file, or all of a folder. `text_id` is the number of the line."""

    annotations: str
    images: str
    name: str = "odvg"
    label_map: str = ""  # JSON file {"0": "person", ...} of the detection form
    negatives: Negatives = "all"  # of the detection form; without a label map there are none
    kind: Literal["auto", "detection", "grounding"] = (
        "auto"  # auto: "a. b. " with regions that are whole names is detection
    )
    exhaustive: bool = False
    boxes: Literal["human", "pseudo"] = "human"  # who drew them: a detector did in LLMDet's LLaVA part
    licence: str = ""
    address: str = ""  # anybody writes this format: no file says where it is from
    seed: int = 0

    def info(self) -> SourceInfo:
        next(self._rows(), None)
        return SourceInfo(self.name, "odvg", self.licence, self.address, self.images, tuple(self._categories.values()))

    def read(self) -> Iterator[Item]:
        _ = self._categories
        for row in self._rows():
            try:
                yield from self._items(row)
            except FieldError as error:
                yield self._reject(f"{self.name}/{row.where}", "record", error)

    def _rows(self) -> Iterator[Row]:
        return read_rows(self.annotations, ("filename",), "ODVG jsonl")

    @cached_property
    def _categories(self) -> dict[int, Category]:
        """Categories by label, ascending."""
        if not self.label_map:
            return {}
        table = load_json(self.label_map)
        try:
            found = [Category(whole(int(label), "label"), text(name, "name")) for label, name in table.items()]
        except (AttributeError, TypeError, ValueError) as error:
            raise FormatError(f'{self.label_map} must be a label map like {{"0": "person"}}: {error}') from error
        return {category.id: category for category in sorted(found, key=lambda category: category.id)}

    @cached_property
    def _vocabulary(self) -> list[str]:
        return [category.name for category in self._categories.values()]

    def _items(self, row: Row) -> Iterator[Item]:
        if isinstance(row.value, FieldError):
            raise row.value
        line = row.value
        text(line.get("filename"), "filename")
        forms = [form for form in ("grounding", "detection") if line.get(form) is not None]
        if not forms:
            raise FieldError("row_malformed", f"a line needs grounding or detection; got {shown(sorted(line))}")
        for form in forms:
            text_id = row.key if form == forms[0] else f"{row.key}-od"
            read = self._grounding if form == "grounding" else self._detection
            yield from read(line, record_id(self.name, line["filename"], text_id), text_id)

    def _grounding(self, line: dict[str, Any], identity: str, text_id: str) -> Iterator[Item]:
        grounding = line["grounding"]
        if not isinstance(grounding, dict):
            raise FieldError("row_malformed", f"grounding must be an object, got {shown(grounding)}")
        caption = text(grounding.get("caption"), "grounding.caption")
        regions, faults = read_regions(grounding.get("regions"), caption, *size(line))
        present = {span for region in regions for span in region.spans}
        names = listed_names(caption, present)
        detection = self.kind == "detection" or (self.kind == "auto" and names is not None)
        said = _phrases(grounding["regions"])  # a name whose boxes were all left out is there all the same
        absent = (one for one in names or () if one not in present and caption[slice(*one)].casefold() not in said)
        negatives = tuple(absent) if detection else ()
        for where, fault in faults:
            yield self._reject(f"{identity}#{where}", "annotation", fault)
        kind: Literal["detection", "grounding"] = "detection" if detection else "grounding"
        yield from self._record(line, identity, text_id, kind, caption, regions, negatives)

    def _detection(self, line: dict[str, Any], identity: str, text_id: str) -> Iterator[Item]:
        instances = line["detection"].get("instances") if isinstance(line["detection"], dict) else None
        if not isinstance(instances, list):
            raise FieldError(
                "row_malformed", f"detection must hold a list of instances, got {shown(line['detection'])}"
            )
        width, height = size(line)
        kept: dict[tuple[int, str], list[Box]] = defaultdict(list)
        for order, instance in enumerate(instances):
            try:
                kept[self._label(instance)].append(Box(_box(instance.get("bbox"), width, height), order))
            except FieldError as fault:
                yield self._reject(f"{identity}#{order}", "annotation", fault)
        names = [name for (_, name), boxes in kept.items() if boxes]
        sentence, spans = detection_text(names, self._vocabulary, self.negatives, f"{self.seed}|{identity}")
        regions = [
            Region((name,), (spans[name],), tuple(boxes), label) for (label, name), boxes in kept.items() if boxes
        ]
        there = {name for _, name in kept}  # also those whose boxes were all left out
        negatives = tuple(span for name, span in spans.items() if name not in there)
        regions.sort(key=lambda region: region.spans)
        yield from self._record(line, identity, text_id, "detection", sentence, regions, negatives)

    def _label(self, instance: Any) -> tuple[int, str]:
        """Label and name of an instance."""
        if not isinstance(instance, dict):
            raise FieldError("row_malformed", f"an instance must be an object, got {shown(instance)}")
        label = whole(instance.get("label"), "label")
        if not self.label_map:
            return label, text(instance.get("category"), "category")
        if label not in self._categories:
            raise FieldError("category_unknown", f"label {label} is not in {self.label_map}")
        return label, self._categories[label].name

    def _record(
        self,
        line: dict[str, Any],
        identity: str,
        text_id: str,
        kind: Literal["detection", "grounding"],
        sentence: str,
        regions: list[Region],
        negatives: tuple[Span, ...],
    ) -> Iterator[Item]:
        """The rejects of what stands beside the boxes, then the record."""
        width, height = size(line)
        captions, turns, faults = _captions(line)
        tags: tuple[str, ...] = ()
        try:
            tags = texts(line["tags"], "tags") if line.get("tags") is not None else ()
        except FieldError as error:
            faults.append(("tags", FieldError("tags_malformed", error.detail)))
        for where, fault in faults:
            yield self._reject(f"{identity}#{where}", "annotation", fault)
        yield Record(
            id=identity,
            source=self.name,
            image_id=line["filename"],
            text_id=text_id,
            kind=kind,
            image=line["filename"],
            root=self.name,
            width=width,
            height=height,
            text=sentence,
            regions=tuple(map(_drawn_by_detector, regions) if self.boxes == "pseudo" else regions),
            negatives=negatives,
            exhaustive=self.exhaustive,
            captions=captions,
            tags=tags,
            licence=self.licence,
            origin=self.address,
            extra=extra({**turns, **rest(line, _KNOWN)}),
        )

    def _reject(self, identity: str, level: Level, error: FieldError) -> Reject:
        kind: Kind = "policy" if level == "annotation" and error.reason in _POLICIES else "fault"
        return Reject(identity, level, kind, "ingest", error.reason, error.detail)


def _phrases(regions: list[Any]) -> set[str]:
    """What the regions of a line name, in lower case, whether or not they can be used."""
    given = [region.get("phrase") for region in regions if isinstance(region, dict)]
    phrases = [one for phrase in given for one in (phrase if isinstance(phrase, list) else [phrase])]
    return {one.casefold() for one in phrases if isinstance(one, str)}


def _drawn_by_detector(region: Region) -> Region:
    return replace(region, boxes=tuple(replace(box, origin="pseudo") for box in region.boxes))


def _box(value: Any, width: int, height: int) -> tuple[float, float, float, float]:
    box = four(value)
    return usable(box, width, height) if width else box


def _captions(line: dict[str, Any]) -> tuple[tuple[Caption, ...], dict[str, Any], list[tuple[str, FieldError]]]:
    """The line's own caption, what gives its turns back, and what was wrong with them."""
    if not line.get("conversations"):
        return (), {}, []
    try:
        answer, turns = read_conversation(line["conversations"])
    except FieldError as fault:
        return (), {}, [("conversations", fault)]
    return (own_caption(answer),), turns, []
