"""The rate of each step, beside mmengine's formulas worked out by hand."""

import pytest

from detector.config import TrainSettings
from detector.schedules import learning_rate


def rates(**settings: object) -> list[float]:
    plan = TrainSettings(learning_rate=1.0, **settings)  # type: ignore[arg-type]
    return [learning_rate(plan, step) for step in range(plan.steps)]


def test_cosine_warms_up_and_falls_to_zero() -> None:
    found = rates(steps=101, warmup=1)
    assert found[0] == found[1] == 1.0
    assert found[51] == pytest.approx(0.5)
    assert found[100] == pytest.approx(0.0, abs=1e-3)
    assert sorted(found, reverse=True) == found


def test_llmdets_schedule() -> None:
    """Linear from a thousandth over 1000 steps, a tenth at 120,000 and again at 140,000 of 150,000."""
    shape = {"schedule": "steps", "milestones": (120_000, 140_000), "warmup": 1000, "warmup_start": 1e-3}
    found = rates(steps=150_000, **shape)
    assert found[0] == 1e-3
    assert found[1] == pytest.approx(1e-3 + (1 - 1e-3) / 999)
    assert found[999] == found[119_999] == 1.0
    assert found[120_000] == found[139_999] == pytest.approx(0.1)
    assert found[140_000] == found[149_999] == pytest.approx(0.01)


def test_milestones_below_one_are_shares() -> None:
    found = rates(steps=30, schedule="steps", milestones=(0.8, 0.9), milestone_factor=0.5, warmup=0)
    assert found == [1.0] * 24 + [0.5] * 3 + [0.25] * 3


def test_a_warm_up_of_one_step_starts_at_its_factor() -> None:
    assert rates(steps=3, schedule="steps", warmup=1, warmup_start=0.5) == [0.5, 1.0, pytest.approx(0.1)]
