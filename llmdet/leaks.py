"""Leaks: training records whose photo is one that detectors are evaluated on.

A photo is known by its id, whatever its file is called (`000000581857.jpg`, `COCO_train2014_000000581857.jpg` and a
`coco_url` are one COCO photo; Flickr30k's names are Flickr's own ids, which COCO's `flickr_url` and Visual Genome's
`image_data.json` give too), or by its content: the same bytes, or a perceptual hash (imagehash's phash, 256 bits) at
a Hamming distance of at most `MAX_DISTANCE`. Lists that nobody named, or that are not there, or that cannot tell a
source's photos, are `not checked`, never passed. `llmdet.photo_lists` reads the lists.

Mirrored, turned and strongly cropped copies are not found.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmdet.attaching import photo_key
from llmdet.record import Record
from llmdet.rejects import Reject

Action = Literal["drop", "keep", "flag"]
# What a source's photos are called by: ids of COCO, Flickr or Visual Genome; "any": nobody said; "none": none of them.
Space = Literal["coco", "flickr", "visual_genome", "any", "none"]

# Of 256 bits. 11,781 pairs of different photos are at 96 and more, in mean at 127.5 with a standard deviation of 8.2;
# copies scaled, compressed, greyed or cropped by up to 4 px stay within 42 (benchmarks/perceptual_hash.py). A hash of
# 64 bits finds stronger crops too, but a run compares 4e10 pairs, and thousands of them would match by chance.
MAX_DISTANCE = 48
_FLICKR_URL = re.compile(r"/(\d+)_[0-9a-f]+(?:_[a-z])?\.\w+$")
_LONG_ID = re.compile(r"[1-9]\d{7,10}")  # longer than any id of Visual Genome, shorter than COCO's names


@dataclass(frozen=True, kw_only=True)
class LeakSettings:
    """Where the lists of evaluation photos are, and what is done with records that show one."""

    coco_val: str = ""  # instances_val2017.json
    lvis_val: str = ""  # lvis_v1_val.json, or the minival; the whole val has 15,000 photos of COCO train2017
    flickr30k: str = ""  # folder with val.txt and test.txt
    refcoco: tuple[str, ...] = ()  # refs(...).p, of which val and test count, or MDETR's finetune_refcoco_*.json
    image_data: str = ""  # Visual Genome's, which says which of its photos are COCO's and Flickr's
    photos: tuple[str, ...] = ()  # folders of evaluation photos, compared by content
    action: Action = "drop"
    max_distance: int = MAX_DISTANCE  # bits of 256 in which two hashes of one photo may differ


@dataclass(frozen=True, slots=True)
class Leak:
    """One evaluation photo found in a record."""

    where: str  # name of the list
    how: Literal["id", "sha256", "perceptual"]
    which: str  # the photo there
    distance: int | None = None  # bits of 256, of a perceptual match

    def __str__(self) -> str:
        told = {"id": "by id", "sha256": "same bytes", "perceptual": f"perceptual, distance {self.distance} of 256"}
        return f"{self.where}: {self.which} ({told[self.how]})"


@dataclass(frozen=True, slots=True)
class PhotoIds:
    """What a photo is called; None where it has no such id, or nobody says."""

    coco: int | None = None
    flickr: int | None = None


@dataclass(frozen=True, slots=True)
class IdList:
    """The ids of one list of evaluation photos. Empty with `why` where it could not be had."""

    name: str
    coco: frozenset[int] = frozenset()
    flickr: frozenset[int] = frozenset()
    photos: int = 0
    why: str = ""  # it is not checked


@dataclass(frozen=True)
class PhotoList:
    """The content of one folder of evaluation photos."""

    name: str
    names: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    looks: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((4, 0), np.uint64))  # (4, n): 256 bits each
    plain: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))  # (n,), without a hash
    unreadable: int = 0  # files that no picture came of
    why: str = ""

    def find(self, sha256: str | None, looks: bytes | None, max_distance: int) -> Leak | None:
        """The photo with the same bytes, else the nearest one that looks the same."""
        if sha256 in self._by_hash:
            return Leak(self.name, "sha256", self._by_hash[sha256])
        if looks is None or not self.names:
            return None
        mine = np.frombuffer(looks, np.uint64)[:, None]
        distance = np.bitwise_count(self.looks ^ mine).sum(axis=0, dtype=np.uint16)
        distance[self.plain] = 257
        best = int(distance.argmin())
        near = int(distance[best])
        return Leak(self.name, "perceptual", self.names[best], near) if near <= max_distance else None

    @cached_property
    def _by_hash(self) -> dict[str | None, str]:
        return dict(zip(self.sha256, self.names, strict=True))


@dataclass(frozen=True)
class Leaks:
    """All lists of a run, ready to be asked about records."""

    settings: LeakSettings = field(default_factory=LeakSettings)
    lists: tuple[IdList, ...] = ()
    photos: tuple[PhotoList, ...] = ()
    visual_genome: Mapping[int, PhotoIds] = field(default_factory=dict)  # its photos that are in a list
    no_image_data: str = "leaks.image_data is not set"  # why Visual Genome's photos cannot be told; "" where they can

    @property
    def by_content(self) -> bool:
        """Whether photos must be hashed."""
        return self.settings.action != "keep" and any(found.names for found in self.photos)

    def by_id(self, record: Record, space: Space) -> Leak | None:
        """The first list that has the record's photo by its id."""
        if self.settings.action == "keep":
            return None
        ids = photo_ids(record, space)
        if space == "visual_genome" and (key := _stem(record)).isdecimal():
            more = self.visual_genome.get(int(key), PhotoIds())
            ids = PhotoIds(ids.coco if more.coco is None else more.coco, more.flickr)
        for found in self.lists:
            if ids.coco in found.coco:
                return Leak(found.name, "id", f"COCO {ids.coco}")
            if ids.flickr in found.flickr:
                return Leak(found.name, "id", f"Flickr {ids.flickr}")
        return None

    def by_looks(self, sha256: str | None, looks: bytes | None) -> Leak | None:
        """The first folder that has a photo by its content."""
        if self.settings.action == "keep":
            return None
        found = (photos.find(sha256, looks, self.settings.max_distance) for photos in self.photos)
        return next((leak for leak in found if leak), None)

    def judge(self, record: Record, leak: Leak) -> Record | Reject:
        """What becomes of a record with a leak: a reject, or the record with the flag `leak`."""
        if self.settings.action == "drop":
            return Reject(record.id, "record", "policy", "ingest", "leak", str(leak))
        flags = tuple(dict.fromkeys((*record.flags, "leak")))
        return replace(record, flags=flags, extra={**record.extra, "leak": str(leak)})

    def report(self, space: Space, images: str = "decode") -> dict[str, Any]:
        """Which lists a source with such photos is checked against, for its manifest; `images` as in ingest."""
        found = {one.name: self._told(one.photos, *self._id_check(one, space)) for one in self.lists}
        for one in self.photos:
            by, why = _content_check(one, images)
            found[one.name] = self._told(len(one.names), by, why)
        return {"action": self.settings.action, "lists": found}

    def _told(self, photos: int, by: str, why: str) -> dict[str, Any]:
        if self.settings.action == "keep":
            by, why = "", "leaks.action is keep"
        return {"state": "checked" if by else "not checked", "by": by, "photos": photos, "why": why}

    def _id_check(self, one: IdList, space: Space) -> tuple[str, str]:
        """How a list is compared with a source's photos, and why not or not quite."""
        if one.why:
            return "", one.why
        if space == "visual_genome":
            if self.no_image_data:
                return "", self.no_image_data
            return "id, by image_data.json", "photos named n... are not in it"
        if space == "none":
            return "", "this source's photos have no ids of COCO or Flickr; name folders of photos in leaks.photos"
        if space == "any":
            return "id, where names of files hold one", "names of files may say nothing"
        own, address = (one.coco, one.flickr) if space == "coco" else (one.flickr, None)
        if own:
            return "id", ""
        return ("flickr_url", "only rows that have one") if address else ("", f"the list has no ids of {space}")


