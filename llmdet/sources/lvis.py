"""LVIS: `lvis_v1_{train,val}.json`, also v0.5 and the minival with names inserted; photos of COCO 2017.

One image of the file, and the category and annotation that go with it:

    {"id": 391895, "width": 640, "height": 360, "license": 3, "date_captured": "2013-11-14 11:18:45",
     "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg", "neg_category_ids": [46, 1172],
     "not_exhaustive_category_ids": [703], "flickr_url": "http://farm9.staticflickr.com/1/2.jpg"}
    {"id": 139, "name": "bow_(weapon)", "synset": "bow.n.04", "synonyms": ["bow"], "def": "a weapon that shoots arrows",
     "frequency": "r", "image_count": 8, "instance_count": 13}
    {"id": 1, "image_id": 391895, "category_id": 139, "area": 6716.2, "bbox": [310.4, 12.1, 98.0, 214.5],
     "segmentation": [[312.2, 14.0, ...]]}

https://www.lvisdataset.org, annotations CC BY 4.0; v1 train: 100,170 images, 1,270,141 annotations, 1,203 categories
(337 rare, 461 common, 405 frequent); v0.5: 1,230 categories. v1 has no `file_name`: a photo lies where `coco_url` says,
`train2017/` or `val2017/` below the image root (v0.5's `file_name` is of 2014 and lies there too). Annotation is
federated: of a photo only the categories with boxes and those of `neg_category_ids` are known, so negatives are the
latter. Texts say `bow`; `extra` of a category keeps `bow_(weapon)` as `original_name`. Two categories may share a name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import urlsplit

from llmdet.detection_text import Negatives
from llmdet.sources.coco import Coco, Photo
from llmdet.sources.fields import FieldError, shown, text
from llmdet.sources.source import Category

ADDRESS = "https://www.lvisdataset.org"
LICENCE = "CC-BY-4.0 (annotations); Flickr terms (photos)"

_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True, kw_only=True)
class Lvis(Coco):
    """Reads one file of LVIS v1 or v0.5."""

    name: str = "lvis"
    negatives: Negatives = "dynamic"  # 1,203 names fit no text, and most of them are not known to be absent
    verified: bool = True  # names of neg_category_ids stand in the text
    exhaustive: bool = False
    licence: str = LICENCE
    address: str = ADDRESS

    form: ClassVar[str] = "lvis"

    def _path(self, row: Mapping[str, Any]) -> str:
        for key in _LISTS:
            value = row.get(key, [])
            if not isinstance(value, list) or not all(type(item) is int for item in value):
                raise FieldError("row_malformed", f"{key} must be a list of category ids, got {shown(value)}")
        if row.get("coco_url") is None:
            # The last 16 characters of COCO_val2014_000000397133.jpg are the name of 2017.
            return posixpath.basename(text(row.get("file_name"), "file_name or coco_url"))[-16:]
        address = text(row["coco_url"], "coco_url")
        path = urlsplit(address).path.lstrip("/") if address.startswith(("http://", "https://")) else ""
        if not path:
            raise FieldError("row_malformed", f"coco_url must be an address with a path, got {shown(address)}")
        return path

    def _category(self, row: Mapping[str, Any]) -> Category:
        category = super()._category(row)
        said = clean_name(category.name)
        return replace(category, name=said, extra={**category.extra, "original_name": row["name"]})

    def _beside(self, photo: Photo) -> list[str]:
        return sorted(self._verified(photo)) if self.verified else []

    def _known_absent(self, photo: Photo, names: set[str]) -> set[str]:
        return names & self._verified(photo)

    def _verified(self, photo: Photo) -> set[str]:
        return {self._named[key] for key in photo.row.get("neg_category_ids", []) if key in self._named}


def clean_name(name: str) -> str:
    """A name without what stands in brackets (from the first to the last) and with blanks for underscores, stripped.

    LLMDet's evaluation cleans in the same way but leaves a blank at the end of `flip-flop_(sandal)`.
    """
    return re.sub(r"\(.*\)", "", name).replace("_", " ").replace("  ", " ").strip()
