"""Figures of speed."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from detector import meters
from detector.meters import Meter, Speed, count_flops

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(meters, "time", Clock())
    return meters.time  # type: ignore[return-value]


def slow(clock: Clock) -> Iterator[int]:
    """Two batches, each of which takes 3 seconds to come."""
    for number in range(2):
        clock.now += 3
        yield number


def test_waiting_for_data_is_told_from_working(clock: Clock) -> None:
    meter, found = Meter(images=8, place=CPU, precision="fp32"), []
    for _ in meter.waiting(slow(clock)):
        clock.now += 1
        found.append(meter.speed(pixels=100))
    assert [(speed.images_per_second, speed.data_wait) for speed in found] == [(2.0, 0.75)] * 2
    assert found[0].memory_bytes > 10 * 2**20
    assert (found[0].tflops, found[0].mfu) == (None, None)  # nothing was counted


def test_mfu_is_the_share_of_the_peak(clock: Clock) -> None:
    meter = Meter(images=1, place=CPU, precision="bf16")
    meter.flops, meter.peak = 1e9, 2.0  # of a pixel; TFLOP/s
    next(meter.waiting([0]))
    clock.now += 4
    speed = meter.speed(pixels=1000)
    assert (speed.tflops, speed.mfu) == (0.25, 0.125)


def test_figures_that_are_not_known_are_left_out() -> None:
    assert Speed(2.0, 0.25, 7).values() == {
        "speed/images_per_second": 2.0,
        "speed/data_wait": 0.25,
        "speed/memory_bytes": 7,
    }


def test_a_product_and_its_gradients_are_counted() -> None:
    layer, x = nn.Linear(3, 5, bias=False), torch.ones(7, 3, requires_grad=True)
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * (2 * 7 * 3 * 5)
