"""Parts of MM-Grounding-DINO with cheaper arithmetic: same weights, same names, same results.

What differs from transformers' classes, each of which `quicken` replaces in a model:
- `Fusion` (image cells and text tokens): upstream projects every cell to 1024 channels three times. Matrix products may
  be bracketed otherwise: the projections go to the side of the few tokens, and cells stay as they are.
- `Sampling` (deformable attention), on a CPU: a sum of weighted rows of a table, the corners of every point, instead of
  a grid sample of every level whose values are stacked, weighted and summed. Elsewhere upstream's runs.
- `Attention` among queries, and of queries or a text to a text: PyTorch's fused one, which keeps no table of scores.
- `Scores` of cells or queries for the tokens of a text: as many as there are tokens, not 256.
"""

# B images   S cells   T tokens   H heads   D channels of a head   C channels   Q queries   V levels   P points
# N sums   K rows in each

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as upstream


def quicken(model: nn.Module) -> None:
    """Replace upstream's parts inside a model; weights stay where they are."""
    for module in list(model.modules()):
        for old, new in _QUICKER.items():
            if type(module) is old:
                module.__class__ = new


class Fusion(upstream.MMGroundingDinoBiMultiHeadAttention):
    """Cells look at tokens and tokens at cells, by one table of scores."""

    def forward(  # type: ignore[override]
        self, vision_features: Tensor, text_features: Tensor, vision_attention_mask: Tensor, text_attention_mask: Tensor
    ) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
        """New features of cells (B, S, C) and of tokens (B, T, C); masks are True on padding."""
        scores_BHTS = self._scores(vision_features, text_features)
        of_cell = scores_BHTS.masked_fill(text_attention_mask[:, None, :, None], -torch.inf).softmax(2)
        of_token = scores_BHTS.masked_fill(vision_attention_mask[:, None, None, :], -torch.inf).softmax(3)
        of_cell = F.dropout(of_cell, self.dropout, self.training)
        of_token = F.dropout(of_token, self.dropout, self.training)
        return (self._to_cells(of_cell, text_features), None), (self._to_tokens(of_token, vision_features), None)

    def _scores(self, cells_BSC: Tensor, tokens_BTC: Tensor) -> Tensor:
        """(x W + b) k = x (W k) + b k, (B, H, T, S)."""
        keys = self._heads(self.text_proj(tokens_BTC) * self.scale)
        weight_HDC, bias_HD = self._by_head(self.vision_proj)
        query_BHTC = torch.einsum("bthd,hdc->bhtc", keys, weight_HDC)
        bias_BHT = torch.einsum("bthd,hd->bht", keys, bias_HD)
        return torch.einsum("bhtc,bsc->bhts", query_BHTC, cells_BSC) + bias_BHT[..., None]

    def _to_cells(self, of_cell_BHTS: Tensor, tokens_BTC: Tensor) -> Tensor:
        """(a v) W = a (v W), all heads in one product."""
        values = self._heads(self.values_text_proj(tokens_BTC))
        weight_CHD = self.out_vision_proj.weight.unflatten(1, (self.num_heads, self.head_dim))
        told_BHTC = torch.einsum("bthd,chd->bhtc", values, weight_CHD)
        return of_cell_BHTS.flatten(1, 2).mT @ told_BHTC.flatten(1, 2) + self.out_vision_proj.bias

    def _to_tokens(self, of_token_BHTS: Tensor, cells_BSC: Tensor) -> Tensor:
        """a (x W + b) = (a x) W + (sum of a) b; the sum is not 1 where dropout took some."""
        weight_HDC, bias_HD = self._by_head(self.values_vision_proj)
        seen_BHTC = torch.einsum("bhts,bsc->bhtc", of_token_BHTS, cells_BSC)
        values = torch.einsum("bhtc,hdc->bthd", seen_BHTC, weight_HDC)
        values = values + of_token_BHTS.sum(-1).transpose(1, 2)[..., None] * bias_HD
        told: Tensor = self.out_text_proj(values.flatten(2))
        return told

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, self.head_dim))

    def _by_head(self, projection: nn.Linear) -> tuple[Tensor, Tensor]:
        """Weight (H, D, C) and bias (H, D)."""
        shape = (self.num_heads, self.head_dim)
        return projection.weight.unflatten(0, shape), projection.bias.unflatten(0, shape)