def photo_ids(record: Record, space: Space) -> PhotoIds:
    """What a record's own fields say about its photo."""
    stem, extra = _stem(record), record.extra
    coco = coco_id(record.image)
    if coco is None:
        coco = coco_id(extra.get("coco_url"))
    if coco is None and space == "coco" and record.image_id.isdecimal():
        coco = int(record.image_id)
    flickr = flickr_id(extra.get("flickr_url"))
    if (space == "flickr" and stem.isdecimal()) or (space == "any" and _LONG_ID.fullmatch(stem)):
        flickr = int(stem)
    return PhotoIds(coco, flickr)


def coco_id(path: Any) -> int | None:
    """COCO's id in the name of a photo: twelve digits at its end, alone or behind `COCO_train2014_`."""
    if not isinstance(path, str) or not path:
        return None
    key = photo_key(path)
    digits = posixpath.splitext(posixpath.basename(path.replace("\\", "/")))[0][-12:]
    return int(key) if key.isdecimal() and len(digits) == 12 and int(key) == int(digits) else None


def flickr_id(url: Any) -> int | None:
    """Flickr's id in the address of a photo: `http://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg`."""
    found = _FLICKR_URL.search(url) if isinstance(url, str) else None
    return int(found[1]) if found else None


def _stem(record: Record) -> str:
    return posixpath.splitext(posixpath.basename(record.image.replace("\\", "/")))[0]


def _content_check(one: PhotoList, images: str) -> tuple[str, str]:
    if one.why:
        return "", one.why
    if images == "skip":
        return "", "ingest.images is skip, so no photo was opened"
    bad = f"{one.unreadable} files there are no readable pictures" if one.unreadable else ""
    if images == "header":
        return "sha256", "; ".join(filter(None, ["copies that differ are not found: ingest.images is header", bad]))
    return "sha256 and perceptual hash", bad
