"""How fast training is, where its time goes, and how well it uses a GPU. Nothing here changes what is learned."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")

# Dense matrix products in bfloat16 and float32 (without TF32), TFLOP/s, from NVIDIA's data sheets. The first name
# that a device's name contains counts.
PEAKS: dict[str, tuple[float, float]] = {
    "B200": (2250.0, 75.0),
    "H200": (989.0, 67.0),
    "H100 PCIe": (756.0, 51.0),
    "H100 NVL": (835.0, 60.0),
    "H100": (989.0, 67.0),
    "A100": (312.0, 19.5),
    "L40S": (362.0, 91.6),
    "L40": (181.0, 90.5),
    "L20": (119.5, 59.8),
    "L4": (121.0, 30.3),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
}


@dataclass(frozen=True, slots=True)
class Speed:
    """Figures of one step. `images_per_second` is of all processes, the others are of this one.

    `mfu` is None where the work of a step was not counted (on a CPU) or the device's peak is not known.
    """

    images_per_second: float
    data_wait: float  # share of the step in which no batch was ready
    memory_bytes: int  # most so far: of the GPU's allocator, on a CPU of the process
    tflops: float | None = None  # per second, of matrix products and convolutions
    mfu: float | None = None  # share of the device's peak

    def values(self) -> dict[str, float]:
        """By the names that logs have them under."""
        told = {name: getattr(self, name) for name in self.__slots__}
        return {f"speed/{name}": value for name, value in told.items() if value is not None}


class Meter:
    """Times the steps of a loop over `waiting(batches)`, which asks for `speed` at the end of each."""

    def __init__(self, images: int, place: torch.device, precision: str) -> None:
        self.images, self.place = images, place
        self.peak = _peak(place, precision)
        self.flops = 0.0  # of a pixel, forward and backward
        self._began, self._waited = time.monotonic(), 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches, while the time that each takes to come is noted."""
        found = iter(batches)
        while True:
            self._began = time.monotonic()
            try:
                batch = next(found)
            except StopIteration:
                return
            self._waited = time.monotonic() - self._began
            yield batch

    def speed(self, pixels: int) -> Speed:
        """Of the step that ends now, in which this process saw so many pixels, padding included."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        tflops = self.flops * pixels / seconds / 1e12 if self.flops else None
        mfu = tflops / self.peak if tflops and self.peak else None
        return Speed(self.images / seconds, self._waited / seconds, memory_bytes(self.place), tflops, mfu)


def count_flops(work: Callable[[], object]) -> int:
    """Floating point operations of the matrix products and convolutions of some work, 2 for a product with a sum."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def memory_bytes(place: torch.device) -> int:
    """The most memory that was in use so far."""
    if place.type == "cuda":
        return torch.cuda.max_memory_allocated(place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak(place: torch.device, precision: str) -> float:
    """TFLOP/s of a device, 0 where that is not known."""
    if place.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(place)
    return next((rates[precision != "bf16"] for known, rates in PEAKS.items() if known in name), 0.0)
