"""Rows of annotation files: JSON lists and, streamed, JSON lines, CSV, parquet, tars of JSON; or a folder of them.

A row that cannot be read is handed on as the FieldError that says why; only a file of which nothing can be read is a
FormatError. Files named `.json` that hold one object a line (as mmdet's converters write them) are read as lines.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from llmdet.errors import FormatError, MissingError
from llmdet.files import iter_json_list, iter_jsonl, open_bytes
from llmdet.sources.fields import FieldError, shown

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".tar")
_PACKED = (".gz", ".zst", ".bz2", ".xz")
# Rows of a parquet batch: embedded pictures make a row some 100 kB.
_BATCH = 64
# A photo's json has a few kB; one that claims gigabytes is cut, and refused as JSON.
_MAX_MEMBER = 1 << 24
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)
# A longer JSON list is read item by item, in 82 MB of memory instead of 487 for a file of 104 MB. A shorter one is read
# whole, which forgives NaN and infinity.
_LARGE = 64_000_000
# A file whose first rows are all of another kind is of another format.
_PATIENCE = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stood."""

    key: str  # unique among the rows of a source: the number, behind the file's name where there are several files
    where: str  # for messages: file and number
    value: dict[str, Any] | FieldError


def read_rows(url: str, wanted: Sequence[str], what: str) -> Iterator[Row]:
    """The rows of a file, or of all files of a folder in the order of their names.

    `wanted` are keys of which a row has at least one; a file without a single such row is not `what`.
    Raises MissingError and FormatError.
    """
    paths = annotation_files(url)
    for path in paths:
        prefix = "" if len(paths) == 1 else f"{_stem(posixpath.relpath(path, url))}:"
        yield from _checked(_file_rows(path, prefix), wanted, f"{path} is not {what}")


def annotation_files(url: str, suffixes: Sequence[str] = SUFFIXES) -> list[str]:
    """The file itself, or the files of a folder with one of the suffixes, by name. Raises MissingError."""
    fs, path = url_to_fs(url)
    if not fs.exists(path):
        raise MissingError(f"no such file or folder: {url}")
    if not fs.isdir(path):
        return [url]
    inside = [posixpath.relpath(found, path) for found in fs.find(path)]
    found = sorted(name for name in inside if _unpacked(name).endswith(tuple(suffixes)) and not _hidden(name))
    if not found:
        raise MissingError(f"no file that ends in {', '.join(suffixes)} below {url}")
    return [posixpath.join(url, name) for name in found]


def _hidden(relative: str) -> bool:
    return any(part.startswith(".") for part in relative.split("/"))


def _unpacked(name: str) -> str:
    """The name without the suffix of a compression."""
    stem, suffix = posixpath.splitext(name.lower())
    return stem if suffix in _PACKED else name.lower()


def _stem(name: str) -> str:
    return name[: len(posixpath.splitext(_unpacked(name))[0])]


def _file_rows(path: str, prefix: str) -> Iterator[Row]:
    name = posixpath.basename(path)
    kind = posixpath.splitext(_unpacked(path))[1]
    if kind == ".parquet":
        values = _parquet(path)
    elif kind == ".tar":
        values = _tar(path)
    elif kind in {".csv", ".tsv"}:
        values = _table(path, "\t" if kind == ".tsv" else ",")
    elif kind == ".json" and not _is_lines(path):
        values = _document(path)
    else:
        values = _lines(path)
    for number, value in values:
        yield Row(f"{prefix}{number}", f"{name}:{number}", value)


