"""A running mean of the weights (EMA): smoother than the last step's, and what is kept and used where it is on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Averages:
    """The mean of each weight that learns, by name. It follows fast at first: decay min(decay, (1 + n) / (10 + n))."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight for name, weight in weights.items() if weight.requires_grad}
        self.means: dict[str, Tensor] = {}
        self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Let the mean be what the weights are now."""
        self.means = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After a step, which counts from 0."""
        kept = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.means.values()), list(self.weights.values()), 1 - kept)

    @contextlib.contextmanager
    def shown(self) -> Iterator[dict[str, Tensor]]:
        """A block in which the weights are their means; gives the weights that learn, as they are outside of it."""
        learned = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.put(self.means)
        try:
            yield learned
        finally:
            self.put(learned)

    @torch.no_grad()
    def put(self, values: Mapping[str, Tensor]) -> None:
        """Set the weights to these values."""
        for name, weight in self.weights.items():
            weight.copy_(values[name])
