"""Photos to pixel tensors, as GroundingDinoImageProcessor does it, without its detour over several copies."""

# B images   H, W of the padded batch

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import GroundingDinoImageProcessorPil
from transformers.image_transforms import get_size_with_aspect_ratio

MEAN = (0.485, 0.456, 0.406)  # ImageNet, of values in 0..1
STD = (0.229, 0.224, 0.225)
_NARROWEST = 0.08  # of the shorter side that is wished for (64 of 800 pixels): less has too few cells for the queries


@dataclass(frozen=True, slots=True)
class Pixels:
    """Resize to a shorter side, at most a longer one, keeping the aspect; scale to 0..1; normalise.

    A strip that would become narrower than 8 % of the shorter side is stretched to that; upstream crashes.
    """

    short_side: int = 800
    long_side: int = 1333
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width at which a picture is seen."""
        tall, wide = get_size_with_aspect_ratio((height, width), self.short_side, self.long_side)
        least = max(1, round(_NARROWEST * self.short_side))
        return max(int(tall), least), max(int(wide), least)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """RGB photo to (3, height, width) float32."""
        height, width = self.size(*image.size)
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        scale = 1.0 / (255.0 * np.array(self.std, dtype=np.float32))
        shift = -np.array(self.mean, dtype=np.float32) / np.array(self.std, dtype=np.float32)
        values = np.asarray(image, dtype=np.float32) * scale.astype(np.float32) + shift
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    @classmethod
    def of(cls, processor: GroundingDinoImageProcessorPil) -> Pixels:
        """The same settings as a saved processor's."""
        size = processor.size
        return cls(size["shortest_edge"], size["longest_edge"], tuple(processor.image_mean), tuple(processor.image_std))

    def processor(self) -> GroundingDinoImageProcessorPil:
        """The transformers processor with these settings, to be saved beside a model."""
        size = {"shortest_edge": self.short_side, "longest_edge": self.long_side}
        return GroundingDinoImageProcessorPil(size=size, image_mean=list(self.mean), image_std=list(self.std))


def pad_pixels(images: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Images padded right and below with zeros, (B, 3, H, W), and where they are, (B, H, W) of 0 or 1."""
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    values = torch.zeros(len(images), 3, height, width)
    mask = torch.zeros(len(images), height, width, dtype=torch.long)
    for row, image in enumerate(images):
        values[row, :, : image.shape[1], : image.shape[2]] = torch.from_numpy(image)
        mask[row, : image.shape[1], : image.shape[2]] = 1
    return values, mask
