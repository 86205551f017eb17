"""How the rows of a batch draw their words, each for itself, inside transformers' `generate`.

B rows (requests)   T tokens so far   V words of the model
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria


class SeededDraw(LogitsProcessor):
    """Turns the choice of the likeliest token into a draw, by noise of each row's own seed (the Gumbel-max trick).

    The token that wins with the noise added is distributed as a draw from softmax(logits / temperature), cut to the
    likeliest ones that make up `top_p`. Rows with temperature 0 stay as they are.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], device: torch.device) -> None:
        """`rows` hold seed, temperature and top_p of each row."""
        self._generators = [torch.Generator(device).manual_seed(row["seed"]) for row in rows]
        self._temperature_B1 = torch.tensor([[float(row["temperature"])] for row in rows], device=device)
        self._top_p_B1 = torch.tensor([[float(row["top_p"])] for row in rows], device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores_BV = scores.float()
        drawn_BV = _nucleus(scores_BV / self._temperature_B1.clamp(min=1e-6), self._top_p_B1) + self._noise(scores_BV)
        return torch.where(self._temperature_B1 > 0, drawn_BV, scores_BV)

    def _noise(self, scores_BV: Tensor) -> Tensor:
        """Gumbel noise: -log of exponential draws."""
        draws_BV = torch.empty_like(scores_BV)
        for row_V, generator in zip(draws_BV, self._generators, strict=True):
            row_V.exponential_(generator=generator)
        return -draws_BV.log()


def _nucleus(scores_BV: Tensor, top_p_B1: Tensor) -> Tensor:
    """Scores with all but the likeliest tokens that together reach `top_p` at -inf."""
    sorted_BV, order_BV = scores_BV.sort(dim=-1, descending=True)
    chances_BV = sorted_BV.softmax(dim=-1)
    before_BV = chances_BV.cumsum(dim=-1) - chances_BV
    cut_BV = sorted_BV.masked_fill(before_BV >= top_p_B1, float("-inf"))
    return torch.full_like(scores_BV, float("-inf")).scatter(-1, order_BV, cut_BV)


class OwnLength(StoppingCriteria):
    """Ends each row at its own limit, not at the longest of the batch."""

    def __init__(self, start: int, limits: Sequence[int], device: torch.device) -> None:
        self._start = start
        self._limits_B = torch.tensor(limits, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        return self._limits_B <= input_ids.shape[1] - self._start