class Attention(upstream.MMGroundingDinoMultiheadAttention):
    """Attention whose scores are never in memory as a whole."""

    def forward(  # type: ignore[override]
        self, queries: Tensor, keys: Tensor, values: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """New states (B, Q, C); `attention_mask` is added to the scores."""
        projected = (self.query(queries), self.key(keys), self.value(values))
        q, k, v = (one.unflatten(-1, (self.num_attention_heads, -1)).transpose(1, 2) for one in projected)
        mask = None if attention_mask is None else attention_mask.to(q.dtype)
        dropout = self.dropout.p if self.training else 0.0
        states = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return self.out_proj(states.transpose(1, 2).flatten(2)), None


class Scores(upstream.MMGroundingDinoContrastiveEmbedding):
    """Similarity of states to tokens."""

    def forward(self, vision_hidden_state: Tensor, text_hidden_state: Tensor, text_token_mask: Tensor) -> Tensor:
        """Of states (B, S, C) to tokens (B, T, C), (B, S, T); -inf where the mask (B, T) is False."""
        product = vision_hidden_state @ text_hidden_state.mT / math.sqrt(vision_hidden_state.shape[-1])
        return (product + self.bias).masked_fill(~text_token_mask[:, None], -torch.inf)


class Sampling(upstream.MultiScaleDeformableAttention):
    """Deformable attention as sums of weighted rows of a table, one row for each cell and head."""

    def forward(
        self,
        value: Tensor,
        value_spatial_shapes: Tensor,
        value_spatial_shapes_list: list[tuple[int, int]],
        level_start_index: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int,
    ) -> Tensor:
        """Values (B, S, H, D) at locations (B, Q, H, V, P, 2), x and y in 0..1, weighted (B, Q, H, V, P): (B, Q, C)."""
        if value.device.type != "cpu":
            args = value, value_spatial_shapes, value_spatial_shapes_list, level_start_index, sampling_locations
            return super().forward(*args, attention_weights, im2col_step)
        batch, cells, heads, _ = value.shape
        first = torch.arange(batch * heads, dtype=torch.int32).view(batch, 1, heads, 1)
        first = first + first // heads * (cells - 1) * heads  # row of cell 0: (image * cells + cell) * heads + head
        rows, shares = [], []
        for level, (height, width) in enumerate(value_spatial_shapes_list):
            x, y = sampling_locations[:, :, :, level].unbind(-1)
            columns = [(column * heads, share_x) for column, share_x in _corners(x, width)]
            for line, share_y in _corners(y, height):
                begin, share_y = line * (width * heads) + first, share_y * attention_weights[:, :, :, level]
                rows += [begin + column for column, _ in columns]
                shares += [share_y * share_x for _, share_x in columns]
            first = first + height * width * heads
        table = value.flatten(0, 2).to(torch.promote_types(value.dtype, torch.float32))
        index, weight = torch.cat(rows, -1).flatten(0, 2), torch.cat(shares, -1).flatten(0, 2)
        sums: Tensor = _WeightedSums.apply(table, index, weight.to(table.dtype))
        return sums.view(batch, -1, heads * value.shape[-1])


class FewQueries(upstream.MMGroundingDinoMultiscaleDeformableAttention):
    """Deformable attention of few queries: cells are summed first and projected then, so few are ever projected."""

    def forward(  # type: ignore[override]
        self,
        query_BQC: Tensor,
        references_BQV4: Tensor,
        cells_BSC: Tensor,
        real_BS: Tensor,
        shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """What each query finds around its boxes, cxcywh as shares of each padded level, (B, Q, C)."""
        batch, queries, channels = query_BQC.shape
        points = (batch, queries * self.n_heads, 1, self.n_levels, self.n_points)
        weight = self.attention_weights(query_BQC).unflatten(-1, (self.n_heads, -1)).softmax(-1).view(points)
        offset = self.sampling_offsets(query_BQC).view(batch, queries, self.n_heads, self.n_levels, self.n_points, 2)
        boxes = references_BQV4[:, :, None, :, None]
        places = boxes[..., :2] + offset / self.n_points * boxes[..., 2:] * 0.5
        # A last channel of ones sums the weights of real cells: so much of the bias belongs to the sum.
        table = torch.cat([cells_BSC, torch.ones_like(cells_BSC[..., :1])], -1) * real_BS[..., None]
        sizes = torch.tensor(shapes, device=table.device)
        starts = sizes.prod(1).cumsum(0) - sizes.prod(1)
        sums = self.attn(
            table[:, :, None], sizes, list(shapes), starts, places.view(*points, 2), weight, self.im2col_step
        )
        seen_BQHC, share_BQH = sums.unflatten(1, (queries, self.n_heads)).split([channels, 1], -1)
        weight_HDC = self.value_proj.weight.unflatten(0, (self.n_heads, -1))
        bias_HD = self.value_proj.bias.unflatten(0, (self.n_heads, -1))
        values = torch.einsum("bqhc,hdc->bqhd", seen_BQHC, weight_HDC) + share_BQH * bias_HD
        found: Tensor = self.output_proj(values.flatten(2))
        return found


def _corners(place: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The cells before and after places 0..1 along one axis, and the share of each, 0 outside of the map."""
    scaled = place * size - 0.5
    low = scaled.floor()
    behind = scaled - low
    cell = low.to(torch.int32)
    sides = ((cell, 1 - behind), (cell + 1, behind))
    return [(side.clamp(0, size - 1), share * ((side >= 0) & (side < size))) for side, share in sides]


class _WeightedSums(torch.autograd.Function):
    """Sums of rows of a table (R, D), at `index` (N, K), times `weight` (N, K): (N, D).

    PyTorch sorts the index for the gradient of the table; a sparse product of scipy adds to its rows as they come.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weight)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        table, index, weight = ctx.saved_tensors
        with torch.enable_grad():
            again = weight.detach().requires_grad_()
            sums = F.embedding_bag(index, table, mode="sum", per_sample_weights=again)
        (of_weight,) = torch.autograd.grad(sums, again, gradient)
        ends = np.arange(0, index.numel() + 1, index.shape[1])
        chosen = csr_array((weight.numpy().ravel(), index.numpy().ravel(), ends), shape=(len(index), len(table)))
        return torch.from_numpy(chosen.T @ gradient.numpy()), None, of_weight


_QUICKER: dict[type[nn.Module], type[nn.Module]] = {
    upstream.MMGroundingDinoBiMultiHeadAttention: Fusion,
    upstream.MMGroundingDinoMultiheadAttention: Attention,
    upstream.MultiScaleDeformableAttention: Sampling,
    upstream.MMGroundingDinoContrastiveEmbedding: Scores,
}
