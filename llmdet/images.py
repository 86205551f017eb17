"""Opening pictures safely: bounded in pixels, honest about orientation, one error type with a reason word."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from llmdet.errors import ImageError, MissingError
from llmdet.files import read_bytes, sha256
from llmdet.record import Orientation

# Pillow keeps 4 bytes a pixel and needs three such pictures to lay transparency on white: 64 megapixels stay
# below 1 GB. The largest photos of the public sets have 40.
MAX_PIXELS = 64_000_000
MAX_BYTES = 512 * 1024 * 1024
# Only formats of pictures: Pillow's list has some that start other programs (EPS) or are no photos. MPO enters as JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_LOOKS_BITS = 16  # a side of the square of frequencies
_LOOKS_SIDE = 4 * _LOOKS_BITS  # pixels: what imagehash scales to
_LOOKS_LEAST_SET = 96  # of 256; half of them are above the median where there are no ties
# What undoes each EXIF orientation; 5 to 8 swap width and height.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What opening a picture says without keeping its pixels."""

    sha256: str
    width: int  # as stored, before any EXIF turn
    height: int
    exif: int  # EXIF orientation, 1 where there is none
    looks: bytes | None = None  # 32 bytes of perceptual hash, where it was asked for and the picture is not too plain

    def size(self, orientation: Orientation) -> tuple[int, int]:
        """(width, height) in pixels under an orientation."""
        turned = orientation == "applied" and self.exif >= 5
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
            "size_mismatch",
            f"annotations say {width}x{height}, the file is {self.width}x{self.height} (EXIF {self.exif})",
        )


def inspect(url: str, *, decode: bool = True, looks: bool = False) -> ImageFacts:
    """Hash a picture, read its size, and with `decode` prove that its pixels can be read.

    A JPEG is decoded at an eighth of its size, which finds a cut file at a fraction of the cost; with `looks` at no
    less than a perceptual hash of the same pixels needs. Raises ImageError with the reasons image_missing,
    image_empty, image_unreadable, image_too_large.
    """
    data = _bytes(url)
    seen, least = None, _LOOKS_SIDE if looks else 1
    with _open(data, url) as image:
        width, height = image.size
        with _damage(url):
            exif = _exif_orientation(image)
            if decode:
                image.draft(None, (max(least, width // 8), max(least, height // 8)))
                image.load()
                seen = _looks(image) if looks else None
    return ImageFacts(sha256(data), width, height, exif, seen)


def open_image(url: str, orientation: Orientation = "stored") -> Image.Image:
    """The picture as RGB, turned by EXIF where `orientation` is "applied". Raises ImageError as `inspect` does."""
    image = _open(_bytes(url), url)
    with _damage(url):
        image.load()
        turn = _TURNS.get(_exif_orientation(image)) if orientation == "applied" else None
        image = _to_rgb(image)
        return image.transpose(turn) if turn is not None else image


def open_sized(url: str, size: tuple[int, int], orientation: Orientation = "stored") -> Image.Image:
    """As `open_image`, in the other orientation where only that has the annotated (width, height).

    Raises ImageError("size_mismatch") where none has.
    """
    image = open_image(url, orientation)
    if image.size == size:
        return image
    turned = open_image(url, "applied" if orientation == "stored" else "stored")
    if turned.size != size:
        wanted, there = ("x".join(map(str, one)) for one in (size, image.size))
        raise ImageError("size_mismatch", f"annotations say {wanted}, {url} is {there}")
    return turned


def _looks(image: Image.Image) -> bytes | None:
    """The 256 signs of a picture's lowest frequencies, or None where most are ties: any plain picture is like another.

    Copies that were scaled, compressed anew or cropped by a few pixels differ in few bits; see `llmdet.leaks`.
    """
    import imagehash

    bits = imagehash.phash(_to_rgb(image), hash_size=_LOOKS_BITS).hash
    return bytes(np.packbits(bits)) if bits.sum() >= _LOOKS_LEAST_SET else None


def _bytes(url: str) -> bytes:
    try:
        data = read_bytes(url, MAX_BYTES + 1)
    except MissingError as error:
        raise ImageError("image_missing", f"no readable file at {url}") from error
    if not data:
        raise ImageError("image_empty", f"{url} has zero bytes")
    if len(data) > MAX_BYTES:
        raise ImageError("image_too_large", f"{url} has more than {MAX_BYTES} bytes")
    return data


def _open(data: bytes, url: str) -> Image.Image:
    with _damage(url, "is not a picture that Pillow can open"), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("image_too_large", f"{url} is {image.width}x{image.height}, the limit is {MAX_PIXELS} pixels")
    return image


@contextmanager
def _damage(url: str, says: str = "is damaged") -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError.

    Broken files make Pillow raise nearly anything (struct.error, KeyError, zlib.error, ...), and none of it is our bug.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"{url}: {error}") from error
    except Exception as error:
        cause = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise ImageError("image_unreadable", f"{url} {says}{cause}") from error


def _exif_orientation(image: Image.Image) -> int:
    try:
        value = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1  # damaged EXIF says nothing about orientation; the pixels may still be good
    return value if value in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I;16", "I;16B", "I;16L", "I"}:
        # 16-bit grey: Pillow's own conversion clips at 255 and turns most photos white.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, (255, 255, 255))
        image.paste(layer, mask=layer.getchannel("A"))
    return image if image.mode == "RGB" else image.convert("RGB")
