"""Opening pictures safely: bounded in pixels, honest about orientation, one error type with a reason word."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from llmdet.errors import ImageError, MissingError
from llmdet.files import read_bytes, sha256
from llmdet.record import Orientation

# 0.2 gigapixels decode to 0.6 GB of RGB; the largest photo of the public sets has 0.04.
MAX_PIXELS = 200_000_000
# EXIF orientations 5 to 8 swap width and height.
_TURNED = {5, 6, 7, 8}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What opening a picture says without keeping its pixels."""

    sha256: str
    width: int  # as stored, before any EXIF turn
    height: int
    exif: int  # EXIF orientation, 1 where there is none

    def size(self, orientation: Orientation) -> tuple[int, int]:
        """(width, height) in pixels under an orientation."""
        turned = orientation == "applied" and self.exif in _TURNED
        return (self.height, self.width) if turned else (self.width, self.height)

    def orientation_that_fits(self, width: int, height: int, prefer: Orientation = "stored") -> Orientation:
        """The orientation under which the picture has the annotated size.

        Raises ImageError("size_mismatch") where none fits.
        """
        other: Orientation = "applied" if prefer == "stored" else "stored"
        for orientation in (prefer, other):
            if self.size(orientation) == (width, height):
                return orientation
        raise ImageError(
            "size_mismatch", f"annotations say {width}x{height}, the file is {self.width}x{self.height} (EXIF {self.exif})"
        )


def inspect(url: str, *, decode: bool = True) -> ImageFacts:
    """Hash a picture, read its size, and with `decode` prove that its pixels can be read.

    A JPEG is decoded at an eighth of its size, which finds a cut file at a fraction of the cost.
    Raises ImageError with the reasons image_missing, image_empty, image_unreadable, image_too_large.
    """
    data = _bytes(url)
    with _open(data, url) as image:
        width, height = image.size
        exif = _exif_orientation(image)
        if decode:
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            _load(image, url)
    return ImageFacts(sha256(data), width, height, exif)


def open_image(url: str, orientation: Orientation = "stored") -> Image.Image:
    """The picture as RGB, turned by EXIF where `orientation` is "applied". Raises ImageError as `inspect` does."""
    image = _open(_bytes(url), url)
    _load(image, url)
    if orientation == "applied":
        image = ImageOps.exif_transpose(image)
    return _to_rgb(image)


def _bytes(url: str) -> bytes:
    try:
        data = read_bytes(url)
    except (MissingError, NotADirectoryError, PermissionError) as error:
        raise ImageError("image_missing", f"no readable file at {url}") from error
    if not data:
        raise ImageError("image_empty", f"{url} has zero bytes")
    return data


def _open(data: bytes, url: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"{url}: {error}") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise ImageError("image_unreadable", f"{url} is not a picture that Pillow can open") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("image_too_large", f"{url} is {image.width}x{image.height}, the limit is {MAX_PIXELS} pixels")
    return image


def _load(image: Image.Image, url: str) -> None:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise ImageError("image_unreadable", f"{url} is damaged: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"{url}: {error}") from error


def _exif_orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, SyntaxError, TypeError):
        return 1  # damaged EXIF says nothing about orientation; the pixels are still good


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I;16", "I;16B", "I;16L", "I"}:
        # 16-bit grey: Pillow's own conversion clips at 255 and turns most photos white.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image if image.mode == "RGB" else image.convert("RGB")
