"""What answers cost: GPUs by the hour, or tokens by the million."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices in any one currency; with none of them everything is free."""

    gpu_hour: float = 0.0  # of one GPU
    gpus: float | None = None  # that are paid for; None: those that the engine's workers hold
    prompt_million: float = 0.0  # tokens of questions and pictures
    cached_million: float | None = None  # those of them that came from a cache; None: as the others
    answer_million: float = 0.0  # tokens of answers
    tokens_per_s: float | None = None  # of all GPUs, questions and answers: for estimates; None: as measured before

    def cost(self, prompt_tokens: int, cached_tokens: int, answer_tokens: int, gpu_seconds: float = 0.0) -> float:
        """The price of tokens and of the time of GPUs."""
        cached = self.prompt_million if self.cached_million is None else self.cached_million
        tokens = (
            (prompt_tokens - cached_tokens) * self.prompt_million
            + cached_tokens * cached
            + answer_tokens * self.answer_million
        )
        return tokens / 1e6 + gpu_seconds / 3600 * self.gpu_hour
