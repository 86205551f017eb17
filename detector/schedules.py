"""The learning rate of each step."""

from __future__ import annotations

import math

from detector.config import TrainSettings


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero, or steps at the milestones; `step` counts from 0."""
    rate = settings.learning_rate
    if settings.schedule == "steps":
        rate *= math.prod(settings.milestone_factor for place in _milestones(settings) if step >= place)
    if step < settings.warmup:
        return _warm(rate, settings, step)
    if settings.schedule == "steps":
        return rate
    progress = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return rate * 0.5 * (1 + math.cos(math.pi * progress))


def _warm(rate: float, settings: TrainSettings, step: int) -> float:
    """From the start factor at step 0 to 1 at the last step of the warm-up, as mmengine's LinearLR."""
    if settings.warmup_start is None:
        return rate * (step + 1) / settings.warmup
    return rate * (settings.warmup_start + (1 - settings.warmup_start) * step / max(settings.warmup - 1, 1))


def _milestones(settings: TrainSettings) -> list[int]:
    """Steps at which the rate falls."""
    return [round(place * settings.steps if place < 1 else place) for place in settings.milestones]
