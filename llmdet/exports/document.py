"""One JSON document with long lists, written without holding the lists in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any

import orjson

from llmdet import files


class Rows:
    """The rows of one list, kept in a temporary file until the document is written."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.count = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self._file.write((b",\n" if self.count else b"\n") + orjson.dumps(row))
        self.count += 1

    def pour(self, into: IO[bytes]) -> None:
        """Write the list, brackets and all."""
        into.write(b"[")
        self._file.seek(0)
        shutil.copyfileobj(self._file, into, 1 << 20)
        into.write(b"\n]" if self.count else b"]")

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def write_document(url: str, members: Mapping[str, Any], compression: files.Compression | None = None) -> None:
    """Write `{"name": value, ...}`, all or nothing; a value may be `Rows`."""
    with files.open_atomic(url, compression) as file:
        for index, (name, value) in enumerate(members.items()):
            file.write((b",\n" if index else b"{\n") + orjson.dumps(name) + b": ")
            if isinstance(value, Rows):
                value.pour(file)
            else:
                file.write(orjson.dumps(value))
        file.write(b"\n}\n")


def write_list(url: str, rows: Rows, compression: files.Compression | None = None) -> None:
    """Write `[row, ...]`, all or nothing."""
    with files.open_atomic(url, compression) as file:
        rows.pour(file)
        file.write(b"\n")
