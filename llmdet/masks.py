"""COCO segmentations to boolean masks: polygons, run lengths as a list, run lengths as COCO's compressed text.

A record holds a segmentation as JSON, as the source wrote it. Run lengths are decoded here, since pycocotools
trusts that counts add up to the picture; polygons are rasterised by pycocotools (the reference).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from llmdet.errors import FormatError

Mask = NDArray[np.bool_]
_FAR = 1e5  # pixels; a polygon that leaves the picture by more is damaged, and would take memory by its length
_MAX_SIDE = 65536


def decode(mask: str, height: int, width: int) -> Mask:
    """The mask, (height, width), of a segmentation as JSON. Raises FormatError that says what is wrong."""
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise FormatError(f"a mask needs a picture of 1 to {_MAX_SIDE} pixels a side; got {width}x{height}")
    try:
        value = orjson.loads(mask)
    except ValueError as error:
        raise FormatError(f"a segmentation is not JSON ({error}): {mask[:60]!r}") from error
    if isinstance(value, list):
        return _from_polygons(value, height, width)
    if isinstance(value, dict) and "counts" in value:
        return _from_runs(value, height, width)
    raise FormatError(f"a segmentation is a list of polygons or an object with counts and size; got {mask[:60]!r}")


def area(mask: Mask) -> int:
    """Pixels inside the mask."""
    return int(np.count_nonzero(mask))


def _from_polygons(polygons: list[Any], height: int, width: int) -> Mask:
    from pycocotools import mask as coco  # compiled code that only readers of masks need

    for number, polygon in enumerate(polygons):
        _check_polygon(polygon, number)
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    runs = coco.merge(coco.frPyObjects(polygons, height, width))
    return np.asarray(coco.decode(runs), dtype=bool)


def _check_polygon(polygon: object, number: int) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        size = len(polygon) if isinstance(polygon, list) else type(polygon).__name__
        raise FormatError(f"polygon {number} must be a flat list of at least 3 x, y pairs; got {size}")
    for value in polygon:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FormatError(f"polygon {number} must hold numbers; got {value!r}")
        if abs(value) > _FAR:
            raise FormatError(f"polygon {number} has a coordinate of {value}, more than {_FAR:.0f} pixels away")


def _from_runs(value: dict[str, Any], height: int, width: int) -> Mask:
    size = value.get("size")
    if size != [height, width]:
        raise FormatError(f"run lengths are for size [height, width] = {size}, the picture is {[height, width]}")
    counts = value["counts"]
    runs = _runs_of_text(counts) if isinstance(counts, str) else counts
    whole = isinstance(runs, list) and all(type(run) is int and 0 <= run <= height * width for run in runs)
    if not whole:
        raise FormatError(
            "run lengths must be whole numbers between 0 and the picture's pixels, or COCO's text of them"
        )
    if sum(runs) != height * width:
        raise FormatError(f"run lengths add up to {sum(runs)}, the picture has {height} x {width} = {height * width}")
    inside = np.arange(len(runs)) % 2 == 1
    # COCO counts down the columns.
    return np.repeat(inside, np.array(runs, dtype=np.int64)).reshape(width, height).T.copy()


def _runs_of_text(text: str) -> list[int]:
    """COCO's compressed runs: 5 bits a character from ASCII 48, bit 6 for "more follows".

    From the fourth run on a number is the difference to the run two places before.
    The format of `rleFrString` in https://github.com/cocodataset/cocoapi (common/maskApi.c).
    """
    runs: list[int] = []
    number = shift = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise FormatError(f"compressed run lengths hold {char!r} at run {len(runs)}, which does not belong there")
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:  # the sign
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    if shift:
        raise FormatError("compressed run lengths end inside a number")
    return runs
