"""Reading and writing through fsspec: every path may be a URL, every write is all or nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import posixpath
import re
import tempfile
import threading
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Literal

import fsspec
import jsonlines
import orjson
import pyarrow as pa
from fsspec.core import url_to_fs
from fsspec.utils import infer_compression

from llmdet.errors import FormatError, ImageError, MissingError

__all__ = [
    "exists",
    "iter_json_list",
    "iter_jsonl",
    "join",
    "names",
    "open_atomic",
    "open_bytes",
    "open_text",
    "read_bytes",
    "read_json",
    "safe_join",
    "sha256",
    "state",
    "write_bytes",
]


# A record of the largest public sets has under 10 MB.
MAX_LINE_BYTES = 256 * 1024 * 1024
_ZSTD = ".zst"
_BOM = b"\xef\xbb\xbf"
_PIECE = 1 << 20  # characters
_SLACK = 16  # characters before a cut in which a number or literal may look wrong
_SYNC_S = 0.25  # between syncs of a file that is being written
_SPACE = re.compile(r"[ \t\r\n]*")


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
    if (
        not relative
        or "\0" in relative
        or "::" in relative
        or "://" in relative
        or drive
        or normal.startswith(("/", "../"))
        or normal in {".", ".."}
    ):
        raise ImageError("path_outside_root", f"file name {relative!r} must be a path inside {root}")
    return join(root, normal)


def exists(url: str) -> bool:
    """Whether there is a file or folder."""
    fs, path = url_to_fs(url)
    return bool(fs.exists(path))


def names(url: str, end: str = "") -> list[str]:
    """Names of what a folder holds that end so, sorted; none where there is no folder."""
    fs, path = url_to_fs(url)
    if not fs.exists(path):
        return []
    found = (posixpath.basename(entry.rstrip("/")) for entry in fs.ls(path, detail=False, refresh=True))
    return sorted(name for name in found if name.endswith(end))


def state(url: str) -> str:
    """Size and time of a file; of a folder: how many files, their size together, and a hash of all of it.

    Empty where there is nothing. It stands for the content: what was corrected is a new input.
    """
    if not url or not exists(url):
        return ""
    fs, path = url_to_fs(url)
    found = fs.find(path, detail=True) if fs.isdir(path) else {path: fs.info(path)}
    facts = [
        [name.removeprefix(path), one.get("size"), str(one.get("mtime") or one.get("ETag") or one.get("LastModified"))]
        for name, one in sorted(found.items())
    ]
    return f"{len(facts)} files, {sum(size or 0 for _, size, _ in facts)} bytes, {sha256(orjson.dumps(facts))[:16]}"


def read_bytes(url: str, limit: int | None = None) -> bytes:
    """The whole file, or with `limit` at most that many bytes of it. Raises MissingError."""
    fs, path = url_to_fs(url)
    if _is_local(fs) and os.path.exists(path) and not os.path.isfile(path):
        # A folder, or a pipe or device whose reading would never end.
        raise MissingError(f"{url} is not a file")
    try:
        return bytes(fs.cat_file(path, end=limit))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingError(f"no such file: {url}") from error
    except (OSError, ValueError) as error:
        raise MissingError(f"cannot read {url}: {error}") from error


def _is_local(fs: Any) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def write_bytes(url: str, data: bytes, digest: str | None = None) -> str:
    """Write a file all or nothing, and return the SHA-256 of what was written (`digest`, where that is known already).

    Local: temporary name, fsync, rename. Object stores: one PUT, which is atomic by itself.
    """
    fs, path = url_to_fs(url)
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    if not _is_local(fs):
        fs.pipe_file(path, data)
        return digest or sha256(data)
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
    return digest or sha256(data)


Compression = Literal["gzip", "zstd"]


@contextmanager
def open_atomic(url: str, compression: Compression | None = None) -> Iterator[IO[bytes]]:
    """Open a file for writing bytes in pieces; it appears under its name when the block ends, and not if it fails.

    Local: temporary name beside it, fsync, rename. Elsewhere: a local temporary file, then one upload. The same bytes
    give the same file, compressed or not (no time stamp in gzip's header).
    """
    fs, path = url_to_fs(url)
    fs.makedirs(posixpath.dirname(path), exist_ok=True)
    at_home = _is_local(fs)
    folder = posixpath.dirname(path) if at_home else tempfile.gettempdir()
    temporary = posixpath.join(folder, f".{posixpath.basename(path)}.{uuid.uuid4().hex[:8]}")
    try:
        with _open_compressed(temporary, compression) as stream, _synced(temporary):
            yield stream
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if at_home:
            os.replace(temporary, path)
        else:
            fs.put_file(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


@contextmanager
def _synced(path: str) -> Iterator[None]:
    """Send what is written to the disk while a block writes more: at its end a gigabyte would take seconds."""
    over = threading.Event()

    def sync() -> None:
        with open(path, "rb+") as file:
            while not over.wait(_SYNC_S):
                with suppress(OSError):  # whoever closes the file syncs it again, and says what fails
                    os.fsync(file.fileno())

    thread = threading.Thread(target=sync, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _open_compressed(path: str, compression: Compression | None) -> Iterator[IO[bytes]]:
    with open(path, "wb") as file:
        if compression is None:
            yield file
        elif compression == "gzip":
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            with pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as packed:
                yield packed


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_json(url: str) -> Any:
    """A JSON document, unpacked where its name ends in `.gz` and the like.

    Raises MissingError, or FormatError with the position of the fault.
    """
    packed = url.endswith(_ZSTD) or infer_compression(url) is not None
    data = _unpacked(url) if packed else read_bytes(url)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise FormatError(f"{url} is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from error


def _unpacked(url: str) -> bytes:
    with open_bytes(url) as file:
        try:
            return file.read()
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise FormatError(f"{url} cannot be unpacked: {error}") from error


def write_json(url: str, value: Any) -> str:
    """Write a JSON document for people: indented, keys in the order given."""
    return write_bytes(url, orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")


def open_text(url: str) -> IO[str]:
    """Open a text file for reading; `.gz`, `.zst`, `.bz2` and `.xz` are unpacked on the way. Raises MissingError."""
    return _open(url, "rt")


def open_bytes(url: str) -> IO[bytes]:
    """As `open_text`, for bytes."""
    return _open(url, "rb")


def _open(url: str, mode: str) -> Any:
    encoding = "utf-8" if "t" in mode else None
    try:
        if url.endswith(_ZSTD):  # fsspec needs another package for it
            stream = pa.CompressedInputStream(pa.PythonFile(fsspec.open(url, "rb").open(), "r"), "zstd")
            packed = io.BufferedReader(stream)
            return io.TextIOWrapper(packed, encoding=encoding) if encoding else packed
        return fsspec.open(url, mode, compression="infer", encoding=encoding).open()
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {url}") from error
    except OSError as error:
        raise MissingError(f"cannot read {url}: {error}") from error


def iter_jsonl(url: str) -> Iterator[tuple[int, dict[str, Any] | FormatError]]:
    """Each line's number, from 1, with its object, or with the FormatError that says why it has none.

    A bad line costs that line only, whatever its bytes are. Empty lines at the end of the file are no lines.
    """
    blank: list[int] = []
    with open_bytes(url) as file:
        for number, line in enumerate(_lines(file, url), 1):
            if not line.strip(b"\r\n"):
                blank.append(number)
                continue
            yield from ((empty, FormatError(f"{url} line {empty} is empty")) for empty in blank)
            blank.clear()
            yield number, _parse_line(line.removeprefix(_BOM) if number == 1 else line, url, number)


def _lines(file: IO[bytes], url: str) -> Iterator[bytes]:
    """Lines, each at most a little longer than MAX_LINE_BYTES, so that a file without line ends cannot fill memory."""
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line
            rest = line
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE_BYTES + 1)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise FormatError(f"{url} cannot be unpacked: {error}") from error


def _parse_line(line: bytes, url: str, number: int) -> dict[str, Any] | FormatError:
    if len(line) > MAX_LINE_BYTES:
        return FormatError(f"{url} line {number} has more than {MAX_LINE_BYTES} bytes")
    try:
        value = orjson.loads(line)
    except (orjson.JSONDecodeError, RecursionError) as error:
        return FormatError(f"{url} line {number} is not JSON: {error}")
    if not isinstance(value, dict):
        return FormatError(f"{url} line {number} must be a JSON object; got {type(value).__name__}")
    return value


def iter_json_list(url: str) -> Iterator[Any]:
    """The items of a file that is one JSON list, read in pieces: memory holds one item, not the list.

    Raises MissingError; FormatError with the position for a file that is no list, or is broken further on (what came
    before has been yielded then). NaN and Infinity are no JSON.
    """
    with open_bytes(url) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig")
        try:
            yield from _list_items(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{url} is not a JSON list: {error}") from error
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise FormatError(f"{url} cannot be unpacked: {error}") from error


def _list_items(file: IO[str]) -> Iterator[Any]:
    """Items between brackets. Raises ValueError."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    buffer = file.read(_PIECE).lstrip()
    if not buffer.startswith("["):
        raise ValueError(f"it begins with {buffer[:20]!r}")
    at, size, count, mark = _after_space(buffer, 1), _PIECE, 0, ","
    while mark == "," and not (count == 0 and buffer[at : at + 1] == "]"):
        try:
            value, end = decoder.raw_decode(buffer, at)
            end = _after_space(buffer, end)
            mark = buffer[end : end + 1]
            if mark not in ",]" and end > len(buffer) - _SLACK:
                mark = ""  # "2." may go on as 2.5
        except json.JSONDecodeError as error:
            # An item that is cut fails at the end of the buffer, or in a string that does not end.
            if error.pos < len(buffer) - _SLACK and "Unterminated" not in error.msg:
                raise ValueError(f"{error.msg} in item {count + 1}") from error
            mark = ""
        if mark == "":
            piece = file.read(size)
            if not piece:
                raise ValueError(f"it ends in item {count + 1}")
            buffer, mark, size = (
                buffer[at:] + piece,
                ",",
                size * 2,
            )  # doubling: an item larger than a piece stays linear
            at = _after_space(buffer, 0)
            continue
        if mark not in ",]":
            raise ValueError(f"{mark!r} follows item {count + 1}")
        yield value
        at, size, count = _after_space(buffer, end + 1), _PIECE, count + 1
    if (buffer[at + (count == 0) :] + file.read(_PIECE)).strip():
        raise ValueError("something follows its end")


def _after_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def write_jsonl(file: IO[str], rows: Iterator[dict[str, Any]]) -> int:
    """Write objects as compact lines, in their order, and return how many."""
    count = 0
    with jsonlines.Writer(file, compact=True, dumps=lambda row: orjson.dumps(row).decode()) as writer:
        for row in rows:
            writer.write(row)
            count += 1
    return count
