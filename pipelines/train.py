"""train: the detector learns from `groundingcap/`, as processes of Ray Train."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from llmdet import files
from llmdet.errors import LlmdetError, MissingError, SettingError
from llmdet.workspace import Manifest, Workspace
from pipelines.cluster import cluster
from pipelines.export import info_of
from pipelines.parts import Progress, failure, raise_failure
from pipelines.recipe import TrainSection
from pipelines.settings import build

if TYPE_CHECKING:
    from ray.train import WorkerGroupError

UNTRAINED = "untrained"  # the model before its first step, for comparison
LOG = "train.jsonl"
RESULT = "result.json"
INPUTS = "inputs.json"  # what the run of a folder began with


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """Where the model is and how it went."""

    folder: str
    untrained: str
    steps: int
    first_step: int  # 0, or where an interrupted run went on
    losses: tuple[float, ...]
    seconds: float


def train(
    workspace: Workspace, section: TrainSection, out: str | None = None, progress: Progress | None = None
) -> TrainOutcome:
    """Train to the section's steps, going on from the newest checkpoint in `out` (default `detector/<name>/`).

    Raises MissingError when there is nothing merged, SettingError for settings that do not fit and where `out` holds a
    run on other records, TrainingError when a loss is not a number.
    """
    folder = files.absolute(out or workspace.path("detector", section.name))
    if "://" in folder:
        raise MissingError(f"checkpoints are written to a folder of this machine; {folder} is none: give --out")
    merged = workspace.groundingcap().require("run: llmdet-data merge")
    settings = section.build_settings()
    config = {
        "settings": orjson.dumps(section.values()).decode(),
        "model": {"start": section.start, "short_side": section.short_side, "long_side": section.long_side},
        "records": workspace.groundingcap().url,
        "roots": {name: info_of(workspace, name).images for name in workspace.sources()},
        "out": folder,
    }
    os.makedirs(folder, exist_ok=True)
    _require_same(folder, {"records": _content(merged), "model": config["model"], "seed": settings.seed})
    with cluster(folder), _watch(folder, settings.steps, progress):
        result = _launch(config, section)
    raise_failure(result)
    return TrainOutcome(folder, files.join(folder, UNTRAINED), **result)


def _content(table: Manifest) -> str:
    """What the rows are, whatever the table is called and wherever it lies."""
    return files.sha256(orjson.dumps([[part.rows, part.sha256] for part in table.parts]))[:16]


def _require_same(folder: str, inputs: dict[str, Any]) -> None:
    """Note what a run begins with. Raises SettingError where it would go on from a run that began with other things.

    A finished run of other records would pass for one of these.
    """
    note = os.path.join(folder, INPUTS)
    before = files.read_json(note) if os.path.exists(note) else inputs
    other = [name for name, value in inputs.items() if before.get(name) != value]
    if other and any(name.startswith("step-") for name in os.listdir(folder)):
        raise SettingError(
            f"{folder} holds a detector that was trained with other {' and '.join(other)}; "
            "choose another --out (in a recipe train.name), or remove the folder to start anew"
        )
    if other:
        shutil.rmtree(os.path.join(folder, UNTRAINED), ignore_errors=True)  # of a run that never got to a checkpoint
    files.write_json(note, inputs)


def _launch(config: dict[str, Any], section: TrainSection) -> dict[str, Any]:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    result = os.path.join(config["out"], RESULT)
    with contextlib.suppress(FileNotFoundError):
        os.remove(result)  # of an earlier run
    with tempfile.TemporaryDirectory(prefix="llmdet-train-") as storage:
        trainer = TorchTrainer(
            _worker,
            train_loop_config=config,
            torch_config=TorchConfig(backend="nccl" if section.gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(num_workers=section.workers, use_gpu=section.gpu),
            run_config=ray.train.RunConfig(name="train", storage_path=storage),
        )
        try:
            trainer.fit()
        except ray.train.WorkerGroupError as error:
            if not os.path.exists(result):  # else a process says there what stopped it, and Ray has stopped the others
                raise _died(error, config["out"]) from error
    return dict(files.read_json(result))


def _died(error: WorkerGroupError, out: str) -> Exception:
    """One line for a process that was killed, mostly for want of memory. Anything else is a bug and stays as it is."""
    from ray.exceptions import RayActorError

    causes = {rank: getattr(cause, "health_check_failure", cause) for rank, cause in error.worker_failures.items()}
    killed = sorted(rank for rank, cause in causes.items() if isinstance(cause, RayActorError))
    if not killed:
        return error
    ranks = ", ".join(map(str, killed))
    return LlmdetError(
        f"training process {ranks} was killed (is there enough memory?); "
        f"the same command goes on from the newest checkpoint in {out}"
    )


def _worker(config: dict[str, Any]) -> None:
    """One training process: everything that matters is on disk when it ends."""
    import ray.train

    from detector.config import ModelSettings, TrainSettings
    from detector.data import TrainData
    from detector.train import StepReport
    from detector.train import train as run

    context = ray.train.get_context()
    first = context.get_world_rank() == 0
    out = config["out"]
    try:
        settings = build(TrainSettings, orjson.loads(config["settings"]), "train.settings")
        model = ModelSettings(**config["model"])
        if first and not os.path.exists(os.path.join(out, UNTRAINED, "config.json")):
            _write_untrained(model, settings.seed, os.path.join(out, UNTRAINED))
        with open(os.path.join(out, LOG), "ab") as log:

            def on_step(report: StepReport) -> None:
                if first:
                    log.write(orjson.dumps({"step": report.step, "loss": report.loss, **report.parts}) + b"\n")
                    log.flush()

            done = run(settings, model, TrainData(config["records"], config["roots"]), out, on_step)
        result: dict[str, Any] = {
            "steps": done.steps,
            "first_step": done.first_step,
            "losses": done.losses,
            "seconds": round(done.seconds, 3),
        }
    except LlmdetError as error:
        files.write_json(os.path.join(out, RESULT), failure(error))
        if context.get_world_size() > 1:
            raise  # the others wait for this one's gradient: Ray stops them
        return
    if first:
        files.write_json(os.path.join(out, RESULT), result)


def _write_untrained(model: Any, seed: int, folder: str) -> None:
    from pathlib import Path

    from detector import checkpoint

    os.makedirs(folder, exist_ok=True)
    checkpoint.write_model(Path(folder), checkpoint.start(model, seed))


@contextlib.contextmanager
def _watch(folder: str, steps: int, progress: Progress | None) -> Iterator[None]:
    """Show progress from the log that the first process writes; on a cluster the folder is shared storage."""
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


def _follow(path: str, steps: int, progress: Callable[[int, int | None], None] | None, stop: threading.Event) -> None:
    while progress and not stop.wait(0.5):
        with contextlib.suppress(OSError, orjson.JSONDecodeError, IndexError), open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 4096))
            progress(orjson.loads(file.read().splitlines()[-1])["step"], steps)


def curve(folder: str) -> tuple[list[dict[str, float]], int]:
    """The log of a run, one entry per step, and how many lines are no entry: a killed run leaves half of one.

    Where a continued run repeated steps the later entry counts.
    """
    path = os.path.join(folder, LOG)
    if not os.path.exists(path):
        return [], 0
    with open(path, "rb") as file:
        found = [_entry(line) for line in file if line.strip()]
    rows = [row for row in found if row is not None]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())], len(found) - len(rows)


def _entry(line: bytes) -> dict[str, float] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
