"""A folder of one's own pictures, with or without captions.

A line of a caption file, and the same as CSV (or TSV) with a header:

    {"file_name": "garden/0003.jpg", "text": "Two chairs under an apple tree."}
    file_name,text

The picture is named by `file_name`, `filename`, `image`, `file` or `path`, relative to the folder; the caption by
`caption`, `text` or `captions` (a list in JSON); several rows of a picture are several captions. A file
`metadata.jsonl`, `metadata.csv`, `captions.jsonl` or `captions.csv` in the folder is found by itself. The licence is
yours. Pictures are turned by their EXIF orientation, as viewers show them.
"""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import MissingError
from llmdet.record import Record, record_id
from llmdet.rejects import Kind, Reject
from llmdet.sources.conversations import own_caption
from llmdet.sources.fields import FieldError, printable, shown, storable, text, texts
from llmdet.sources.rows import Row, read_rows
from llmdet.sources.source import Item, SourceInfo

# What Pillow opens, as the names of such files end.
PICTURES = tuple(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .tif .tiff .mpo .avif .jp2 .ppm .pgm .pbm .pnm .tga .ico".split()
)
_FOUND = ("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.csv")
_NAMES = ("file_name", "filename", "image", "file", "path")
_CAPTIONS = ("caption", "text", "captions")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Reads all pictures below `images`, by path. `annotations` is a caption file; a folder or "" is looked into."""

    images: str
    annotations: str = ""
    name: str = "folder"
    licence: str = ""
    address: str = ""

    def info(self) -> SourceInfo:
        return SourceInfo(self.name, "folder", self.licence, self.address, self.images)

    def read(self) -> Iterator[Item]:
        names = list_files(self.images)
        if not any(is_picture(name) for name in names):
            raise MissingError(f"no picture below {self.images}; known are {', '.join(PICTURES)}")
        captions: dict[str, list[str]] = defaultdict(list)
        yield from self._gather(captions)
        for name in names:
            if not self._is_captions(name):
                yield self._item(name, captions.pop(name, []))
        for name in captions:
            yield self._reject(name, "image_missing", "captions name a picture that is not in the folder")

    def _item(self, name: str, captions: list[str]) -> Item:
        if not storable(name):
            return self._reject(printable(name), "text_not_unicode", "the file's name is no UTF-8")
        if any(part.startswith(".") for part in name.split("/")):
            return self._reject(name, "hidden_file", "names that begin with a dot are passed over")
        if not is_picture(name):
            return self._reject(name, "not_a_picture", "the name does not end like a picture's")
        return Record(
            id=record_id(self.name, name, "0"),
            source=self.name,
            image_id=name,
            text_id="0",
            kind="grounding",
            image=name,
            root=self.name,
            width=0,
            height=0,
            text="",
            captions=tuple(own_caption(caption) for caption in captions),
            orientation="applied",
            licence=self.licence,
            origin=self.address,
        )

    def _gather(self, captions: dict[str, list[str]]) -> Iterator[Reject]:
        """Fill `captions` by picture; the rejects are rows that say none."""
        path = self._caption_file
        for row in read_rows(path, _NAMES, "a caption file") if path else ():
            try:
                name, said = _caption_row(row)
                captions[name] += said
            except FieldError as error:
                yield self._reject(row.where, error.reason, error.detail)

    @cached_property
    def _caption_file(self) -> str:
        """Where the captions are; "" where there are none. Raises MissingError for a file that is not there."""
        if not self.annotations or _is_folder(self.annotations):
            places = [files.join(self.annotations or self.images, name) for name in _FOUND]
            return next((place for place in places if files.exists(place)), "")
        return self.annotations

    def _is_captions(self, name: str) -> bool:
        if not self._caption_file or is_picture(name):
            return False
        return plain_path(files.join(self.images, name)) == plain_path(self._caption_file)

    def _reject(self, name: str, reason: str, detail: str) -> Reject:
        kind: Kind = "policy" if reason in {"hidden_file", "not_a_picture", "caption_empty"} else "fault"
        return Reject(f"{self.name}/{name}", "record", kind, "ingest", reason, detail)


def list_files(url: str) -> list[str]:
    """All files below a folder as relative paths, sorted. Raises MissingError."""
    fs, path = url_to_fs(url)
    if not fs.isdir(path):
        raise MissingError(f"no such folder: {url}")
    return sorted(posixpath.relpath(found, path) for found in fs.find(path))


def is_picture(name: str) -> bool:
    """Whether a file's name ends like a picture's."""
    return name.lower().endswith(PICTURES)


def _is_folder(url: str) -> bool:
    fs, path = url_to_fs(url)
    if not fs.exists(path):
        raise MissingError(f"no such file or folder: {url}")
    return bool(fs.isdir(path))


def plain_path(url: str) -> str:
    """The path of a URL inside its file system, absolute."""
    return str(url_to_fs(url)[1])


def _caption_row(row: Row) -> tuple[str, list[str]]:
    """The picture of a row, and what the row says about it."""
    if isinstance(row.value, FieldError):
        raise row.value
    name = text(_first(row.value, _NAMES), "file_name")
    value = _first(row.value, _CAPTIONS)
    given = texts(value, "captions") if isinstance(value, list) else (text(value, "caption"),)
    said = [caption for caption in given if caption.strip()]
    if not said:
        raise FieldError("caption_empty", f"no words about {shown(name)}")
    return posixpath.normpath(name.replace("\\", "/")), said


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), None)
