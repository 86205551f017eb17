"""Pictures beside an export: copied or linked below `images/<root>/`, each once."""

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

    def __init__(self, out: str, how: Literal["none", "copy", "link"], sources: Mapping[str, SourceInfo]) -> None:
        self._out, self._how, self._sources = out, how, sources
        self._seen: set[tuple[str, str]] = set()
        self.lost: dict[str, int] = {}

    @property
    def written(self) -> tuple[str, ...]:
        """What `Exported.files` says of them: one folder, not a hundred thousand names."""
        return ("images/",) if self._seen else ()

    def place(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Place what the batch shows and hand the batch on."""
        if self._how != "none":
            columns = (batch.column(name).to_pylist() for name in ("root", "source", "image"))
            for root, source, image in zip(*columns, strict=True):
                if (root, image) not in self._seen:
                    self._seen.add((root, image))
                    self._place(root, source, image)
        return batch

    def read(self, root: str, source: str, image: str) -> bytes:
        """The bytes of a picture. Raises ImageError or MissingError."""
        return files.read_bytes(self.address(root, source, image))

    def address(self, root: str, source: str, image: str) -> str:
        """Where a picture is. Raises ImageError for a name that leaves its folder, MissingError for an unknown root."""
        info = self._sources.get(root) or self._sources.get(source)
        if info is None:
            raise MissingError(f"no source or image folder is named {root!r}; known: {sorted(self._sources)}")
        return files.safe_join(info.images, image)

    def _place(self, root: str, source: str, image: str) -> None:
        try:
            address = self.address(root, source, image)
            target = files.safe_join(files.join(self._out, "images", root), image)
            if self._how == "link":
                _link(address, target)
            else:
                files.write_bytes(target, files.read_bytes(address))
        except (ImageError, MissingError):
            self.lost["pictures not found"] = self.lost.get("pictures not found", 0) + 1


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