def _checked(rows: Iterator[Row], wanted: Sequence[str], otherwise: str) -> Iterator[Row]:
    """The rows; raises FormatError where none of the first ones has a key that was wanted."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if isinstance(row.value, dict) and any(key in row.value for key in wanted):
            yield from held
            yield from rows
            return
        if len(held) == _PATIENCE:
            break
    if held:
        first = held[0].value
        came = first.detail if isinstance(first, FieldError) else f"the keys {shown(sorted(first))}"
        raise FormatError(f"{otherwise}: expected rows with {' or '.join(wanted)}; {held[0].where} has {came}")


def read_all(url: str) -> bytes:
    """The unpacked content. Raises MissingError, or FormatError for a damaged archive."""
    with open_bytes(url) as file:
        try:
            return file.read()
        except _DAMAGE as error:
            raise FormatError(f"{url} is damaged: {error}") from error


def _is_lines(url: str) -> bool:
    """Whether the first line is an object by itself."""
    with open_bytes(url) as file:
        try:
            line = file.readline(1 << 24)
            return isinstance(orjson.loads(line), dict)
        except (orjson.JSONDecodeError, *_DAMAGE):
            return False


def _lines(url: str) -> Iterator[tuple[int, dict[str, Any] | FieldError]]:
    number = 0
    try:
        for number, value in iter_jsonl(url):
            yield number, FieldError("line_malformed", str(value)) if isinstance(value, FormatError) else value
    except FormatError as error:  # a packed file that is cut
        yield number + 1, FieldError("file_damaged", f"nothing can be read from line {number + 1} on: {error}")


def _object(line: bytes) -> dict[str, Any] | FieldError:
    try:
        return _row(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        return FieldError("line_malformed", f"{error}: {shown(line[:80])}")


def _tar(url: str) -> Iterator[tuple[int, dict[str, Any] | FieldError]]:
    """The json files inside a tar of img2dataset, in their order, without unpacking the photos between them."""
    number = 0
    with open_bytes(url) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    if member.isfile() and member.name.endswith(".json"):
                        body = archive.extractfile(member)
                        yield number, _object(body.read(_MAX_MEMBER) if body else b"")
                        number += 1
        except (tarfile.TarError, *_DAMAGE) as error:
            if not number:
                raise FormatError(f"{url} is not a tar file: {error}") from error
            yield number, FieldError("file_damaged", f"nothing can be read from member {number} on: {error}")


def _row(value: Any) -> dict[str, Any] | FieldError:
    if isinstance(value, dict):
        return value
    return FieldError("row_malformed", f"a row must be an object, got {shown(value)}")


def _table(url: str, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | FieldError]]:
    """Rows of a CSV with a header, numbered from 1. Bytes that are no UTF-8 are left for the row's reader to refuse."""
    with open_bytes(url) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=delimiter)
        number = 0
        while True:
            number += 1
            try:
                row = next(reader)
                yield number, row if None not in row else FieldError("row_malformed", f"too many fields: {shown(row)}")
            except StopIteration:
                return
            except csv.Error as error:
                yield number, FieldError("row_malformed", f"not CSV: {error}")
            except _DAMAGE as error:
                yield number, FieldError("file_damaged", f"nothing can be read from row {number} on: {error}")
                return


def _document(url: str) -> Iterator[tuple[int, dict[str, Any] | FieldError]]:
    if _size(url) > _LARGE:
        yield from ((index, _row(value)) for index, value in enumerate(iter_json_list(url)))
        return
    document = load_json(url)
    if isinstance(document, dict):
        document = [document]
    if not isinstance(document, list):
        raise FormatError(f"{url} must be a JSON list of objects, got {shown(document)}")
    for index, value in enumerate(document):
        yield index, _row(value)


def _size(url: str) -> int:
    fs, path = url_to_fs(url)
    return int(fs.size(path) or 0)


def load_json(url: str) -> Any:
    """A JSON document, forgiving where one bad value would cost all rows.

    Half surrogate pairs, NaN and infinity, which other writers let through, are kept for the row's reader to refuse.
    Raises MissingError and FormatError.
    """
    data = read_all(url)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise FormatError(f"{url} is not JSON: {error}") from error


def _parquet(url: str) -> Iterator[tuple[int, dict[str, Any] | FieldError]]:
    with open_bytes(url) as file:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{url} is not a parquet file: {error}") from error
        start = 0
        try:
            for batch in table.iter_batches(batch_size=_BATCH):
                yield from enumerate(_batch_rows(batch), start)
                start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            yield start, FieldError("file_damaged", f"nothing can be read from row {start} on: {error}")


def _batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | FieldError]:
    try:
        return list(batch.to_pylist())
    except (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError):
        return [_single_row(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _single_row(batch: pa.RecordBatch) -> dict[str, Any] | FieldError:
    try:
        return dict(batch.to_pylist()[0])
    except (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError) as error:
        return FieldError("row_malformed", f"a value cannot be read: {error}")
