"""The two files that Flickr30k Entities keeps of a photo: where they are, and what they say.

A line of `Sentences/<id>.txt` and an object of `Annotations/<id>.xml`:

    [/EN#71/people Two boys] climb [/EN#72/other/scene a tall fence] .
    <object><name>71</name><bndbox><xmin>12</xmin><ymin>40</ymin><xmax>88</xmax><ymax>201</ymax></bndbox></object>

An entity may have several boxes (one object each) and be named several times; an object may have several names; instead
of a box it may have the flags `scene` (the whole picture) and `nobndbox` (not drawn). Id 0 (`notvisual`) is no entity.
Boxes are 1-based pixels and stay as they are, as MDETR and mmdet keep them.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

import fsspec
from fsspec.core import url_to_fs

from llmdet.boxes import XYXY
from llmdet.errors import FormatError, MissingError
from llmdet.files import join, read_bytes
from llmdet.record import Span

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
Files = dict[str, bytes | str]  # content by folder; a text says why there is none

_FOLDERS = {"Annotations": ".xml", "Sentences": ".txt"}
_MAX_BYTES = 4_000_000  # of one file; the largest real one has 20 kB
_TOO_LARGE = f"has over {_MAX_BYTES} bytes"

_OPEN = re.compile(r"\[/EN#([0-9]+)((?:/[^/\s\]]+)+)")


class Phrase(NamedTuple):
    """A marked phrase of a sentence."""

    entity: str
    types: tuple[str, ...]
    span: Span


class Thing(NamedTuple):
    """An object of the xml: the entities it stands for, and its box where it has one."""

    entities: tuple[str, ...]
    xyxy: XYXY | None
    scene: bool
    nobndbox: bool


class Sheet(NamedTuple):
    """What the xml of a photo says."""

    width: int
    height: int
    things: tuple[Thing | str, ...]  # a text says why that object cannot be read


def parse_sentence(line: str) -> tuple[str, list[Phrase]]:
    """Words joined by single blanks, and the marked phrases with their places in that text.

    Raises FormatError for a mark that is not closed, not opened, empty or malformed.
    """
    words: list[str] = []
    phrases: list[Phrase] = []
    length = 0  # of the words so far, each with a blank after it
    opened: tuple[str, tuple[str, ...], int] | None = None
    for token in line.split():
        if token.startswith("[/EN#"):
            mark = _OPEN.fullmatch(token)
            if opened or mark is None:
                raise FormatError(f"the mark {token!r} is malformed or inside another one")
            opened = mark[1], tuple(mark[2][1:].split("/")), length
            continue
        closes = opened is not None and token.endswith("]")
        word = token[:-1] if closes else token
        if word:
            words.append(word)
            length += len(word) + 1
        if closes and opened:
            entity, types, start = opened
            if start >= length:
                raise FormatError(f"entity {entity} has no words")
            phrases.append(Phrase(entity, types, (start, length - 1)))
            opened = None
    if opened:
        raise FormatError(f"the mark of entity {opened[0]} is not closed")
    return " ".join(words), phrases


def parse_sheet(data: bytes) -> Sheet:
    """The xml of one photo. Raises FormatError where it is no such file."""
    if b"<!" in data.replace(b"<!--", b""):
        raise FormatError("a document type or entity definition has no place in an annotation")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise FormatError(f"not XML: {error}") from error
    try:
        width, height = (int(root.findtext(f"size/{key}", "")) for key in ("width", "height"))
    except ValueError as error:
        raise FormatError(f"<size> needs width and height as whole numbers: {error}") from error
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise FormatError(f"<size> must be positive, got {width}x{height}")
    return Sheet(width, height, tuple(_thing(node) for node in root.iterfind("object")))


def _thing(node: ElementTree.Element) -> Thing | str:
    names = tuple((name.text or "").strip() for name in node.iterfind("name"))
    if not names or not all(names):
        return "an object without a name belongs to no entity"
    box = node.find("bndbox")
    flags = node.findtext("scene") == "1", node.findtext("nobndbox") == "1"
    if box is None:
        return Thing(names, None, *flags)
    texts = [box.findtext(key, "") for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x1, y1, x2, y2 = map(float, texts)
    except ValueError:
        return f"bndbox needs four numbers, got {texts}"
    return Thing(names, (x1, y1, x2, y2), *flags)


# --- where they are ------------------------------------------------------------------------------------------------


def photos(url: str) -> Iterator[tuple[str, Files]]:
    """Each photo's id with its files, by ascending id whatever the order on disk: a folder and an archive agree.

    An archive has all sentences behind all annotations, so its files are held until their photo is given (100 MB).
    Raises MissingError, and FormatError for a place without any such file.
    """
    archived = _archive(url) if url.endswith(ARCHIVES) else None
    names = _listing(url) if archived is None else archived
    if not names:
        raise FormatError(f"{url} is not Flickr30k Entities: expected Annotations/*.xml and Sentences/*.txt")
    for photo in sorted(names, key=lambda key: (len(key), key)):
        if archived is not None:
            yield photo, archived.pop(photo)
        else:
            paths = {folder: join(url, folder, photo + _FOLDERS[folder]) for folder in names[photo]}
            yield photo, {folder: _read(path) for folder, path in paths.items()}


def content(files: Files, folder: str) -> bytes:
    """One of a photo's files. Raises FormatError where it is missing or too large."""
    data = files.get(folder, "is missing")
    if isinstance(data, str):
        raise FormatError(f"its file in {folder} {data}")
    return data


def _read(path: str) -> bytes | str:
    try:
        data = read_bytes(path)
    except (MissingError, OSError) as error:
        return f"cannot be read: {error}"
    return data if len(data) <= _MAX_BYTES else _TOO_LARGE


def _listing(url: str) -> dict[str, Files]:
    """Photos of a folder, without the content of their files."""
    fs, root = url_to_fs(url)
    names: dict[str, Files] = defaultdict(dict)
    if not fs.exists(root):
        raise MissingError(f"no such file or folder: {url}")
    for folder in _FOLDERS:
        path = posixpath.join(root, folder)
        for name in fs.ls(path, detail=False) if fs.isdir(path) else []:
            _note(names, name, b"")
    return names


def _archive(url: str) -> dict[str, Files]:
    names: dict[str, Files] = defaultdict(dict)
    try:
        for path, data in _members(url):
            _note(names, path, data)
    except FileNotFoundError as error:
        raise MissingError(f"no such file: {url}") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise FormatError(f"{url} is not a readable archive: {error}") from error
    return names


def _note(names: dict[str, Files], path: str, data: bytes | str) -> None:
    """Enter a file that belongs to the set; nothing else counts, such as folders and the `._` files of macOS."""
    head, base = posixpath.split(path)
    folder, (photo, ending) = posixpath.basename(head), posixpath.splitext(base)
    if _FOLDERS.get(folder) == ending and not base.startswith("."):
        names[photo][folder] = data


def _members(url: str) -> Iterator[tuple[str, bytes | str]]:
    """Files of an archive, in one pass."""
    with fsspec.open(url, "rb") as stream:
        if url.endswith(".zip"):
            with zipfile.ZipFile(stream) as archive:
                for entry in archive.infolist():
                    yield entry.filename, archive.read(entry) if entry.file_size <= _MAX_BYTES else _TOO_LARGE
            return
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                if member.isfile():
                    file = tar.extractfile(member) if member.size <= _MAX_BYTES else None
                    yield member.name, file.read() if file else _TOO_LARGE
