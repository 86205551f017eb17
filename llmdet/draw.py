"""Boxes with numbered, coloured labels on a picture, for reports and predictions."""

from __future__ import annotations

import bisect
import contextlib
import functools
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from llmdet import boxes as geometry

RGB = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

# Hues that stay apart from each other on photos; light and dark alternate so that neighbours differ in print too.
PALETTE: tuple[RGB, ...] = (
    (230, 57, 70),
    (46, 134, 222),
    (255, 190, 11),
    (42, 157, 90),
    (255, 121, 198),
    (124, 77, 255),
    (0, 206, 209),
    (244, 122, 31),
    (150, 206, 40),
    (176, 48, 144),
    (120, 190, 255),
    (165, 100, 45),
    (255, 170, 150),
    (0, 121, 107),
    (199, 160, 255),
    (205, 214, 80),
)
_SMALL = 480  # pixels; a picture whose longer side is shorter is enlarged, so that labels can be read
_CROWD = 12  # visible boxes, above which small ones get only a number
_LARGEST_FONT = 48
# Pillow's own font knows little beyond ASCII. The first of these that is installed and knows a label writes it.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf", "NotoSansCJK-Regular.ttc",
    "NotoSansArabic-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "msyh.ttc", "Hiragino Sans GB.ttc",
)  # fmt: skip
_UNKNOWN = "\U0010fffe"  # a character that no font has


def colours_of(phrases: Iterable[str]) -> dict[str, int]:
    """An index into `PALETTE` for every different phrase, the same in every picture where it can be.

    The index comes from the phrase itself, up to case. Where two phrases of one picture meet on an index, the later one
    takes the next free, as long as the palette lasts.
    """
    chosen: dict[str, int] = {}
    by_name: dict[str, int] = {}
    for phrase in phrases:
        name = phrase.casefold()
        if name not in by_name:
            start = zlib.crc32(name.encode("utf-8", "surrogatepass")) % len(PALETTE)
            steps = ((start + step) % len(PALETTE) for step in range(len(PALETTE)))
            taken = set(by_name.values())
            by_name[name] = next((index for index in steps if index not in taken), start)
        chosen[phrase] = by_name[name]
    return chosen


def ink_on(colour: RGB) -> RGB:
    """Black or white, whichever has more contrast on a colour (WCAG 2 relative luminance)."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def draw_boxes(
    image: Image.Image, boxes_xyxy: ArrayLike, labels: Sequence[str], scores: Sequence[float | None] | None = None
) -> Image.Image:
    """A new RGB picture with boxes, each with its number (from 1), label and score.

    `boxes_xyxy` is (n, 4) in pixels of `image` and is clipped to it; a box with no area inside is not drawn but keeps
    its number. Pictures under 480 pixels are enlarged by a whole factor. Labels stay inside the picture and off each
    other where there is room; in a crowd a label shrinks to its number. Raises ValueError when lengths differ.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    scores = [None] * len(labels) if scores is None else scores
    if not len(boxes) == len(labels) == len(scores):
        raise ValueError(f"{len(boxes)} boxes came with {len(labels)} labels and {len(scores)} scores")
    factor = -(-_SMALL // max(image.size)) if max(image.size) < _SMALL else 1
    canvas = image.convert("RGB")
    if factor > 1:
        canvas = canvas.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    clipped = geometry.clip(np.nan_to_num(boxes * factor, nan=0.0), canvas.width, canvas.height)
    visible = [i for i in range(len(boxes)) if np.isfinite(boxes[i]).all() and geometry.areas(clipped)[i] > 0]
    colours = colours_of(labels)
    # Large boxes first: a small one is never hidden below the line or label of one around it.
    visible.sort(key=lambda i: (-geometry.areas(clipped)[i], i))
    pen = _Pen(canvas)
    for i in visible:
        pen.outline(tuple(clipped[i].tolist()), PALETTE[colours[labels[i]]])
    for i in visible:
        score = scores[i]
        text = f"{i + 1} {_one_line(labels[i])}" + ("" if score is None else f" {score:.2f}")
        # Among many boxes a long label on a small box would hide its neighbours.
        roomy = len(visible) <= _CROWD or pen.width(text) < 1.5 * (clipped[i][2] - clipped[i][0])
        pen.label(
            tuple(clipped[i].tolist()), [text, str(i + 1)] if roomy else [str(i + 1)], PALETTE[colours[labels[i]]]
        )
    return canvas


def draw_numbers(image: Image.Image, boxes_xyxy: ArrayLike, numbers: Sequence[int]) -> Image.Image:
    """A new RGB picture of the same size with boxes, each with the number given for it and a colour of its own.

    `boxes_xyxy` is (n, 4) in pixels of `image` and is clipped to it.
    """
    canvas = image.convert("RGB") if image.mode != "RGB" else image.copy()
    boxes = geometry.clip(np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4), *canvas.size)
    pen = _Pen(canvas)
    large_first = sorted(zip(boxes.tolist(), numbers, strict=True), key=lambda one: -geometry.areas(np.array(one[0])))
    for box, number in large_first:
        pen.outline(tuple(box), PALETTE[number % len(PALETTE)])
    for box, number in large_first:
        pen.label(tuple(box), [str(number)], PALETTE[number % len(PALETTE)])
    return canvas


