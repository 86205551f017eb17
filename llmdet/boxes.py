"""Boxes as numpy arrays: `xyxy`, pixels, float64, shape (n, 4), unless a name says otherwise."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

XYXY = tuple[float, float, float, float]
Boxes = NDArray[np.float64]


def from_xywh(box: ArrayLike) -> Boxes:
    """`[x, y, w, h]` (COCO, LVIS, V3Det) to `xyxy`; any leading shape."""
    boxes = np.asarray(box, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def to_xywh(box: XYXY) -> tuple[float, float, float, float]:
    """`xyxy` to `[x, y, w, h]` such that `x + w` gives back `x2` exactly where decimals allow it.

    `320.93 - 250.82` is 70.11000000000001 in binary; annotation files say 70.11. The shortest decimal
    that adds up to the same double is what the annotator wrote.
    """
    x1, y1, x2, y2 = box
    return x1, y1, _extent(x1, x2), _extent(y1, y2)


def _extent(start: float, end: float) -> float:
    raw = end - start
    for digits in range(1, 13):
        short = round(raw, digits)
        if start + short == end:
            return short
    return raw


def areas(boxes: Boxes) -> NDArray[np.float64]:
    """Areas in square pixels, (n,); inverted boxes count as zero."""
    size = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None)
    return np.asarray(size[..., 0] * size[..., 1], dtype=np.float64)


def clip(boxes: Boxes, width: float, height: float) -> Boxes:
    """Boxes cut to the image; a box outside becomes one of zero area on the edge."""
    limit = np.array([width, height, width, height], dtype=np.float64)
    return np.clip(boxes, 0.0, limit)


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every pair, (n, m); 0 where the union is empty."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    size = np.clip(bottom_right - top_left, 0, None)
    inter = size[..., 0] * size[..., 1]
    union = areas(a)[:, None] + areas(b)[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def fault(box: XYXY, width: int, height: int) -> str | None:
    """Why a stored box cannot be used, or None.

    The rule of mmdet's ODVG reader and converters: no overlap with the image, or a side below one pixel. Finite is
    checked first, since a comparison with NaN would let it pass.
    """
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return "box_not_finite"
    if x2 - x1 < 1 or y2 - y1 < 1:
        return "box_below_one_pixel"
    if min(x2, width) - max(x1, 0) <= 0 or min(y2, height) - max(y1, 0) <= 0:
        return "box_outside_image"
    return None
