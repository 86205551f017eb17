"""Flickr30k Entities: five sentences a photo, phrases tied to boxes; the original files, or MDETR's json of them.

A sentence of `Sentences/<id>.txt`, and an object of `Annotations/<id>.xml` that its first phrase names:

    [/EN#71/people Two boys] climb [/EN#72/other/scene a tall fence] .
    <object><name>71</name><bndbox><xmin>12</xmin><ymin>40</ymin><xmax>88</xmax><ymax>201</ymax></bndbox></object>

https://bryanplummer.com/Flickr30kEntities, for research and education; 31,783 photos `flickr30k_images/<id>.jpg`,
158,915 sentences, 275,775 boxes; photos 29,783 / 1,000 / 1,000 in train.txt, val.txt, test.txt. `annotations` is the
folder with both, the same as .tar, .tar.gz or .zip, or a `final_flickr_{separate,merged}GT_*.json` (see `mdetr`).
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from llmdet import boxes
from llmdet.errors import FormatError, MissingError
from llmdet.files import exists, join, read_bytes
from llmdet.record import Box, Record, Region, Span, record_id
from llmdet.rejects import Kind, Level, Reject
from llmdet.sources.entities import ARCHIVES, Files, Phrase, Sheet, Thing, content, parse_sentence, parse_sheet, photos
from llmdet.sources.mdetr import MdetrJson
from llmdet.sources.source import Item, SourceInfo

ADDRESS = "https://bryanplummer.com/Flickr30kEntities"
LICENCE = "research and education only (annotations); Flickr terms (photos)"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Flickr30k:
    """Reads Entities. One sentence is one Record, its id flickr30k/<photo>/<number of the sentence, from 0>.

    A region is one set of named entities, with the boxes that stand for just these: a box of two entities that the
    sentence names has the spans of both. `Box.annotation_id` is the entity id, ids joined by a comma where there are
    several. `extra["phrases"]` keeps every marked phrase, with or without a box: span, entity, types, and the flags
    scene and nobndbox. Sentences listed in UNRELATED_CAPTIONS get the flag `unrelated_caption`.
    """

    annotations: str
    images: str
    name: str = "flickr30k"
    split: Literal["all", "train", "val", "test"] = "all"
    lists: str = ""  # folder of train.txt, val.txt, test.txt and UNRELATED_CAPTIONS; default: beside the annotations
    licence: str = LICENCE
    address: str = ADDRESS

    def info(self) -> SourceInfo:
        if not exists(self.annotations):
            raise MissingError(f"no such file or folder: {self.annotations}")
        kind = "mdetr" if self._is_json else "flickr30k-entities"
        return SourceInfo(self.name, kind, self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        if self._is_json:
            file = MdetrJson(annotations=self.annotations, name=self.name, licence=self.licence, address=self.address)
            yield from file.read()
            return
        if self.split != "all" and not exists(join(self._lists, f"{self.split}.txt")):
            raise MissingError(f"no list {self.split}.txt in {self._lists}, so the split {self.split} is not known")
        for photo, files in photos(self.annotations):
            split = self._splits.get(photo, "")
            if self.split in ("all", split):
                yield from self._photo_items(photo, split, files)
            else:
                identity = record_id(self.name, photo, "0")
                yield self._reject(
                    identity, "other_split", f"in {split or 'no list'}, {self.split} was asked for", "policy"
                )

    @property
    def _is_json(self) -> bool:
        return self.annotations.endswith(".json")

    @property
    def _lists(self) -> str:
        beside = posixpath.dirname(self.annotations) if self.annotations.endswith(ARCHIVES) else self.annotations
        return self.lists or beside

    @cached_property
    def _splits(self) -> dict[str, str]:
        """Split of each listed photo."""
        return {photo: split for split in SPLITS for photo in _words(join(self._lists, f"{split}.txt"))}

    @cached_property
    def _unrelated(self) -> set[tuple[str, int]]:
        """(photo, sentence from 0) of captions that do not fit their photo; the file counts from 1."""
        words = [word for word in _words(join(self._lists, "UNRELATED_CAPTIONS"), skip="#") if word.isdecimal()]
        return {(photo, int(number) - 1) for photo, number in zip(words[::2], words[1::2], strict=False)}

    # --- one photo -----------------------------------------------------------------------------------------------

    def _photo_items(self, photo: str, split: str, files: Files) -> Iterator[Item]:
        identity = record_id(self.name, photo, "0")
        try:
            sheet, lines = (
                parse_sheet(content(files, "Annotations")),
                content(files, "Sentences").decode().rstrip().split("\n"),
            )
        except (FormatError, UnicodeDecodeError) as error:
            yield self._reject(identity, "file_malformed", f"{photo}: {error}", "fault")
            return
        things, rejects = self._things(photo, sheet)
        yield from rejects
        named: set[str] = set()
        for number, line in enumerate(lines):
            try:
                text, phrases = parse_sentence(line)
            except FormatError as error:
                detail = f"Sentences/{photo}.txt line {number + 1}: {error}"
                yield self._reject(record_id(self.name, photo, str(number)), "sentence_malformed", detail, "fault")
                continue
            if not text:
                detail = f"Sentences/{photo}.txt line {number + 1} has no words"
                yield self._reject(record_id(self.name, photo, str(number)), "text_empty", detail, "fault")
                continue
            named.update(phrase.entity for phrase in phrases)
            yield self._record(photo, number, split, sheet, text, phrases, things)
        for order, thing in things.items():
            if thing.xyxy and named.isdisjoint(thing.entities):
                detail = f"no sentence names the entities {', '.join(thing.entities)}"
                yield self._reject(f"{identity}#{order}", "entity_not_named", detail, "policy", "annotation")

    def _things(self, photo: str, sheet: Sheet) -> tuple[dict[int, Thing], list[Reject]]:
        """The usable objects by their place in the xml."""
        things: dict[int, Thing] = {}
        rejects = []
        for order, thing in enumerate(sheet.things):
            if isinstance(thing, str):
                reason, detail = "row_malformed", thing
            elif thing.xyxy and (fault := boxes.fault(thing.xyxy, sheet.width, sheet.height)):
                reason, detail = fault, f"{thing.xyxy} in {sheet.width}x{sheet.height}"
            else:
                things[order] = thing
                continue
            identity = f"{record_id(self.name, photo, '0')}#{order}"
            rejects.append(self._reject(identity, reason, detail, "fault", "annotation"))
        return things, rejects

    def _record(
        self,
        photo: str,
        number: int,
        split: str,
        sheet: Sheet,
        text: str,
        phrases: list[Phrase],
        things: dict[int, Thing],
    ) -> Record:
        return Record(
            id=record_id(self.name, photo, str(number)),
            source=self.name,
            image_id=photo,
            text_id=str(number),
            kind="grounding",
            image=f"{photo}.jpg",
            root=self.name,
            width=sheet.width,
            height=sheet.height,
            text=text,
            regions=_regions(text, phrases, things),
            flags=("unrelated_caption",) if (photo, number) in self._unrelated else (),
            split=split,
            licence=self.licence,
            origin=self.address,
            extra={"sentence_id": number, "phrases": [_phrase_row(phrase, things) for phrase in phrases]},
        )

    def _reject(self, identity: str, reason: str, detail: str, kind: Kind, level: Level = "record") -> Reject:
        return Reject(identity, level, kind, "ingest", reason, detail)


def _regions(text: str, phrases: list[Phrase], things: dict[int, Thing]) -> tuple[Region, ...]:
    """One region for each set of spans, in the order of the text; its boxes in the order of the xml."""
    named: dict[str, list[Span]] = defaultdict(list)
    for phrase in phrases:
        if phrase.entity != "0":
            named[phrase.entity].append(phrase.span)
    found: dict[tuple[Span, ...], list[Box]] = defaultdict(list)
    for order, thing in things.items():
        entities = [entity for entity in thing.entities if entity in named]
        if thing.xyxy and entities:
            spans = tuple(sorted({span for entity in entities for span in named[entity]}))
            found[spans].append(Box(xyxy=thing.xyxy, order=order, annotation_id=",".join(entities)))
    return tuple(
        Region(tuple(text[start:end] for start, end in spans), spans, tuple(found[spans])) for spans in sorted(found)
    )


def _phrase_row(phrase: Phrase, things: dict[int, Thing]) -> dict[str, Any]:
    row: dict[str, Any] = {"span": list(phrase.span), "entity": phrase.entity, "types": list(phrase.types)}
    own = [thing for thing in things.values() if phrase.entity in thing.entities]
    flags = {"scene": any(thing.scene for thing in own), "nobndbox": any(thing.nobndbox for thing in own)}
    return row | {key: True for key, value in flags.items() if value}


def _words(url: str, skip: str = "") -> list[str]:
    """Words of a small text file without the lines that begin with `skip`; none where the file is missing."""
    if not exists(url):
        return []
    lines = read_bytes(url).decode(errors="replace").splitlines()
    return [word for line in lines if not (skip and line.startswith(skip)) for word in line.split()]
