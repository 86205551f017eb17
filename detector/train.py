"""Training, in one loop. Works alone and inside a process group (Ray Train, torchrun): then gradients are averaged."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detector import checkpoint
from detector.captions import start as captions
from detector.checkpoint import Parts
from detector.config import ModelSettings, TrainSettings
from detector.criterion import Loss, criterion
from detector.data import Batch, GroundingDataset, TrainData, loader
from detector.model import OpenDetector, parameters_without_gradient
from detector.samplers import Order, StepSampler, order_of
from llmdet.errors import LlmdetError, SettingError

M = TypeVar("M", bound=nn.Module | None)


class TrainingError(LlmdetError):
    """Training cannot go on: a loss or gradient is not a number."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What `on_step` gets after each step, in every process; losses are those of its own share of the batch."""

    step: int  # 1 after the first
    steps: int
    loss: float
    parts: dict[str, float]
    learning_rate: float
    gradient: float  # L2 norm before clipping
    seconds: float  # since training began
    checkpoint: str | None  # folder, where one was written after this step


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where the model is, how many steps were run now and in all, and the losses of the steps of now."""

    folder: str
    checkpoint: str
    steps: int
    first_step: int
    losses: tuple[float, ...]
    seconds: float


def train(
    settings: TrainSettings,
    model: ModelSettings,
    data: TrainData,
    out: str | Path,
    on_step: Callable[[StepReport], None] | None = None,
    device: str | None = None,
) -> TrainResult:
    """Train to `settings.steps`, continuing from the newest checkpoint in `out` if there is one.

    Continued and unbroken runs end with the same weights, bit for bit on a CPU. In a process group every process
    calls this with the same arguments. Raises TrainingError, MissingError, SettingError.
    """
    rank, world = _processes(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    place = torch.device(device or (f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"))
    parts = checkpoint.start(model, settings.seed)
    net = parts.model
    module: nn.Module = net.train()
    module.to(place)
    dataset = GroundingDataset(
        data, parts.tokenizer, parts.pixels, net.config.max_text_len, settings.seed, settings.data
    )
    order = order_of(dataset.table, settings)
    if settings.captions:
        rows = (dataset.table[row] for row in range(len(dataset.table)))
        heads = captions.start(settings.captions, net.config, rows, Path(out), settings.seed, place)
        parts = replace(parts, captions=heads)
    _freeze(net, dataset, settings, place)
    optimizer = build_optimizer(parts, settings)
    saved = checkpoint.checkpoints(out)
    first = checkpoint.resume(saved[-1], parts, optimizer, settings) if saved else 0
    learner, spoken = _distribute(net, world), _distribute(parts.captions, world)
    batches = loader(
        dataset, StepSampler(order, settings, first, rank, world), net.config.num_queries, settings.readers
    )

    began, losses, folder = time.monotonic(), [], saved[-1] if saved else Path(out)
    with _log(out, rank) as write_log:
        for step, batch in enumerate(batches, first):
            torch.manual_seed(hash((settings.seed, rank, step)))  # dropout depends on the step, not on what came before
            rate = learning_rate(settings, step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            loss = compute_loss(learner, batch.to(place), settings, world, spoken)
            optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            gradient = float(nn.utils.clip_grad_norm_(parts.named_parameters().values(), settings.clip))
            if not math.isfinite(gradient):
                raise TrainingError(_not_finite(step, loss, gradient, batch))
            optimizer.step()
            losses.append(float(loss.total))
            written = None
            if (step + 1) % settings.checkpoint_every == 0 or step + 1 == settings.steps:
                if rank == 0:
                    folder = checkpoint.write(out, step + 1, parts, optimizer, settings)
                written = str(folder)
            report = _report(step + 1, settings, loss, rate, gradient, time.monotonic() - began, written)
            write_log(report, (step + 1) % settings.log_every == 0 or written is not None)
            if on_step is not None:
                on_step(report)
    if rank == 0:
        checkpoint.publish(out, folder)
    if world > 1:
        dist.barrier()
    return TrainResult(str(out), str(folder), settings.steps, first, tuple(losses), time.monotonic() - began)


def compute_loss(
    model: nn.Module, batch: Batch, settings: TrainSettings, world: int = 1, heads: nn.Module | None = None
) -> Loss:
    """Loss of one process's share of a batch, divided by the mean number of boxes over the processes.

    With caption heads theirs is added, which reaches the model through its features.
    """
    cast = torch.autocast(batch.pixel_values.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    with cast:
        outputs = model(batch.pixel_values, batch.pixel_mask, batch.input_ids, batch.attention_mask, noise=batch.noise)
    positives = torch.tensor(float(sum(batch.targets.counts)))
    if world > 1:
        positives = positives.to(batch.pixel_values.device)
        dist.all_reduce(positives)
    divisor = max(float(positives) / world, 1.0)
    loss = criterion(outputs.matched, outputs.denoised, batch.noise, batch.targets, settings.criterion, divisor)
    if heads is None:
        return loss
    with cast:
        return loss.plus(heads(outputs.features, loss.match_BQ, batch.words))


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero; `step` counts from 0."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(parts: Parts, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with a slower rate for the image backbone and the text encoder, and one of their own for captions."""
    rate = settings.captions.rate if settings.captions else 1.0
    factors = {"usual": 1.0, "slow": settings.slow_rate, "captions": rate}
    groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in factors}
    for name, parameter in parts.named_parameters().items():
        if parameter.requires_grad:
            kind = "captions" if name.startswith("captions.") else "slow" if "backbone" in name else "usual"
            groups[kind].append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "factor": factors[kind]} for kind, parameters in groups.items() if parameters],
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _distribute(module: M, world: int) -> M | DistributedDataParallel:
    """The module, with its gradients averaged over the processes where there are several."""
    if world == 1 or module is None or not any(parameter.requires_grad for parameter in module.parameters()):
        return module
    return DistributedDataParallel(module)