class _Pen:
    """Draws on one picture and remembers where labels are."""

    def __init__(self, canvas: Image.Image) -> None:
        longer = max(canvas.size)
        self.size = canvas.size
        self.line = max(2, round(longer / 320))
        self.letters = min(_LARGEST_FONT, max(13, round(longer / 48)))  # height in pixels
        self.draw = ImageDraw.Draw(canvas)
        self.labels: list[Rectangle] = []

    def outline(self, box: Rectangle, colour: RGB) -> None:
        x1, y1, x2, y2 = box
        right, bottom = max(x2 - 1, x1), max(y2 - 1, y1)  # Pillow draws the last pixel too
        self.draw.rectangle((x1, y1, right, bottom), outline=(0, 0, 0), width=self.line + 2)
        if min(right - x1, bottom - y1) >= 2:
            self.draw.rectangle((x1 + 1, y1 + 1, right - 1, bottom - 1), outline=colour, width=self.line)

    def width(self, text: str) -> float:
        """Of a label with this text, in pixels."""
        font, words = _written(text, self.letters)
        return font.getlength(self._cut(words, font)) + 2 * self._pad

    def label(self, box: Rectangle, texts: Sequence[str], colour: RGB) -> None:
        """Write the first of `texts` that finds room; the last one, where it covers least, if none does."""
        choices = [(text, place) for text in texts for place in self._places(box, text)]
        free = (choice for choice in choices if not self._covered(choice[1]))
        crowded = [choice for choice in choices if choice[0] == texts[-1]]
        text, place = next(free, None) or min(crowded, key=lambda choice: self._covered(choice[1]))
        self.labels.append(place)
        self.draw.rectangle(place, fill=colour, outline=(0, 0, 0))
        font, words = _written(text, self.letters)
        middle = (place[0] + self._pad, (place[1] + place[3]) / 2)
        self.draw.text(middle, self._cut(words, font), ink_on(colour), font, anchor="lm")

    @property
    def _pad(self) -> int:
        return self.line + 2

    def _places(self, box: Rectangle, text: str) -> Iterator[Rectangle]:
        """Where a label can stand: above the box, inside at the top, below, inside at the bottom, in the middle."""
        x1, y1, x2, y2 = box
        width = self.width(text)
        height = sum(_written(text, self.letters)[0].getmetrics()) + 2
        for y in (y1 - height, y1, y2, y2 - height, (y1 + y2 - height) / 2):
            for x in (x1, x2 - width, (x1 + x2 - width) / 2):
                left = min(max(x, 0), max(self.size[0] - width - 1, 0))
                top = min(max(y, 0), max(self.size[1] - height - 1, 0))
                right, bottom = min(left + width, self.size[0] - 1), min(top + height, self.size[1] - 1)
                yield left, top, right, bottom

    def _covered(self, place: Rectangle) -> float:
        """How many square pixels of labels that are there already a place would cover."""
        x1, y1, x2, y2 = place
        sides = ((min(x2, a2) - max(x1, a1) + 1, min(y2, b2) - max(y1, b1) + 1) for a1, b1, a2, b2 in self.labels)
        return sum(max(w, 0) * max(h, 0) for w, h in sides)

    def _cut(self, text: str, font: ImageFont.FreeTypeFont) -> str:
        """Text that fits the picture's width, with three dots where it was cut."""
        room = self.size[0] - 2 * self._pad - 1
        if font.getlength(text) <= room:
            return text
        ends = range(1, len(text))
        cut = bisect.bisect_left(ends, True, key=lambda end: font.getlength(text[:end] + "...") > room)
        return text[:cut] + "..."


@functools.lru_cache(maxsize=4096)
def _written(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """The font for a text, and the text; where no font knows a letter, its plain form stands there, else "?"."""
    own = _font(size)
    if text.isascii():
        return own, text
    fonts = [own, *_system_fonts(size)]
    for font in fonts:
        if all(_knows(font, char) for char in text):
            return font, text
    best = max(fonts, key=lambda font: sum(_knows(font, char) for char in text))
    return best, "".join(char if _knows(best, char) else _plain(char) for char in text)


def _plain(char: str) -> str:
    """The letter without its marks where it is a Latin one: "e" for "\u00e9"."""
    letters = "".join(part for part in unicodedata.normalize("NFKD", char) if part.isascii())
    return letters or ("" if unicodedata.combining(char) else "?")


@functools.lru_cache(maxsize=65536)
def _knows(font: ImageFont.FreeTypeFont, char: str) -> bool:
    """Whether a font draws a character as itself and not as the box that stands for all others."""
    if char.isascii():
        return True
    mask, unknown = font.getmask(char), font.getmask(_UNKNOWN)
    return (mask.size, bytes(mask)) != (unknown.size, bytes(unknown))


@functools.lru_cache(maxsize=16)
def _system_fonts(size: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    found = []
    for name in _SYSTEM_FONTS:
        with contextlib.suppress(OSError):  # not installed
            found.append(ImageFont.truetype(name, size))
    return tuple(found)


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OSError("Pillow was built without FreeType; install the wheel from PyPI: pip install pillow")
    return font


def _one_line(text: str) -> str:
    """Text without control characters and line breaks, which a label cannot show."""
    return " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())
