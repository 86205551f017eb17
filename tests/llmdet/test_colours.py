"""Patches of known paint, with noise, come back as their colour word; mixed ones as nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmdet.colours import dominant_colour

# Named colours of CSS (https://www.w3.org/TR/css-color-4/#named-colors) and the basic term that people use for
# them. CSS's own "brown" (#a52a2a) is left out: it is as near to red.
PAINTS = {
    "black": ["#000000", "#101010", "#1a1a1f"],
    "white": ["#ffffff", "#f5f5f5", "#fffafa", "#f0f0f0"],
    "gray": ["#808080", "#696969", "#a9a9a9", "#708090", "#c0c0c0"],
    "red": ["#ff0000", "#dc143c", "#b22222", "#c00000"],
    "orange": ["#ffa500", "#ff8c00", "#ff7f0e"],
    "yellow": ["#ffff00", "#ffd700", "#f5e642"],
    "green": ["#008000", "#228b22", "#32cd32", "#2e8b57", "#006400", "#556b2f"],
    "blue": ["#0000ff", "#4169e1", "#1e90ff", "#000080", "#4682b4", "#87ceeb"],
    "purple": ["#800080", "#8a2be2", "#4b0082", "#9370db"],
    "pink": ["#ffc0cb", "#ff69b4", "#ffb6c1", "#ff1493"],
    "brown": ["#8b4513", "#a0522d", "#654321", "#5c4033"],
}


def patch(colour: str, noise: float = 0.0, size: tuple[int, int] = (40, 30)) -> NDArray[np.uint8]:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)
    rng = np.random.default_rng(7)
    return np.clip(rgb + rng.normal(0, noise, (*size, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 8.0])
@pytest.mark.parametrize(("word", "paint"), [(word, paint) for word, paints in PAINTS.items() for paint in paints])
def test_paint_is_named_with_and_without_noise(word: str, paint: str, noise: float) -> None:
    assert dominant_colour(patch(paint, noise)) == word


def test_two_halves_are_mixed_and_a_small_part_is_not() -> None:
    pixels = patch("#ff0000")
    pixels[:, 15:] = patch("#0000ff")[:, 15:]
    assert dominant_colour(pixels) is None
    pixels = patch("#ff0000")
    pixels[:12] = 255
    assert dominant_colour(pixels) == "red"


def test_all_hues_at_once_are_mixed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert dominant_colour(noise) is None


def test_corners_do_not_count_without_a_mask() -> None:
    pixels = patch("#008000", size=(60, 60))
    pixels[10:50, 10:50] = patch("#ff0000", size=(40, 40))  # 44 % of the box
    assert dominant_colour(pixels) == "red"


def test_only_pixels_inside_the_mask_count() -> None:
    pixels = patch("#ffffff", size=(60, 60))
    pixels[:6, :6] = patch("#0000ff", size=(6, 6))
    mask = np.zeros((60, 60), dtype=bool)
    mask[:6, :6] = True
    assert dominant_colour(pixels, mask) == "blue"
    assert dominant_colour(pixels) == "white"


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (2, 4), (0, 9)])
def test_too_few_pixels_name_nothing(size: tuple[int, int]) -> None:
    assert dominant_colour(patch("#ff0000", size=size)) is None


@pytest.mark.parametrize("paint", ["#00ffff", "#f5deb3", "#e8c9a8"])
def test_paint_between_two_words_names_nothing(paint: str) -> None:
    assert dominant_colour(patch(paint)) is None
