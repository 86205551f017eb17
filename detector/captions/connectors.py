"""From the detector's features to tokens of a language model, and from its layers back to the image.

After LLMDet (arXiv 2501.18954). What differs from its code: a region's feature is that of the query that was matched to
its box, which upstream misses by the number of denoising queries; and the look at the image may be added to the
token without a norm behind it, so that a fresh one changes nothing.
"""

# B images   M regions of an image   N tokens   V levels   S encoder cells   C channels of the detector   H of the LLM

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MMGroundingDinoConfig
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as upstream

from detector.attention import FewQueries, quicken
from detector.model import Features

HEADS, POINTS = 8, 4  # of the deformable attention
TEMPERATURE = 10000


def sine_code(boxes_N4: Tensor, dims: int) -> Tensor:
    """Boxes of four numbers (a, b, c, d) in 0..1 as sines and cosines in the order (b, a, c, d), (..., 4 * dims).

    So corners (x1, y1, x2, y2) become codes of (y1, x1, x2, y2), and centre and size those of (cy, cx, w, h).
    """
    steps = torch.arange(dims // 2, device=boxes_N4.device, dtype=boxes_N4.dtype)
    angles = boxes_N4[..., [1, 0, 2, 3], None] * 2 * math.pi / TEMPERATURE ** (2 * steps / dims)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


def grid_boxes(cells: int) -> Tensor:
    """The cells of a square grid as (x1, y1, x2, y2) in 0..1, row by row, (cells * cells, 4)."""
    edge = torch.arange(cells + 1) / cells
    y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    return torch.stack([edge[x], edge[y], edge[x + 1], edge[y + 1]], dim=-1).flatten(0, 1)


class Connector(nn.Module):
    """Features (N, C) and their boxes, corners in 0..1, to tokens (N, H)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.place = nn.Linear(2 * channels, hidden)

    def forward(self, features_NC: Tensor, corners_N4: Tensor) -> Tensor:
        code = sine_code(corners_N4.to(self.place.weight.dtype), self.first.in_features // 2)
        seen: Tensor = self.second(F.gelu(self.first(features_NC.to(self.first.weight.dtype))))
        return seen + self.place(code)


def level_map(features: Features, image: int, level: int, cells: int) -> Tensor:
    """One level of one image without its padding, resized to a square grid, row by row, (cells * cells, C)."""
    starts = [0]
    for height, width in features.shapes:
        starts.append(starts[-1] + height * width)
    level %= len(features.shapes)
    height, width = features.shapes[level]
    map_CHW = features.memory_BSC[image, starts[level] : starts[level + 1]].T.unflatten(1, (height, width))
    right, down = (float(ratio) for ratio in features.ratios_BV2[image, level])
    valid = map_CHW[:, : max(round(height * down), 1), : max(round(width * right), 1)]
    resized = F.interpolate(valid[None], (cells, cells), mode="bilinear", align_corners=False)
    return resized[0].flatten(1).T


@dataclass(frozen=True, slots=True)
class Glance:
    """Where region tokens stand in the rows of the language model, and what they look at.

    `rows_N`, `columns_N`: place of each token; `image_N`, `slot_N`: its image and number there; `codes_BMC`: query
    positions; `references_BMV4`: its box in each level, cxcywh, as shares of the padded level.
    """

    rows_N: Tensor
    columns_N: Tensor
    image_N: Tensor
    slot_N: Tensor
    codes_BMC: Tensor
    references_BMV4: Tensor
    features: Features


class Look(nn.Module):
    """Deformable attention of region tokens into their image, inside a layer of the language model.

    The last projection starts at zero. `normed` is upstream's form: a norm over the sum, which changes the token from
    the first step on; without it a fresh look changes nothing.
    """

    def __init__(self, config: MMGroundingDinoConfig, hidden: int, normed: bool) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, config.d_model)
        self.attention = FewQueries(config, HEADS, POINTS)
        self.up = nn.Linear(config.d_model, hidden)
        self.norm = nn.RMSNorm(hidden, eps=1e-6) if normed else None
        _init_attention(self.attention)
        quicken(self)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden_RLH: Tensor, glance: Glance) -> Tensor:
        seen = glance.features
        own = hidden_RLH[glance.rows_N, glance.columns_N].to(self.up.weight.dtype)
        down = self.down(own)
        query_BMC = glance.codes_BMC.to(down.dtype).index_put((glance.image_N, glance.slot_N), down, accumulate=True)
        memory_BSC = seen.memory_BSC.to(own.dtype)
        found = self.attention(query_BMC, glance.references_BMV4, memory_BSC, seen.real_BS, seen.shapes)
        told = own + self.up(found[glance.image_N, glance.slot_N])
        told = told if self.norm is None else self.norm(told)
        return hidden_RLH.index_put((glance.rows_N, glance.columns_N), told.to(hidden_RLH.dtype))


@torch.no_grad()
def _init_attention(attention: upstream.MMGroundingDinoMultiscaleDeformableAttention) -> None:
    """Points start on a ring, one direction for each head, farther out from point to point (Deformable DETR)."""
    nn.init.zeros_(attention.sampling_offsets.weight)
    turn = torch.arange(HEADS) * (2 * math.pi / HEADS)
    ring = torch.stack([turn.cos(), turn.sin()], -1)
    ring = (ring / ring.abs().amax(-1, keepdim=True)).view(HEADS, 1, 1, 2)
    out = torch.arange(1, POINTS + 1).view(1, 1, POINTS, 1)
    attention.sampling_offsets.bias.copy_((ring * out).expand(-1, attention.n_levels, -1, -1).flatten())
    for zeroed in (attention.attention_weights.weight, attention.attention_weights.bias):
        nn.init.zeros_(zeroed)
    for projection in (attention.value_proj, attention.output_proj):
        nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(projection.bias)
