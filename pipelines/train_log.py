"""What a training run says of itself: `train.jsonl`, one entry for each step, written by its first process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from pipelines.live import Teller
from pipelines.parts import Progress

if TYPE_CHECKING:
    from detector.train import StepReport

LOG = "train.jsonl"
_LOSSES = ("loss", "last")  # names of what `curve` shows begin so
_LOOK_S = 0.5


def entry(report: StepReport) -> bytes:
    """The line of a step. Its `speed/...` are of this run on this machine; all else is the same in every run."""
    rates = {"learning_rate": report.learning_rate, "gradient": report.gradient}
    figures = {"step": report.step, "loss": report.loss, **report.parts, **rates, **report.speed.values()}
    return orjson.dumps(figures) + b"\n"


def line(figures: dict[str, Any]) -> str:
    """An entry for people, in one line."""
    said = [f"loss {figures['loss']:.3f}"]
    if "speed/images_per_second" in figures:
        said.append(f"{figures['speed/images_per_second']:.1f} images/s")
        said.append(f"waits for data {figures['speed/data_wait']:.0%}")
        said.append(f"{figures['speed/memory_bytes'] / 2**30:.1f} GiB")
    if "speed/mfu" in figures:
        said.append(f"MFU {figures['speed/mfu']:.0%}")
    return ", ".join(said)


@contextlib.contextmanager
def watch(folder: str, steps: int, progress: Progress | None) -> Iterator[None]:
    """Show progress from the log; on a cluster the folder is shared storage."""
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(os.path.join(folder, LOG), steps, progress, stop), daemon=True)
    if progress:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if progress:
            thread.join()


def _follow(path: str, steps: int, progress: Progress | None, stop: threading.Event) -> None:
    while progress and not stop.wait(_LOOK_S):
        with contextlib.suppress(OSError, orjson.JSONDecodeError, IndexError), open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            last = orjson.loads(file.read().splitlines()[-1])
            if isinstance(progress, Teller):
                progress.tell(line(last))
            progress(last["step"], steps)


def curve(folder: str) -> tuple[list[dict[str, float]], int]:
    """The losses of a run, one entry per step, and how many lines are no entry: a killed run leaves half of one.

    Where a continued run repeated steps the later entry counts.
    """
    path = os.path.join(folder, LOG)
    if not os.path.exists(path):
        return [], 0
    with open(path, "rb") as file:
        found = [_losses(line) for line in file if line.strip()]
    rows = [row for row in found if row is not None]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())], len(found) - len(rows)


def _losses(line: bytes) -> dict[str, float] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    return {name: value for name, value in row.items() if name == "step" or name.split("/")[0] in _LOSSES}
