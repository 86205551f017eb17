"""Pictures beside an export: copied or linked, each once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import ImageError, MissingError, SettingError
from llmdet.sources.source import SourceInfo


class Pictures:
    """Places the pictures of batches, and remembers which it placed and which it could not find."""

    def __init__(
        self, out: str, how: Literal["none", "copy", "link"], sources: Mapping[str, SourceInfo], folder: str = "images"
    ) -> None:
        self._out, self._how, self._sources, self._folder = out, how, sources, folder
        self._seen: set[str] = set()
        self.lost: dict[str, int] = {}

    @property
    def written(self) -> tuple[str, ...]:
        """What `Exported.files` says of them: one folder, not a hundred thousand names."""
        return (f"{self._folder}/",) if self._seen else ()

    def place(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Place what the batch shows below `<folder>/<root>/` and hand the batch on."""
        if self._how != "none":
            columns = (batch.column(name).to_pylist() for name in ("root", "source", "image"))
            for root, source, image in zip(*columns, strict=True):
                self.put(root, source, image, f"{root}/{image}")
        return batch

    def put(self, root: str, source: str, image: str, name: str) -> None:
        """Place one picture under a name below the folder, once; count it where it is missing."""
        if self._how == "none" or name in self._seen:
            return
        self._seen.add(name)
        try:
            address, target = self.address(root, source, image), files.safe_join(f"{self._out}/{self._folder}", name)
            if self._how == "link":
                _link(address, target)
            else:
                files.write_bytes(target, files.read_bytes(address))
        except (ImageError, MissingError):
            self.lost["pictures not found"] = self.lost.get("pictures not found", 0) + 1

    def read(self, root: str, source: str, image: str) -> bytes | None:
        """The bytes of a picture, or None and a count where it is missing."""
        try:
            return files.read_bytes(self.address(root, source, image))
        except (ImageError, MissingError):
            self.lost["pictures not found"] = self.lost.get("pictures not found", 0) + 1
            return None

    def address(self, root: str, source: str, image: str) -> str:
        """Where a picture is. Raises ImageError for a name that leaves its folder, MissingError for an unknown root."""
        info = self._sources.get(root) or self._sources.get(source)
        if info is None:
            raise MissingError(f"no source or image folder is named {root!r}; known: {sorted(self._sources)}")
        return files.safe_join(info.images, image)


def _link(address: str, target: str) -> None:
    source, place = _local(address), _local(target)
    if not os.path.isfile(source):
        raise MissingError(f"no such file: {address}")
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.lexists(place):
        os.unlink(place)
    os.symlink(os.path.abspath(source), place)


def _local(url: str) -> str:
    fs, path = url_to_fs(url)
    if "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        raise SettingError(f"pictures can be linked on a local disk only, not to or from {url}; use --images copy")
    return str(path)
