"""One step of learning: the loss of its batches, the gradient over all processes, the step of the optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detector.averages import Averages
from detector.checkpoint import Parts
from detector.config import TrainSettings
from detector.criterion import Loss, criterion
from detector.data import Batch
from detector.group import Group, unsynced
from detector.meters import count_flops
from detector.model import OpenDetector
from detector.schedules import learning_rate
from llmdet.errors import LlmdetError


class TrainingError(LlmdetError):
    """Training cannot go on: a loss or gradient is not a number."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a step was: losses of this process's share of the images, and the gradient of all of them."""

    loss: float
    parts: dict[str, float]
    learning_rate: float
    gradient: float  # L2 norm before clipping


@dataclass(frozen=True)
class Learner:
    """What learns, and how. `net` and `heads` are the detector and the caption heads, with their gradients averaged
    over the processes where there are several."""

    parts: Parts
    optimizer: torch.optim.Optimizer
    averages: Averages | None
    settings: TrainSettings
    group: Group
    net: nn.Module
    heads: nn.Module | None

    def learn(self, step: int, batches: Sequence[Batch]) -> Learned:
        """One step over this process's batches; `step` counts from 0. Raises TrainingError; nothing is learned then."""
        settings = self.settings
        torch.manual_seed(hash((settings.seed, self.group.rank, step)))  # dropout depends on the step, not on the past
        rate = learning_rate(settings, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.optimizer.zero_grad(set_to_none=True)
        loss, parts = self._differentiate(batches)
        weights = self.parts.named_parameters().values()
        gradient = float(nn.utils.clip_grad_norm_(weights, settings.clip))
        self._require_finite(step, loss, gradient, batches)
        self.optimizer.step()
        if self.averages:
            self.averages.update(step)
        return Learned(loss, parts, rate, gradient)

    def _differentiate(self, batches: Sequence[Batch]) -> tuple[float, dict[str, float]]:
        """Backward passes of all batches of a step; the sums of their losses and parts.

        Boxes are counted over the whole step and all processes, so its loss is that of one batch of all its images.
        Caption losses are means over the tokens of each batch, and their mean over the batches.
        """
        boxes = self.group.sum(float(sum(sum(batch.targets.counts) for batch in batches)))
        divisor = max(boxes / self.group.world, 1.0)
        losses = [self._backward(batch, divisor) for batch in batches[:-1]]
        last = compute_loss(self.net, self._here(batches[-1]), self.settings, divisor=divisor, heads=self.heads)
        last.total.backward()
        losses.append(last)
        rows = [torch.stack([one.total.detach(), *one.parts.values()]).double() for one in losses]
        total, *parts = torch.stack(rows).sum(0).tolist()
        return total, dict(zip(last.parts, parts, strict=True))

    def _backward(self, batch: Batch, divisor: float) -> Loss:
        """A pass whose gradient stays in this process: that of the last batch brings all of them together."""
        with unsynced(self.net, self.heads):
            loss = compute_loss(self.net, self._here(batch), self.settings, divisor=divisor, heads=self.heads)
            loss.total.backward()
        return loss

    def _require_finite(self, step: int, loss: float, gradient: float, batches: Sequence[Batch]) -> None:
        """Raise TrainingError with the records of the processes whose loss is not a number; of all where none's is."""
        if math.isfinite(loss) and math.isfinite(gradient):
            return
        names = tuple(name for batch in batches for name in batch.names)
        # The gradient is that of all processes, so all of them come here together.
        told = [(loss, names)] if math.isfinite(gradient) else self.group.gather((loss, names))
        odd = [records for its, records in told if not math.isfinite(its)] or [records for _, records in told]
        losses = ", ".join(f"{its:g}" for its, _ in told)
        raise TrainingError(
            f"gradient norm {gradient:g} and loss {losses} at step {step + 1}; records: "
            f"{', '.join(name for records in odd for name in records)}. "
            "Lower the learning rate or use precision fp32; the last checkpoint is good."
        )

    def flops_of_pixel(self, batch: Batch) -> float:
        """Work of a forward and a backward pass over a batch, for each of its pixels. Nothing is learned."""

        def work() -> None:
            compute_loss(self.parts.model, self._here(batch), self.settings, heads=self.parts.captions).total.backward()

        with unsynced(self.net, self.heads):
            flops = count_flops(work)
        self.optimizer.zero_grad(set_to_none=True)
        return flops / pixels_of(batch)

    def _here(self, batch: Batch) -> Batch:
        return batch.to(self.group.place)


def pixels_of(batch: Batch) -> int:
    """Pixels of the canvas of a batch, padding included."""
    return batch.pixel_mask.numel()


def compute_loss(
    model: nn.Module,
    batch: Batch,
    settings: TrainSettings,
    *,
    divisor: float | None = None,
    heads: nn.Module | None = None,
) -> Loss:
    """Loss of a batch, divided by its number of boxes or by what is given.

    With caption heads theirs is added, which reaches the model through its features; of a step that is computed in
    several batches each has its share of it.
    """
    cast = torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    with cast:
        outputs = model(batch.pixel_values, batch.pixel_mask, batch.input_ids, batch.attention_mask, noise=batch.noise)
    divisor = divisor or max(float(sum(batch.targets.counts)), 1.0)
    loss = criterion(outputs.matched, outputs.denoised, batch.noise, batch.targets, settings.criterion, divisor)
    if heads is None:
        return loss
    with cast:
        spoken: dict[str, Tensor] = heads(outputs.features, loss.match_BQ, batch.words)
    return loss.plus({name: one / settings.accumulate for name, one in spoken.items()})


def compile_layers(model: OpenDetector, backend: str = "inductor") -> None:
    """Let torch compile what takes the time: the image backbone, and the layers of encoder and decoder.

    In place, so that names of weights stay. What torch cannot compile runs as it is, with a warning from torch: sizes
    that change from batch to batch are too much for it in some convolutional backbones.
    """
    torch._dynamo.config.suppress_errors = True
    inner = model.model
    for module in (inner.backbone, *inner.encoder.layers, *inner.decoder.layers):
        module.compile(dynamic=True, backend=backend)
