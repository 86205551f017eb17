"""Pictures to look at, as people name them: files, folders, web addresses, videos, and text files that list these.

A text file has one address in a line; empty lines and lines that begin with `#` are none.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fsspec.core import url_to_fs
from PIL import Image

from llmdet import files
from llmdet.errors import ExtraError, FormatError, ImageError, MissingError
from llmdet.images import open_image
from pipelines import videos
from pipelines.videos import Every

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".mpo")
_LISTS = (".txt", ".lst")
_WEB = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Picture:
    """An opened picture, or why it cannot be used. Of a video: which frame, and when it is shown."""

    url: str
    image: Image.Image | None
    error: str = ""
    frame: int | None = None
    time_s: float | None = None


def addresses(inputs: Sequence[str], without: str = "") -> list[str]:
    """The pictures and videos that are meant, in the order given; those of a folder sorted.

    Of a folder above `without`, what lies in there is left out: the drawings of an earlier run. What is not there is an
    address too: opening it says why. Raises MissingError where nothing is named.
    """
    found = [url for one in inputs for url in _of_input(one, files.absolute(without).rstrip("/") + "/")]
    if not found:
        raise MissingError(f"no pictures in {', '.join(inputs)}")
    return found


def _of_input(one: str, without: str) -> Iterator[str]:
    if one.startswith(_WEB):
        yield one
    elif _suffix(one) in _LISTS:
        for line in lines_of(one):
            if not line.startswith("#"):
                yield from [line] if _suffix(line) in _LISTS else _of_input(line, without)
    else:
        fs, path = url_to_fs(one)
        if not fs.isdir(path):
            yield one
            return
        above = not f"{files.absolute(one).rstrip('/')}/".startswith(without)
        for entry in sorted(fs.find(path)):
            url = str(fs.unstrip_protocol(entry)) if "://" in one else entry
            if _suffix(entry) in (*SUFFIXES, *videos.SUFFIXES) and not (above and url.startswith(without)):
                yield url


def lines_of(url: str) -> list[str]:
    """The lines of a text file that say something. Raises MissingError, FormatError for a file that is no text."""
    try:
        with files.open_text(url) as lines:
            return [line.strip() for line in lines if line.strip()]
    except UnicodeDecodeError as error:
        raise FormatError(f"{url} is not UTF-8 text, one entry in each line: {error}") from error


def is_video(url: str) -> bool:
    """Whether an address ends as videos do."""
    return _suffix(url) in videos.SUFFIXES


def opened(url: str, every: Every) -> Iterator[Picture]:
    """The picture of an address, turned by its EXIF orientation, or the wanted frames of a video. Never raises
    ImageError: what cannot be used is a Picture that says why."""
    readable = url.encode("utf-8", "replace").decode()
    if readable != url:  # no JSON could name it
        yield Picture(readable, None, f"image_missing: the file name {readable!r} is not UTF-8; rename it")
        return
    try:
        if is_video(url):
            for one in videos.frames(url, every):
                yield Picture(url, one.image, frame=one.number, time_s=one.time_s)
        else:
            yield Picture(url, _open(url))
    except ImageError as error:
        yield Picture(url, None, str(error))


def _open(url: str) -> Image.Image:
    if not url.startswith(_WEB):
        return open_image(url, "applied")
    try:
        return open_image(url, "applied")
    except ImageError:
        raise
    except ImportError as error:
        raise ExtraError.of("aiohttp", "http") from error
    except Exception as error:  # aiohttp's own kinds: an answer that is none, a certificate, a proxy
        raise ImageError("image_missing", f"{url} cannot be fetched: {type(error).__name__} {error}") from error


def _suffix(url: str) -> str:
    path = url.split("?", 1)[0].split("#", 1)[0] if url.startswith(_WEB) else url
    return posixpath.splitext(path)[1].lower()
