"""Training, in one loop. Works alone and inside a process group (Ray Train, torchrun): then gradients are averaged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from detector import checkpoint
from detector.averages import Averages
from detector.captions import start as captions
from detector.checkpoint import Parts
from detector.config import ModelSettings, TrainSettings
from detector.data import Batch, GroundingDataset, TrainData, loader
from detector.group import Group, group_of
from detector.learner import Learned, Learner, TrainingError, compile_layers, compute_loss, pixels_of
from detector.logs import open_logs, record_log
from detector.meters import Meter, Speed
from detector.model import parameters_without_gradient
from detector.optimizers import build_optimizer, freeze
from detector.samplers import Order, StepSampler, order_of

__all__ = ["StepReport", "TrainResult", "TrainingError", "compute_loss", "train"]


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
    speed: Speed
    checkpoint: str | None  # folder, where one was written after this step

    def figures(self) -> dict[str, float]:
        """What logs show of a step."""
        rates = {"learning_rate": self.learning_rate, "gradient": self.gradient}
        return {**self.parts, "loss/total": self.loss, **rates, **self.speed.values()}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Where the model is, after how many steps, the first of which was run now, and the losses of those of now."""

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
    *,
    until: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train to `settings.steps`, continuing from the newest checkpoint in `out` if there is one.

    A call ends before that with a checkpoint after step `until`, and after the step in which `stop` says so in any
    process; the next one goes on. Continued and unbroken runs end with the same weights, bit for bit on a CPU.
    In a process group every process calls this with the same arguments. Raises TrainingError, MissingError,
    SettingError, ExtraError.
    """
    began = time.monotonic()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    place = torch.device(device or (f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"))
    group = group_of(settings, place)
    parts, dataset = _begin(settings, model, data, Path(out), place)
    learner, first = _learner(parts, settings, group, out)
    sampler = StepSampler(order_of(dataset.table, settings), settings, first, group.rank, group.world)
    batches = loader(dataset, sampler, parts.model.config.num_queries, settings.readers)
    meter = Meter(settings.batch_size, place, settings.precision)
    last = max(first, min(settings.steps, until or settings.steps))

    step, losses = first, []
    with _logs(out, settings, group.rank) as write_logs:
        # The range comes first: no batch is opened for a step that is not run.
        for step, mine in zip(range(first + 1, last + 1), meter.waiting(_steps(batches, settings)), strict=False):
            if step == first + 1 and place.type == "cuda":
                meter.flops = learner.flops_of_pixel(mine[0])
            learned = learner.learn(step - 1, mine)
            losses.append(learned.loss)
            ends = step == last or (stop is not None and group.sum(float(stop())) > 0)
            written = ends or step % settings.checkpoint_every == 0
            if written and group.rank == 0:
                checkpoint.write(out, step, parts, learner.optimizer, settings, learner.averages)
            speed = meter.speed(sum(map(pixels_of, mine)))
            report = _report(step, settings, learned, time.monotonic() - began, speed, out if written else None)
            write_logs(report, mine)
            if on_step is not None:
                on_step(report)
            if ends:
                break
    if group.rank == 0 and step == settings.steps:
        checkpoint.publish(out, checkpoint.place_of(out, step))
    group.wait()
    newest = str(checkpoint.place_of(out, step))
    return TrainResult(str(out), newest, step, first, tuple(losses), time.monotonic() - began)


def _begin(
    settings: TrainSettings, model: ModelSettings, data: TrainData, out: Path, place: torch.device
) -> tuple[Parts, GroundingDataset]:
    """The model as it starts, on its device, with what does not learn frozen; and the samples that it learns from."""
    parts = checkpoint.start(model, settings.seed)
    parts.model.train().to(place)
    limit = parts.model.config.max_text_len
    dataset = GroundingDataset(data, parts.tokenizer, parts.pixels, limit, settings.seed, settings.data)
    if settings.captions:
        rows = (dataset.table[row] for row in order_of(dataset.table, settings).learned)
        heads = captions.start(settings.captions, parts.model.config, rows, out, settings.seed, place)
        parts = replace(parts, captions=heads)
    freeze(parts, settings)
    _freeze_idle(parts, dataset, settings, place)
    return parts, dataset


def _freeze_idle(parts: Parts, dataset: GroundingDataset, settings: TrainSettings, place: torch.device) -> None:
    """Freeze what no loss reaches: final norms of some backbones, whose gradient DDP would wait for.

    One backward pass finds them, whatever the backbone; weights do not change. One image is enough, and more would
    not fit where the batch is meant for several GPUs.
    """
    model = parts.model
    if not any(weight.requires_grad for weight in model.parameters()):
        return
    one = replace(settings, batch_size=1, accumulate=1)
    sampler = StepSampler(Order(len(dataset), settings.seed, 1), one)
    batch = next(iter(loader(dataset, sampler, model.config.num_queries, readers=0)))
    compute_loss(model, batch.to(place), settings).total.backward()
    unused = set(parameters_without_gradient(model))
    for name, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and name not in unused)
    model.zero_grad(set_to_none=True)


def _learner(parts: Parts, settings: TrainSettings, group: Group, out: str | Path) -> tuple[Learner, int]:
    """What learns, as the newest checkpoint of the run left it, and after which step that was."""
    optimizer = build_optimizer(parts, settings)
    averages = Averages(parts.named_parameters(), settings.ema) if settings.ema else None
    saved = checkpoint.checkpoints(out)
    first = checkpoint.resume(saved[-1], parts, optimizer, settings, averages) if saved else 0
    if settings.compile:
        compile_layers(parts.model)
    net, heads = group.distribute(parts.model), group.distribute(parts.captions)
    return Learner(parts, optimizer, averages, settings, group, net, heads), first


def _steps(batches: Iterable[Batch], settings: TrainSettings) -> Iterator[tuple[Batch, ...]]:
    """The batches of each step."""
    found = iter(batches)
    return zip(*[found] * settings.accumulate, strict=True)


def _report(
    step: int, settings: TrainSettings, learned: Learned, seconds: float, speed: Speed, out: str | Path | None
) -> StepReport:
    written = None if out is None else str(checkpoint.place_of(out, step))
    rate, gradient = learned.learning_rate, learned.gradient
    return StepReport(step, settings.steps, learned.loss, learned.parts, rate, gradient, seconds, speed, written)


@contextlib.contextmanager
def _logs(
    out: str | Path, settings: TrainSettings, rank: int
) -> Iterator[Callable[[StepReport, Sequence[Batch]], None]]:
    """A writer of what logs are to have of a step; figures are those of the first process."""
    with contextlib.ExitStack() as stack:
        figures = stack.enter_context(open_logs(out, settings)) if rank == 0 else None
        records = stack.enter_context(record_log(out, rank)) if settings.log_records else None

        def write(report: StepReport, batches: Sequence[Batch]) -> None:
            if records is not None:
                records(report.step, [name for batch in batches for name in batch.names])
            if figures is not None and (report.step % settings.log_every == 0 or report.checkpoint):
                figures(report.step, report.figures())

        yield write