def _processes(settings: TrainSettings) -> tuple[int, int]:
    """Rank and number of processes. Raises SettingError where the batch cannot be divided among them."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    world = dist.get_world_size()
    if settings.batch_size % world:
        raise SettingError(f"train.batch_size {settings.batch_size} must be a multiple of the {world} processes")
    return dist.get_rank(), world


def _freeze(model: OpenDetector, dataset: GroundingDataset, settings: TrainSettings, place: torch.device) -> None:
    """Freeze what does not learn: all of the model while captions are aligned to it, else what no loss reaches.

    The latter are final norms of some backbones, whose gradient DDP would wait for. One backward pass finds them,
    whatever the backbone; weights do not change. One image is enough, and more would not fit where the batch is
    meant for several GPUs.
    """
    if settings.captions and settings.captions.stage == "align":
        model.requires_grad_(False).eval()
        return
    sampler = StepSampler(Order(len(dataset), settings.seed, 1), settings, world=settings.batch_size)
    batch = next(iter(loader(dataset, sampler, model.config.num_queries, 0)))
    compute_loss(model, batch.to(place), settings).total.backward()
    unused = set(parameters_without_gradient(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name not in unused)
    model.zero_grad(set_to_none=True)


def _not_finite(step: int, loss: Loss, gradient: float, batch: Batch) -> str:
    return (
        f"gradient norm {gradient} at step {step + 1} (loss here {float(loss.total)}); records of this process: "
        f"{', '.join(batch.names)}. Lower the learning rate or use precision fp32; the last checkpoint is good."
    )


def _report(
    step: int, settings: TrainSettings, loss: Loss, rate: float, gradient: float, seconds: float, written: str | None
) -> StepReport:
    parts = {name: float(value) for name, value in loss.parts.items()}
    return StepReport(step, settings.steps, float(loss.total), parts, rate, gradient, seconds, written)


@contextlib.contextmanager
def _log(out: str | Path, rank: int) -> Iterator[Callable[[StepReport, bool], None]]:
    """A writer of TensorBoard scalars into `out/log`; does nothing in processes other than the first."""
    if rank:
        yield lambda report, due: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(Path(out) / "log"))

    def write(report: StepReport, due: bool) -> None:
        if due:
            values = {**report.parts, "loss/total": report.loss, "learning_rate": report.learning_rate}
            for name, value in {**values, "gradient": report.gradient}.items():
                writer.add_scalar(name, value, report.step)

    try:
        yield write
    finally:
        writer.close()
