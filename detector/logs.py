"""Where figures of training go beside `train.jsonl`: TensorBoard, and Weights & Biases where it is asked for."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any

import orjson

from detector.config import TrainSettings
from llmdet.errors import ExtraError

Write = Callable[[int, Mapping[str, float]], None]  # step, figures by name
PROJECT = "llmdet-data"  # of Weights & Biases, where WANDB_PROJECT names no other


@contextlib.contextmanager
def open_logs(out: str | Path, settings: TrainSettings) -> Iterator[Write]:
    """A writer into the logs that the settings name, below the folder of a run.

    Raises ExtraError where one is not installed.
    """
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(LOGS[name](Path(out), settings)) for name in settings.loggers]

        def write(step: int, figures: Mapping[str, float]) -> None:
            for writer in writers:
                writer(step, figures)

        yield write


@contextlib.contextmanager
def tensorboard(out: Path, settings: TrainSettings) -> Iterator[Write]:
    """Scalars into `log/`."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(out / "log"))

    def write(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    try:
        yield write
    finally:
        writer.close()


@contextlib.contextmanager
def wandb(out: Path, settings: TrainSettings) -> Iterator[Write]:
    """One run of Weights & Biases for a folder, however often it goes on; its own files are in `wandb/`.

    Key, project and mode (WANDB_MODE=offline needs no network) are those of the environment.
    """
    try:
        import wandb as library
    except ModuleNotFoundError as error:
        raise ExtraError.of("wandb", "wandb") from error
    (out / "wandb").mkdir(parents=True, exist_ok=True)
    run = library.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=out.name,
        id=_id(out / "wandb" / "id"),
        dir=str(out),
        config=asdict(settings),
        resume="allow",
        settings=library.Settings(silent=True, console="off"),
    )
    run.define_metric("*", step_metric="step")  # a run that goes on after a kill repeats steps
    try:
        yield lambda step, figures: run.log({"step": step, **figures})
    finally:
        run.finish()


@contextlib.contextmanager
def record_log(out: str | Path, rank: int) -> Iterator[Callable[[int, list[str]], None]]:
    """A writer of `records-RANK.jsonl`: which records a step of this process had."""
    Path(out).mkdir(parents=True, exist_ok=True)
    with FileIO(Path(out) / f"records-{rank}.jsonl", "ab") as log:
        yield lambda step, names: _write(log, {"step": step, "records": names})


def _write(log: FileIO, entry: dict[str, Any]) -> None:
    log.write(orjson.dumps(entry) + b"\n")


def _id(note: Path) -> str:
    if not note.exists():
        note.write_text(secrets.token_hex(8))
    return note.read_text()


LOGS = {"tensorboard": tensorboard, "wandb": wandb}
