"""One colour word for a patch of pixels, or None where no single colour is plain.

The words are English's eleven basic colour terms. Every pixel gets a word from its hue, chroma and value; a word is
given for the patch only where it holds half of the pixels and twice as many as any other.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from llmdet.nouns import COLOURS

_UNCLEAR = len(COLOURS)  # between two words (cyan, beige): counts for the total, names nothing
_INDEX = {name: index for index, name in enumerate(COLOURS)}
_MAX_PIXELS = 4096  # a grid of this many pixels tells as much as all of them
_MIN_PIXELS = 9
_BINS = 32  # levels per channel in the table of words

# Where the hues of saturated colours begin, in degrees; None lies between green and blue.
_HUES = (
    (0, "red"), (15, "orange"), (42, "yellow"), (68, "green"), (168, None), (188, "blue"), (255, "purple"),
    (312, "pink"), (342, "red"),
)  # fmt: skip


def dominant_colour(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> str | None:
    """The colour word of a patch of RGB pixels, (h, w, 3), inside `mask`, (h, w), where one is given.

    Without a mask the central part is read (the middle two thirds of both sides), since the corners of a box are mostly
    background. None when the patch is tiny or mixed.
    """
    shares = colour_shares(pixels, mask)
    first, second = sorted([*shares.values(), 0.0, 0.0], reverse=True)[:2]
    if first < 0.5 or first < 2 * second:
        return None
    return max(shares, key=shares.__getitem__)


def colour_shares(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None) -> dict[str, float]:
    """The share of each colour word among the pixels that `dominant_colour` reads; empty for a tiny patch.

    They sum to less than one where pixels are between two words.
    """
    chosen = _inside(pixels, mask) if mask is not None else _centre(pixels).reshape(-1, 3)
    if len(chosen) < _MIN_PIXELS:
        return {}
    chosen = chosen[:: max(1, len(chosen) // _MAX_PIXELS)]
    levels = (chosen >> 3).astype(np.int64)
    words = _table()[levels[:, 0], levels[:, 1], levels[:, 2]]
    counts = np.bincount(words, minlength=_UNCLEAR + 1)[:_UNCLEAR]
    return {COLOURS[i]: float(counts[i]) / len(chosen) for i in np.flatnonzero(counts)}


def _inside(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels under a mask; of a large patch only a grid of them, unless the mask is so thin that the grid misses it."""
    step = max(1, int((mask.size / (4 * _MAX_PIXELS)) ** 0.5))
    chosen = pixels[::step, ::step][mask[::step, ::step]]
    return chosen if step == 1 or len(chosen) >= 16 * _MIN_PIXELS else pixels[mask]


def _centre(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    top, left = height // 6, width // 6
    return pixels[top : height - top, left : width - left]


@functools.cache
def _table() -> NDArray[np.uint8]:
    """The word of every colour, at 32 levels a channel."""
    level = (np.arange(_BINS) * 8 + 4) / 255.0
    red, green, blue = np.meshgrid(level, level, level, indexing="ij")
    return _words(red, green, blue)


def _words(red: NDArray[np.float64], green: NDArray[np.float64], blue: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Indices into COLOURS, or _UNCLEAR, for channels in 0..1."""
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    saturation = np.divide(chroma, value, out=np.zeros_like(value), where=value > 0)
    hue = _hue(red, green, blue, value, chroma)
    starts = np.array([start for start, _ in _HUES])
    names = np.array([_UNCLEAR if name is None else _INDEX[name] for _, name in _HUES], dtype=np.uint8)
    words = names[np.searchsorted(starts, hue, side="right") - 1]

    def paint(name: str | None, where: NDArray[np.bool_]) -> None:
        words[where] = _UNCLEAR if name is None else _INDEX[name]

    warm = (hue < 68) | (hue >= 342)
    paint("pink", ((hue >= 300) | (hue < 15)) & (saturation < 0.6) & (value > 0.72))
    paint("purple", (hue >= 300) & (hue < 335) & (value < 0.6))
    paint("brown", (hue >= 15) & (hue < 48) & (value < 0.66))
    paint("brown", ((hue < 15) | (hue >= 342)) & (value < 0.55) & (saturation < 0.72) & (value > 0.2))
    paint("brown", (hue < 15) & (hue >= 6) & (value < 0.5))
    paint("green", (hue >= 48) & (hue < 68) & (value < 0.5))
    paint(None, (hue >= 15) & (hue < 68) & (saturation < 0.42) & (value >= 0.66))  # beige, skin, sand
    paint(None, ~warm & (saturation < 0.2))
    paint("gray", (hue >= 165) & (hue < 260) & (saturation < 0.32) & (value < 0.75))  # slate, wet asphalt
    neutral = (chroma < 0.1) | ((saturation < 0.12) & (value > 0.4))
    paint("gray", neutral)
    paint("white", neutral & (value > 0.84))
    paint("black", (value < 0.2) | ((value < 0.26) & (chroma < 0.08)))
    return words


def _hue(
    red: NDArray[np.float64],
    green: NDArray[np.float64],
    blue: NDArray[np.float64],
    value: NDArray[np.float64],
    chroma: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Degrees in 0..360 of the colour circle; 0 for grays."""
    safe = np.where(chroma > 0, chroma, 1.0)
    hue = np.where(
        value == red,
        ((green - blue) / safe) % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return np.where(chroma > 0, hue * 60.0, 0.0)
