"""Tokens of the families that cut a picture into tiles, as transformers' processors count them."""

from __future__ import annotations

import math

# LLaVA-OneVision: SigLIP with 27x27 tokens per tile of 384 pixels, up to 6x6 tiles, "anyres_max_9".
_ONEVISION_SIDE, _ONEVISION_TILES, _ONEVISION_PATCHES, _ONEVISION_MOST = 384, 6, 27, 9
# InternVL: 256 tokens per tile of 448 pixels, up to 12 tiles and a small copy of the whole, between two marks.
_INTERNVL_SIDE, _INTERNVL_MOST, _INTERNVL_TOKENS = 448, 12, 256


def onevision_tokens(width: int, height: int) -> int:
    """LLaVA-OneVision: a base view, and the picture in tiles without its padding, one token more per line."""
    columns, rows = _onevision_grid(width, height)
    wide, high = columns * _ONEVISION_PATCHES, rows * _ONEVISION_PATCHES
    if width / height > wide / high:
        high -= (high - int(round(height * (wide / width), 7))) // 2 * 2
    else:
        wide -= (wide - int(round(width * (high / height), 7))) // 2 * 2
    ratio = math.sqrt(high * wide / (_ONEVISION_MOST * _ONEVISION_PATCHES**2))
    if ratio > 1.1:
        wide, high = int(wide // ratio), int(high // ratio)
    return high * (wide + 1) + _ONEVISION_PATCHES**2


def _onevision_grid(width: int, height: int) -> tuple[int, int]:
    """(columns, rows) of tiles that keep most of the picture and waste least."""

    def worth(grid: tuple[int, int]) -> tuple[int, int]:
        wide, high = grid[0] * _ONEVISION_SIDE, grid[1] * _ONEVISION_SIDE
        scale = min(wide / width, high / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - wide * high

    sides = range(1, _ONEVISION_TILES + 1)
    return max(((columns, rows) for rows in sides for columns in sides), key=worth)


def internvl_tokens(width: int, height: int) -> int:
    """InternVL: tiles in the grid whose shape is nearest to the picture's, and a small copy where there are several."""
    columns, rows = _internvl_grid(width, height)
    tiles = columns * rows
    return _INTERNVL_TOKENS * (tiles + 1 if tiles > 1 else 1) + 2


def _internvl_grid(width: int, height: int) -> tuple[int, int]:
    """(columns, rows); of equally near grids the larger, while it is below twice the picture's area."""
    sides = range(1, _INTERNVL_MOST + 1)
    grids = sorted(
        ((columns, rows) for columns in sides for rows in sides if columns * rows <= _INTERNVL_MOST),
        key=lambda grid: grid[0] * grid[1],
    )
    best, least = (1, 1), math.inf
    for grid in grids:
        off = abs(width / height - grid[0] / grid[1])
        roomy = width * height > 0.5 * _INTERNVL_SIDE**2 * grid[0] * grid[1]
        if off < least or (off == least and roomy):
            best, least = grid, off
    return best
