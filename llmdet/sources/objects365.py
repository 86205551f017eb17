"""Objects365: v2 `zhiyuan_objv2_{train,val}.json`, v1 `objects365_{train,val}.json`; photos `patchN/*.jpg`.

One image, one annotation and one category of v2:

    {"id": 420917, "file_name": "images/v1/patch8/objects365_v1_00420917.jpg", "width": 1024, "height": 682,
     "license": 5, "url": "..."}
    {"id": 7, "image_id": 420917, "category_id": 9, "bbox": [39.8, 221.3, 45.1, 80.6], "area": 3635.1, "iscrowd": 0,
     "isfake": 0, "isreflected": 0}
    {"id": 9, "name": "Cabinet/shelf"}

https://www.objects365.org, annotations CC BY 4.0, photos under their Flickr licences; v2 train: 1,742,289 images and
25,407,598 boxes, v1 train: 608,606 images; 365 categories, all of them labelled everywhere. `images/v1/` and
`images/v2/` are cut from file names, since the archives unpack to `patchN/`. A few photos of the list were never
published. Some names are misspelt: they are corrected by a small table here, or by a csv of `id,old,new` or `old,new`.
A slash parts two names of a thing: a text says one of them, drawn for each record. Reflections and pictures of things
(`isreflected`, `isfake`) have boxes; `extra` keeps the marks. `extra` of a category keeps `original_name`.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

from llmdet.detection_text import Negatives
from llmdet.errors import FormatError
from llmdet.files import open_text
from llmdet.sources.coco import Coco, Photo
from llmdet.sources.fields import FieldError
from llmdet.sources.source import Category

ADDRESS = "https://www.objects365.org"
LICENCE = "CC-BY-4.0 (annotations); Flickr terms (photos)"

# Ids of images whose photos are in no archive.
MISSING: dict[str, frozenset[str]] = {
    "v1": frozenset({"6", "19", "23"}),
    "v2": frozenset({"908726", "320532", "320534"}),
}
# Published name to right name; case and blanks at the ends do not matter.
CORRECTIONS = {
    "bakset": "Basket",
    "ballon": "Balloon",
    "billards": "Billiards",
    "buttefly": "Butterfly",
    "campel": "Camel",
    "dinning table": "Dining Table",
    "extention cord": "Extension Cord",
    "hamimelon": "Hami Melon",
    "hotair ballon": "Hot-air Balloon",
    "moniter/tv": "Monitor/TV",
    "mushroon": "Mushroom",
    "noddles": "Noodles",
    "table teniis paddle": "Table Tennis Paddle",
    "tape measur/ ruler": "Tape Measure/Ruler",
}


@dataclass(frozen=True, kw_only=True)
class Objects365(Coco):
    """Reads one file of v1 or v2."""

    name: str = "objects365"
    version: Literal["v1", "v2"] = "v2"
    negatives: Negatives = 50  # 365 names do not fit 256 tokens
    alternatives: Literal["draw", "first", "keep"] = (
        "draw"  # of "Cabinet/shelf": one of the two, "cabinet", or all of it
    )
    corrections: str = ""  # address of a csv; none: the table of this module
    fake: Literal["drop", "keep"] = "keep"  # things in a picture or on a screen
    reflected: Literal["drop", "keep"] = "keep"  # things in a mirror
    licence: str = LICENCE
    address: str = ADDRESS

    form: ClassVar[str] = "objects365"

    def _photo(self, value: Any) -> Photo:
        photo = super()._photo(value)
        if photo.id in MISSING[self.version]:
            raise FieldError(
                "photo_known_missing", f"Objects365 {self.version} never published the photo of image {photo.id}"
            )
        return photo

    def _path(self, row: Mapping[str, Any]) -> str:
        return re.sub(r"^(?:\./)?images/v[12]/", "", super()._path(row))

    def _category(self, row: Mapping[str, Any]) -> Category:
        category = super()._category(row)
        said = self._corrected(category)
        return replace(category, name=said, extra={**category.extra, "original_name": row["name"]})

    def _corrected(self, category: Category) -> str:
        table = self._csv if self.corrections else CORRECTIONS
        return table.get(f"#{category.id}") or table.get(category.name.lower(), category.name)

    def _names(self, identity: str) -> Mapping[int, str]:
        if self.alternatives == "keep" or not self._slashed:
            return self._named
        # A text of its own for the draw: the order of the names must not depend on it.
        rng = random.Random(f"{self.seed}|{identity}|alternatives")
        first = self.alternatives == "first"
        return {**self._named, **{key: said[0] if first else rng.choice(said) for key, said in self._slashed.items()}}

    def _policy(self, row: Mapping[str, Any]) -> FieldError | None:
        if row.get("isfake") and self.fake == "drop":
            return FieldError("fake", "isfake 1 is a picture of the thing")
        if row.get("isreflected") and self.reflected == "drop":
            return FieldError("reflected", "isreflected 1 is a mirror image")
        return super()._policy(row)

    def _box_extra(self, row: Mapping[str, Any]) -> dict[str, Any]:
        # Nearly all marks are 0, and 25 million boxes have two.
        return {key: value for key, value in super()._box_extra(row).items() if value != 0}

    @cached_property
    def _slashed(self) -> dict[int, list[str]]:
        """The names of categories with more than one, by id."""
        parts = {key: [part.strip() for part in name.split("/") if part.strip()] for key, name in self._named.items()}
        return {key: said for key, said in parts.items() if said and "/" in self._named[key]}

    @cached_property
    def _csv(self) -> dict[str, str]:
        """New names by `#id`, and by old name in lower case."""
        table: dict[str, str] = {}
        with open_text(self.corrections) as file:
            try:
                for row in csv.reader(file):
                    *key, old, new = (cell.strip() for cell in row) if len(row) in {2, 3} else ("", "")
                    if not new or (key and not key[0].isdigit()):
                        raise FormatError(f"{self.corrections}: expected rows of id,old,new or old,new; got {row}")
                    table[f"#{int(key[0])}" if key else old.lower()] = new
            except (csv.Error, UnicodeDecodeError) as error:
                raise FormatError(f"{self.corrections} is not a csv file: {error}") from error
        return table
