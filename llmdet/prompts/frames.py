"""How each family of models sees a picture: its size, its cost in tokens, and how a box in it is written.

What is known of the families, with where it is said:
- Qwen2-VL, Qwen2.5-VL: sides become multiples of 28, one token per 28x28 (transformers' Qwen2VLImageProcessor).
  Boxes are thousandths of the picture in Qwen2-VL, pixels of the resized picture in Qwen2.5-VL (QwenLM/Qwen3-VL#866).
- Qwen3-VL and Qwen3.5: patches of 16 merged by two, so multiples of 32 (their preprocessor_config.json). Boxes are
  thousandths again, not pixels (its cookbook, quoted in QwenLM/Qwen3-VL#1741; QwenLM/Qwen3.8-Flash-Next#4).
- LLaVA-OneVision: fractions with two decimals. InternVL: thousandths in double brackets. Both cut tiles themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from PIL import Image

from llmdet.boxes import XYXY
from llmdet.errors import ImageError, SettingError
from llmdet.prompts import tiles

Unit = Literal["pixel", "thousandth", "fraction"]
Layout = Literal["patches", "onevision", "internvl", "free"]

_STEPS = {"thousandth": 1000, "fraction": 100}  # units along a side


@dataclass(frozen=True)
class Frame:
    """The picture as one family of models sees it. Sizes are (width, height) in pixels."""

    unit: Unit = "thousandth"  # of coordinates: pixels are those of the resized picture
    form: str = "[{}, {}, {}, {}]"  # how x1, y1, x2, y2 are written
    layout: Layout = "free"  # patches: sides are multiples of `factor`; others only shrink to `max_pixels`
    factor: int = 28  # pixels along the side of what becomes one token
    min_pixels: int = 64 * 28 * 28
    max_pixels: int = 1280 * 28 * 28
    max_aspect: float = 200.0  # longer side over shorter; families with patches refuse more than 200

    def __post_init__(self) -> None:
        if not self.factor**2 <= self.min_pixels <= self.max_pixels:
            raise SettingError(
                f"a frame needs {self.factor}x{self.factor} <= min_pixels <= max_pixels; "
                f"got min_pixels {self.min_pixels}, max_pixels {self.max_pixels}"
            )

    @classmethod
    def of(cls, value: Self | Mapping[str, Any]) -> Self:
        """A frame from itself or from the JSON object that `asdict` made of it."""
        return value if isinstance(value, cls) else cls(**value)  # type: ignore[arg-type]

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """The size at which the model gets a picture, to the pixel.

        A processor with wider limits than `min_pixels` and `max_pixels` leaves a picture of this size alone.
        Raises ImageError("image_too_narrow") above `max_aspect`, before or after: the processor would refuse it.
        """
        self._check_aspect(width, height)
        size = self._size(width, height)
        self._check_aspect(*size)
        return size

    def image_tokens(self, width: int, height: int) -> int:
        """How many tokens of the prompt a picture of this size takes; an estimate for the layout "free"."""
        size = self.resized(width, height)
        if self.layout == "onevision":
            return tiles.onevision_tokens(*size)
        if self.layout == "internvl":
            return tiles.internvl_tokens(*size)
        return math.ceil(size[0] / self.factor) * math.ceil(size[1] / self.factor)

    def fit(self, image: Image.Image) -> Image.Image:
        """The picture at the size of `resized`, bicubic; itself where it has that size."""
        size = self.resized(*image.size)
        return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)

    def place(self, box: XYXY, width: int, height: int) -> tuple[int, int, int, int]:
        """A box (xyxy pixels of a width x height picture) in whole units, cut to the picture, never without area.

        Fractions are counted in hundredths; `write` puts the point in.
        """
        ends = self._size(width, height) if self.unit == "pixel" else (_STEPS[self.unit],) * 2
        x1, x2 = _along(box[0], box[2], width, ends[0])
        y1, y2 = _along(box[1], box[3], height, ends[1])
        return x1, y1, x2, y2

    def write(self, box: XYXY, width: int, height: int) -> str:
        """A box as the family writes it."""
        numbers = self.place(box, width, height)
        return self.form.format(*(f"{n / 100:.2f}" if self.unit == "fraction" else n for n in numbers))

    def legend(self, width: int, height: int) -> str:
        """What the numbers of `write` mean, for the text of a prompt."""
        if self.unit == "pixel":
            wide, high = self._size(width, height)
            return f"in pixels of the picture, which is {wide} wide and {high} high"
        if self.unit == "fraction":
            return "as shares of the picture's width and height, from 0 to 1"
        return "in thousandths of the picture's width and height, from 0 to 1000"

    def _check_aspect(self, width: int, height: int) -> None:
        if min(width, height) < 1 or max(width, height) > self.max_aspect * min(width, height):
            raise ImageError("image_too_narrow", f"{width}x{height} is narrower than 1 to {self.max_aspect:g}")

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """`resized` of any picture: a question can be written about one that no engine will take."""
        if self.layout == "patches":
            return self._whole_patches(width, height)
        scale = min(1.0, math.sqrt(self.max_pixels / (width * height)))
        return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))

    def _whole_patches(self, width: int, height: int) -> tuple[int, int]:
        """What the Qwen-VL processors do: the nearest whole patches, then scaled into the range of pixels."""
        factor = self.factor
        wide, high = round(width / factor) * factor, round(height / factor) * factor
        if wide * high > self.max_pixels:
            shrink = math.sqrt((height * width) / self.max_pixels)
            wide = max(factor, math.floor(width / shrink / factor) * factor)
            high = max(factor, math.floor(height / shrink / factor) * factor)
        elif wide * high < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            wide = math.ceil(width * grow / factor) * factor
            high = math.ceil(height * grow / factor) * factor
        return wide, high


def _along(start: float, end: float, side: int, units: int) -> tuple[int, int]:
    """Both ends of a box along one side of the picture, in whole units; at least one unit apart."""
    low, high = (min(max(round(value / side * units), 0), units) for value in (start, end))
    return (low, high) if low < high else (min(low, units - 1), min(low, units - 1) + 1)


GENERAL = Frame()  # thousandths in square brackets; the picture is only ever shrunk
_QWEN2 = Frame(form="<|box_start|>({},{}),({},{})<|box_end|>", layout="patches")
_QWEN2_5 = Frame(unit="pixel", layout="patches")
_QWEN3 = Frame(layout="patches", factor=32, min_pixels=64 * 32 * 32, max_pixels=1024 * 32 * 32)
_INTERNVL = Frame(form="<box>[[{}, {}, {}, {}]]</box>", layout="internvl")

# By `model_type` of a model's config.json.
FAMILIES: dict[str, Frame] = {
    "qwen2_vl": _QWEN2,
    "qwen2_5_vl": _QWEN2_5,
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "qwen3_5": _QWEN3,
    "qwen3_5_moe": _QWEN3,
    "llava_onevision": Frame(unit="fraction", layout="onevision"),
    "internvl": _INTERNVL,
    "internvl_chat": _INTERNVL,
}


def frame_of(model_type: str) -> Frame:
    """The frame of a family, or the general one."""
    return FAMILIES.get(model_type, GENERAL)
