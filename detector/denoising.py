"""Denoising queries (DINO, arXiv 2203.03605): noised copies of the true boxes, each told to find its box again.

The content of a noised query is that of an ordinary query and not an embedding of a label: in grounding data a label is
a place in a list and means nothing. So the model has no weights that plain transformers would not know.
"""

# B images   N boxes of an image   D denoising queries   Q ordinary queries

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.config import DenoisingSettings


@dataclass(frozen=True, slots=True)
class Denoising:
    """Noised queries of a batch, padded to the largest image.

    `boxes_BD4` are cxcywh in 0..1; `target_BD` is the number of the box that a query must find, or -1 where it must
    find nothing; `real_BD` is False for padding; `mask_BQQ` is added to self-attention scores of the queries
    [noised, ordinary] and holds 0 or a large negative number; `groups` is the number of copies of every box.
    """

    boxes_BD4: Tensor
    target_BD: Tensor
    real_BD: Tensor
    mask_BQQ: Tensor
    groups: int

    def to(self, device: torch.device) -> Denoising:
        return replace(
            self,
            boxes_BD4=self.boxes_BD4.to(device),
            target_BD=self.target_BD.to(device),
            real_BD=self.real_BD.to(device),
            mask_BQQ=self.mask_BQQ.to(device),
        )


def noised(
    boxes: NDArray[np.float32], settings: DenoisingSettings, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Noised boxes, targets and groups of one image: (D, 4), (D,), (D,) with D = 2 * groups * N.

    A positive copy has each edge moved by less than `box_noise` times half the side, a negative one by one to two
    times that. Boxes are cxcywh in 0..1, before and after.
    """
    count = len(boxes)
    shape = (settings.groups, 2, count, 4)
    strength = rng.random(shape, dtype=np.float32)
    strength[:, 1] += 1.0
    sign = np.where(rng.random(shape) < 0.5, np.float32(-1), np.float32(1))
    half = np.concatenate([boxes[:, 2:], boxes[:, 2:]], axis=-1) / 2
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=-1)
    moved = np.clip(corners + sign * strength * half * np.float32(settings.box_noise), 0.0, 1.0)
    low, high = np.minimum(moved[..., :2], moved[..., 2:]), np.maximum(moved[..., :2], moved[..., 2:])
    queries = np.concatenate([(low + high) / 2, high - low], axis=-1).reshape(-1, 4)
    targets = np.broadcast_to(np.stack([np.arange(count), np.full(count, -1)]), shape[:3]).reshape(-1)
    groups = np.repeat(np.arange(settings.groups), 2 * count)
    return queries.astype(np.float32), targets.astype(np.int64), groups.astype(np.int64)


def build(
    boxes: Sequence[NDArray[np.float32]], seeds: Sequence[Sequence[int]], queries: int, settings: DenoisingSettings
) -> Denoising | None:
    """Denoising queries for a batch, or None where there is nothing to noise.

    Noise of an image depends on its own seed alone, so it does not change with its neighbours in the batch.
    """
    parts = [noised(b, settings, np.random.default_rng(seed)) for b, seed in zip(boxes, seeds, strict=True)]
    width = max((len(part[0]) for part in parts), default=0)
    if width == 0:
        return None
    boxes_BD4 = np.full((len(parts), width, 4), 0.5, dtype=np.float32)
    target_BD = np.full((len(parts), width), -1, dtype=np.int64)
    group_BD = np.full((len(parts), width), -1, dtype=np.int64)
    for row, (noisy, target, group) in enumerate(parts):
        boxes_BD4[row, : len(noisy)], target_BD[row, : len(noisy)], group_BD[row, : len(noisy)] = noisy, target, group
    mask = torch.from_numpy(attention_mask(group_BD, queries))
    return Denoising(
        torch.from_numpy(boxes_BD4), torch.from_numpy(target_BD), torch.from_numpy(group_BD >= 0), mask, settings.groups
    )


def attention_mask(group_BD: NDArray[np.int64], queries: int) -> NDArray[np.float32]:
    """Who may look at whom, (B, D + Q, D + Q), added to scores: 0 may, a large negative number may not.

    A noised query sees its own group and the ordinary queries; an ordinary query never sees a noised one, which would
    tell it where the boxes are. Group -1 is padding: nobody sees it.
    """
    batch, noisy = group_BD.shape
    allowed = np.zeros((batch, noisy + queries, noisy + queries), dtype=bool)
    allowed[:, :, noisy:] = True
    allowed[:, :noisy, :noisy] = (group_BD[:, :, None] == group_BD[:, None, :]) & (group_BD[:, None, :] >= 0)
    return np.where(allowed, np.float32(0), np.float32(-1e9))
