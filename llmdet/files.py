"""Reading and writing through fsspec: every path may be a URL, every write is all or nothing."""

from __future__ import annotations

import hashlib
import os
import posixpath
import uuid
from collections.abc import Iterator
from typing import IO, Any

import fsspec
import jsonlines
import orjson
from fsspec.core import url_to_fs

from llmdet.errors import FormatError, ImageError, MissingError

__all__ = ["exists", "iter_jsonl", "join", "open_text", "read_bytes", "read_json", "safe_join", "sha256", "write_bytes"]


def join(url: str, *parts: str) -> str:
    """Join a root (path or URL) and relative parts with forward slashes."""
    return posixpath.join(url, *parts)


def absolute(url: str) -> str:
    """A local path made absolute, so that workers with another working directory find it; URLs stay."""
    return url if "://" in url else os.path.abspath(os.path.expanduser(url))


def safe_join(root: str, relative: str) -> str:
    """Join a path that came from data to its root, and refuse one that leaves it.

    Raises ImageError("path_outside_root").
    """
    normal = posixpath.normpath(relative.replace("\\", "/"))
    drive = len(normal) > 1 and normal[1] == ":"
    if not relative or "\0" in relative or "://" in relative or drive or normal.startswith(("/", "../")) or normal in {".", ".."}:
        raise ImageError("path_outside_root", f"file name {relative!r} must be a path inside {root}")
    return join(root, normal)


def exists(url: str) -> bool:
    fs, path = url_to_fs(url)
    return bool(fs.exists(path))


def read_bytes(url: str) -> bytes:
    """The whole file. Raises MissingError."""
    fs, path = url_to_fs(url)
    try:
        return bytes(fs.cat_file(path))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingError(f"no such file: {url}") from error


def write_bytes(url: str, data: bytes) -> str:
    """Write a file all or nothing, and return the SHA-256 of what was written.

    Local: temporary name, fsync, rename. Object stores: one PUT, which is atomic by itself.
    """
    fs, path = url_to_fs(url)
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    if "file" not in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        fs.pipe_file(path, data)
        return sha256(data)
    temporary = posixpath.join(posixpath.dirname(path), f".{posixpath.basename(path)}.{uuid.uuid4().hex[:8]}")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return sha256(data)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_json(url: str) -> Any:
    """A JSON document. Raises MissingError, or FormatError with the position of the fault."""
    data = read_bytes(url)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"{url} is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error


def write_json(url: str, value: Any) -> str:
    """Write a JSON document for people: indented, keys in the order given."""
    return write_bytes(url, orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def open_text(url: str) -> IO[str]:
    """Open a text file for reading; `.gz`, `.zst`, `.bz2` and `.xz` are unpacked on the way."""
    try:
        return fsspec.open(url, "rt", encoding="utf-8", compression="infer").open()  # type: ignore[no-any-return]
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {url}") from error


def iter_jsonl(url: str) -> Iterator[tuple[int, dict[str, Any] | FormatError]]:
    """Each line's number, from 1, with its object, or with the FormatError that says why it has none.

    A bad line costs that line only; blank lines are passed over.
    """
    with open_text(url) as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline()
            except UnicodeDecodeError as error:
                yield number, FormatError(f"{url} is not UTF-8 after line {number}: {error.reason}")
                return
            if not line:
                return
            if line.strip():
                yield number, _parse_line(line, url, number)


def _parse_line(line: str, url: str, number: int) -> dict[str, Any] | FormatError:
    try:
        value = orjson.loads(line)
    except (orjson.JSONDecodeError, RecursionError) as error:
        return FormatError(f"{url} line {number} is not JSON: {error}")
    if not isinstance(value, dict):
        return FormatError(f"{url} line {number} must be a JSON object; got {type(value).__name__}")
    return value


def write_jsonl(file: IO[str], rows: Iterator[dict[str, Any]]) -> int:
    """Write objects as compact lines, in their order, and return how many."""
    count = 0
    with jsonlines.Writer(file, compact=True, dumps=lambda row: orjson.dumps(row).decode()) as writer:
        for row in rows:
            writer.write(row)
            count += 1
    return count
