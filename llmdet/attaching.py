"""Captions and phrases of one source attached to another's records of the same photos, as LLMDet did for COCO.

LLMDet took COCO's boxes and names, captions of ShareGPT4V and All-Seeing V2 (one record per caption: 168,000 + 42,000),
and appended to the text of names the phrases of All-Seeing V2 that are no COCO names. For each source that gives
captions one says whether its caption is used (`source`), the LMM's is wanted instead (`lmm`), or `both`.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from llmdet.record import Box, Record, Region, Span, record_id
from llmdet.rejects import Reject

CaptionChoice = Literal["source", "lmm", "both"]
_COCO_ID = re.compile(r"(?:^|_)(\d{12})$")


@dataclass(frozen=True, kw_only=True)
class AttachSettings:
    """What is taken from the sources that give captions."""

    caption: Mapping[str, CaptionChoice] = field(default_factory=dict)  # by name of the source; "source" where absent
    phrases: bool = True  # append their phrases to texts of names

    def choice(self, source: str) -> CaptionChoice:
        return self.caption.get(source, "source")


def photo_key(path: str) -> str:
    """What two paths of the same photo have in common: COCO's id, else the path without its suffix.

    `train2017/000000000009.jpg` and `COCO_train2014_000000000009.jpg` are both "9".
    """
    stem = posixpath.splitext(path.replace("\\", "/"))[0]
    found = _COCO_ID.search(posixpath.basename(stem))
    return str(int(found[1])) if found else stem


def attach(
    record: Record, giver: Record, choice: CaptionChoice, *, phrases: bool = True
) -> tuple[Record, list[Reject]]:
    """The record with the giver's captions, unless the choice is `lmm`, and its phrases; what was left off.

    Its id ends in the giver's source and text. A phrase that names a class of the text already is left off: the
    record's own boxes say where that class is.
    """
    text_id = f"{record.text_id}+{giver.source}-{giver.text_id}"
    note = {"source": giver.source, "id": giver.id, "caption": choice, "licence": giver.licence, "origin": giver.origin}
    own = [replace(caption, links=()) for caption in giver.captions] if choice != "lmm" else []
    human = {"human": giver.extra["human"]} if own and "human" in giver.extra else {}
    attached = replace(
        record,
        id=record_id(record.source, record.image_id, text_id),
        text_id=text_id,
        captions=(*record.captions, *own),
        tags=tuple(dict.fromkeys((*record.tags, *giver.tags))),
        extra={**record.extra, **human, "attached": [*record.extra.get("attached", []), note]},
    )
    return _with_phrases(attached, giver) if phrases and giver.regions else (attached, [])


def attach_all(
    items: Iterable[Record | Reject], givers: Iterable[Record | Reject], settings: AttachSettings
) -> Iterator[Record | Reject]:
    """One record for each giver of its photo, the record itself where there is none; order of `items`.

    Rejects pass through. A giver whose photo no record shows, or shows at another size, becomes one.
    """
    waiting: dict[str, list[Record]] = defaultdict(list)
    for giver in givers:
        if isinstance(giver, Reject):
            yield giver
        else:
            waiting[photo_key(giver.image)].append(giver)
    met: set[str] = set()
    for item in items:
        if isinstance(item, Reject):
            yield item
            continue
        key = photo_key(item.image)
        met.add(key)
        yield from _attached(item, waiting.get(key, []), settings)
    for key, left in waiting.items():
        if key not in met:
            for giver in left:
                detail = f"no record shows {giver.image}"
                yield Reject(giver.id, "record", "policy", "ingest", "image_unknown", detail)


def wants_lmm(record: Record) -> bool:
    """Whether an LMM is to describe the photo: nobody else did, or a source's caption was not to be the only one."""
    choices = {note["caption"] for note in record.extra.get("attached", [])}
    return not record.captions or bool(choices & {"lmm", "both"})


def _attached(record: Record, givers: list[Record], settings: AttachSettings) -> Iterator[Record | Reject]:
    made = 0
    for giver in givers:
        if giver.width and (giver.width, giver.height) != (record.width, record.height):
            detail = f"{giver.width}x{giver.height}, {record.id} says {record.width}x{record.height}"
            yield Reject(giver.id, "record", "fault", "ingest", "size_mismatch", detail)
            continue
        choice = settings.choice(giver.source)
        if choice == "lmm" and not (settings.phrases and giver.regions):
            yield Reject(
                giver.id, "record", "policy", "ingest", "caption_not_chosen", "captions of the LMM were chosen"
            )
            continue
        attached, left_off = attach(record, giver, choice, phrases=settings.phrases)
        made += 1
        yield from left_off
        yield attached
    if not made:
        yield record


def _with_phrases(record: Record, giver: Record) -> tuple[Record, list[Reject]]:
    """The record with the giver's phrases behind its names."""
    known = {record.text[slice(*span)].casefold() for span in _name_spans(record)}
    fresh: dict[str, list[Box]] = defaultdict(list)
    rejects: list[Reject] = []
    for index, region in enumerate(giver.regions):
        name = region.phrases[0].strip().lower()
        reason = "text_of_sentences" if record.kind != "detection" else "name_known" if _names(name, known) else ""
        if reason or not name:
            detail = f"{region.phrases[0]!r} was not appended to {record.id}"
            key = f"{giver.id}#{index}"
            rejects.append(Reject(key, "annotation", "policy", "ingest", reason or "phrase_empty", detail))
            continue
        there = {box.xyxy for box in fresh[name]}
        fresh[name] += [box for box in region.boxes if box.xyxy not in there]
    return _append(record, fresh), rejects


def _name_spans(record: Record) -> list[Span]:
    return [span for region in record.regions for span in region.spans] + list(record.negatives)


def _names(phrase: str, known: set[str]) -> bool:
    """Whether a phrase is one of the names, or its plural ("cars" of "car", "buses" of "bus")."""
    ends = [end for end in ("s", "es") if phrase.endswith(end)]
    return phrase.casefold() in known or any(phrase.removesuffix(end).casefold() in known for end in ends)


def _append(record: Record, fresh: Mapping[str, list[Box]]) -> Record:
    text, regions = record.text, list(record.regions)
    order = max((box.order for box in record.boxes), default=-1) + 1
    for name, boxes in fresh.items():
        text += "" if not text or text.endswith(". ") else " " if text.endswith(".") else ". "
        numbered = tuple(replace(box, order=order + index) for index, box in enumerate(boxes))
        regions.append(Region((name,), ((len(text), len(text) + len(name)),), numbered))
        text += f"{name}. "
        order += len(boxes)
    return replace(record, text=text, regions=tuple(regions))
