"""The two files that Flickr30k Entities keeps of a photo, as values: the sentences and the objects.

A line of `Sentences/<id>.txt` and an object of `Annotations/<id>.xml`:

    [/EN#71/people Two boys] climb [/EN#72/other/scene a tall fence] .
    <object><name>71</name><bndbox><xmin>12</xmin><ymin>40</ymin><xmax>88</xmax><ymax>201</ymax></bndbox></object>

An entity may have several boxes (one object each) and be named several times; an object may have several names; instead
of a box it may have the flags `scene` (the whole picture) and `nobndbox` (not drawn). Id 0 (`notvisual`) is no entity.
Boxes are 1-based pixels and stay as they are, as MDETR and mmdet keep them.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.etree import ElementTree

from llmdet.boxes import XYXY
from llmdet.errors import FormatError
from llmdet.record import Span

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
