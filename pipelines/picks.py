"""Which records a report shows: some of every source, flag and reason, the same ones however the tables are cut."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from llmdet import files
from llmdet.gallery import LeftOut
from llmdet.record import Record, from_batch
from llmdet.rejects import Reject
from llmdet.workspace import Table, Workspace, read_part
from pipelines.ledger import Ledger

_Group = tuple[str, str]  # ("source" or "flag", name)
# How a reject of a caption names its record: see llmdet.rules.outcome.Loss and pipelines.merge.
_PLACE = r"\(((?:{})/.+) (image_caption|region_caption) (\d+)\)$"
_ID = re.compile(r"(.+)#(image_caption|region_caption)-(\d+)$", re.S)
_REQUEST = re.compile(r"[0-9a-f]{32}")


@dataclass
class Picks:
    """Records with the smallest hashes of their ids: `per_source` of each source, `per_flag` of each flag.

    Parts come one at a time; only what is picked is decoded and kept.
    """

    per_source: int
    per_flag: int
    _groups: dict[_Group, dict[str, bytes]] = field(default_factory=dict)  # group -> id -> hash
    _records: dict[str, Record] = field(default_factory=dict)

    def add(self, part: pa.Table) -> None:
        """Look at the records of one part."""
        ids = part["id"].to_pylist()
        hashes = [hashlib.blake2b(name.encode(), digest_size=16).digest() for name in ids]
        wanted: set[int] = set()
        for group, rows in _rows(part).items():
            best = self._groups.setdefault(group, {})
            count = self.per_source if group[0] == "source" else self.per_flag
            known = [(digest, name, -1) for name, digest in best.items()]
            chosen = heapq.nsmallest(count, [*known, *((hashes[row], ids[row], row) for row in rows)])
            self._groups[group] = {name: digest for digest, name, _ in chosen}
            wanted.update(row for _, _, row in chosen if row >= 0)
        if wanted:
            rows = sorted(wanted)
            self._records |= {one.id: one for one in from_batch(part.take(pa.array(rows)))}
            named = {name for group in self._groups.values() for name in group}
            self._records = {name: one for name, one in self._records.items() if name in named}

    @property
    def records(self) -> list[Record]:
        """What was picked, in the order of the tables."""
        return list(self._records.values())


def _rows(part: pa.Table) -> dict[_Group, list[int]]:
    """The rows of each source and of each flag."""
    groups: dict[_Group, list[int]] = {}
    for row, source in enumerate(part["source"].to_pylist()):
        groups.setdefault(("source", source), []).append(row)
    flagged = pc.greater(pc.list_value_length(part["flags"]), 0)
    rows = pc.indices_nonzero(flagged).to_pylist()
    for row, flags in zip(rows, part["flags"].filter(flagged).to_pylist(), strict=True):
        for flag in dict.fromkeys(flags):
            groups.setdefault(("flag", flag), []).append(row)
    return groups


@dataclass(frozen=True)
class Place:
    """What a reject was: a record, or a caption of one."""

    record_id: str
    caption: tuple[str, int] | None = None  # image_caption or region_caption, and which


def place_of(reject: Reject, sources: Iterable[str]) -> Place | None:
    """Where something that was left out of one of the sources belongs; None where that cannot be told."""
    if reject.level == "record":
        return Place(reject.id)
    names = "|".join(map(re.escape, sources))  # an id may hold brackets and blanks, so it is found by its beginning
    found = _ID.match(reject.id) or re.search(_PLACE.format(names), reject.detail, re.S)
    return Place(found[1], (found[2], int(found[3]))) if found else None


def with_their_records(workspace: Workspace, examples: Iterable[Reject]) -> Iterator[tuple[Record, LeftOut]]:
    """Rejects whose record is known, with what was said: a record that was left out as it was ingested, one that only
    lost a caption as it is now.
    """
    sources = workspace.sources()
    placed = [(reject, place) for reject in examples if (place := place_of(reject, sources))]
    before: dict[str, Record] = {}
    now: dict[str, Record] = {}
    said: dict[str, str] = {}
    for source in sources:
        here = [(reject, place) for reject, place in placed if place.record_id.startswith(f"{source}/")]
        before |= _find(workspace.best_records(source), {place.record_id for _, place in here})
        now |= _find(workspace.captions(source), {place.record_id for _, place in here if place.caption})
        said |= _answers(workspace, source, {reject.id for reject, _ in here if _REQUEST.fullmatch(reject.id)})
    for reject, place in placed:
        if record := before.get(place.record_id):
            kept = now.get(record.id, record)
            words = _merged_words if reject.stage == "merge" else _words
            yield kept, LeftOut(reject, said.get(reject.id) or words(record, kept, place))


def _words(before: Record, now: Record, place: Place) -> str:
    """The caption that a rule took out, where it was the source's own and only one can be meant.

    An image caption's place says little here: the engine's come first, and those before it may be gone too.
    """
    if place.caption is None:
        return ""
    level, index = place.caption
    if level == "region_caption":
        return next((box.caption.text for box in before.boxes if box.order == index and box.caption), "")
    left = {caption.raw or caption.text for caption in now.captions}
    gone = [caption.text for caption in before.captions if (caption.raw or caption.text) not in left]
    return gone[0] if len(gone) == 1 else ""


def _merged_words(_: Record, now: Record, place: Place) -> str:
    """The caption that merge did not choose."""
    index = place.caption[1] if place.caption else len(now.captions)
    return now.captions[index].text if index < len(now.captions) else ""


def _find(table: Table, ids: set[str]) -> dict[str, Record]:
    """The records with these ids; the rest of the table is not read once all are there."""
    found: dict[str, Record] = {}
    manifest = table.manifest()
    for part in manifest.parts if manifest else ():
        if len(found) == len(ids):
            break
        rows = pc.is_in(table.read(part.name, ["id"])["id"], pa.array(sorted(ids), pa.string()))
        if pc.any(rows).as_py():
            found |= {record.id: record for record in from_batch(table.read(part.name).filter(rows))}
    return found


def _answers(workspace: Workspace, source: str, requests: set[str]) -> dict[str, str]:
    """The last thing that an engine said to each request."""
    found: dict[str, str] = {}
    wanted = pa.array([bytes.fromhex(one) for one in sorted(requests)], pa.binary(16))
    for name in workspace.children("responses", source) if requests else ():
        ledger = Ledger(workspace.path("responses", source, name))
        for part in ledger.names():
            url = files.join(ledger.url, part)
            asked = pc.is_in(read_part(url, ["request_id"])["request_id"], wanted)
            if not pc.any(asked).as_py():
                continue
            rows = read_part(url, ["request_id", "text"]).filter(asked)
            texts = zip(rows["request_id"].to_pylist(), rows["text"].to_pylist(), strict=True)
            found |= {request.hex(): text for request, text in texts if text}
    return found
