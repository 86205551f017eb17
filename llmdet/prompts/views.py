"""Pictures as a question shows them: whole, one part of it, or with numbered boxes drawn on."""

from __future__ import annotations

import math

from PIL import Image

from llmdet.boxes import XYXY
from llmdet.draw import draw_numbers
from llmdet.prompts.prompt import View


def crop_of(box: XYXY, width: int, height: int, padding: float) -> View:
    """The part of a width x height picture around a box, wider by `padding` of the box's sides on each side.

    In whole pixels, inside the picture, at least one pixel wide and high.
    """
    x1, y1, x2, y2 = box
    across, down = padding * (x2 - x1), padding * (y2 - y1)
    left, right = _between(x1 - across, x2 + across, width)
    top, bottom = _between(y1 - down, y2 + down, height)
    return View("crop", ((left, top, right, bottom),))


def view_of(image: Image.Image, view: View) -> Image.Image:
    """What a question shows of a picture that has the size of its record; the picture itself for "whole"."""
    if view.kind == "crop":
        return image.crop(_pixels(view))
    if view.kind == "mark":
        return draw_numbers(image, view.boxes, view.numbers)
    return image


def view_size(view: View, width: int, height: int) -> tuple[int, int]:
    """(width, height) of `view_of` of a width x height picture."""
    if view.kind != "crop":
        return width, height
    left, top, right, bottom = _pixels(view)
    return right - left, bottom - top


def _pixels(view: View) -> tuple[int, int, int, int]:
    left, top, right, bottom = view.boxes[0]
    return int(left), int(top), int(right), int(bottom)


def _between(start: float, end: float, side: int) -> tuple[int, int]:
    low = min(max(math.floor(start), 0), side - 1)
    return low, max(min(math.ceil(end), side), low + 1)
