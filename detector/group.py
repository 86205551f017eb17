"""The processes that train together: one alone, or a process group that Ray Train or torchrun has made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detector.config import TrainSettings
from llmdet.errors import SettingError

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module | None)


@dataclass(frozen=True, slots=True)
class Group:
    """This process's number, how many there are, and the device of this one."""

    rank: int
    world: int
    place: torch.device

    def sum(self, value: float) -> float:
        """Of the values of all processes; each of them must ask."""
        if self.world == 1:
            return value
        found = torch.tensor(value, device=self.place, dtype=torch.float64)
        dist.all_reduce(found)
        return float(found)

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank; each of them must ask."""
        if self.world == 1:
            return [value]
        found: list[T | None] = [None] * self.world
        dist.all_gather_object(found, value)
        return [one for one in found if one is not None]

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    def distribute(self, module: M) -> M | DistributedDataParallel:
        """The module, with its gradients averaged over the processes where there are several."""
        if self.world == 1 or module is None or not any(weight.requires_grad for weight in module.parameters()):
            return module
        return DistributedDataParallel(module)


def group_of(settings: TrainSettings, place: torch.device) -> Group:
    """The group of this process. Raises SettingError where a step cannot be divided among its processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return Group(0, 1, place)
    world = dist.get_world_size()
    if settings.batch_size % (world * settings.accumulate):
        parts = f" times {settings.accumulate} parts of a step" if settings.accumulate > 1 else ""
        raise SettingError(f"train.batch_size {settings.batch_size} must be a multiple of the {world} processes{parts}")
    return Group(dist.get_rank(), world, place)


@contextlib.contextmanager
def unsynced(*modules: nn.Module | None) -> Iterator[None]:
    """A block whose gradients stay in this process, until a pass outside of it adds and averages all of them."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            if isinstance(module, DistributedDataParallel):
                stack.enter_context(module.no_sync())
        yield
