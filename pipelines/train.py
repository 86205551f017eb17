"""train: the detector learns from `groundingcap/`, as processes of Ray Train."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from llmdet import files
from llmdet.errors import LlmdetError, MissingError, SettingError
from llmdet.workspace import Manifest, Workspace
from pipelines.cluster import cluster
from pipelines.evaluate import evaluate
from pipelines.export import info_of
from pipelines.lease import hold
from pipelines.parts import Progress, raise_failure
from pipelines.recipe import TrainSection
from pipelines.sets import EvaluationSet
from pipelines.stop import draining
from pipelines.train_log import watch
from pipelines.train_worker import RESULT, UNTRAINED, work

if TYPE_CHECKING:
    from ray.train import WorkerGroupError

    from detector.config import TrainSettings

INPUTS = "inputs.json"  # what the run of a folder began with
TINY_LLM = "llm"  # the language model that was made from the records: detector.captions.start.TINY
Metrics = dict[str, dict[str, float]]  # set -> figures


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """Where the model is and how it went."""

    folder: str
    untrained: str
    steps: int
    first_step: int  # 0, or where an interrupted run went on
    losses: tuple[float, ...]
    seconds: float
    evaluated: dict[str, Metrics] = field(default_factory=dict)  # name of a checkpoint -> its figures, on the way


def train(
    workspace: Workspace,
    section: TrainSection,
    out: str | None = None,
    progress: Progress | None = None,
    sets: Sequence[EvaluationSet] = (),
) -> TrainOutcome:
    """Train to the section's steps, going on from the newest checkpoint in `out` (default `detector/<name>/`).

    Every `settings.evaluate_every` steps the processes end with a checkpoint, which is evaluated on the sets, and go
    on from it. SIGTERM ends them after the step that they are in, with a checkpoint and SystemExit. Raises MissingError
    when there is nothing merged, SettingError for settings that do not fit and where `out` holds a run on other
    records, BusyError where another driver trains in `out`, TrainingError when a loss is not a number.
    """
    folder = folder_of(workspace, section, out)
    merged = workspace.groundingcap().require("run: llmdet-data merge")
    settings = section.build_settings()
    if settings.evaluate_every and not sets:
        raise SettingError("settings.evaluate_every needs sets: give a --recipe with an evaluate section")
    config = {
        "settings": orjson.dumps(section.values()).decode(),
        "model": {"start": section.start, "short_side": section.short_side, "long_side": section.long_side},
        "records": workspace.groundingcap().url,
        "roots": {name: info_of(workspace, name).images for name in workspace.sources()},
        "out": folder,
    }
    os.makedirs(folder, exist_ok=True)
    _require_same(folder, {"records": _content(merged), "model": config["model"], "seed": settings.seed})
    rounds: list[dict[str, Any]] = []
    evaluated: dict[str, Metrics] = {}
    with hold(folder), cluster(folder), watch(folder, settings.steps, progress):
        for until in _rounds(settings):
            if until == settings.steps or newest(folder) < until:
                with draining():
                    result = _launch(config | {"until": until}, section)
                raise_failure(result)
                rounds.append(result)
            if until < settings.steps:
                evaluated |= _evaluate(folder, until, settings, sets, section.gpu)
    return _outcome(folder, rounds, evaluated)


def folder_of(workspace: Workspace, section: TrainSection, out: str | None = None) -> str:
    """Where a run is written. Raises MissingError for what is no folder of this machine."""
    folder = files.absolute(out or workspace.path("detector", section.name))
    if "://" in folder:
        raise MissingError(f"checkpoints are written to a folder of this machine; {folder} is none: give --out")
    return folder


def newest(folder: str) -> int:
    """The step of the newest checkpoint of a run, 0 where there is none."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    steps = [name.removeprefix("step-") for name in names if name.startswith("step-")]
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def _rounds(settings: TrainSettings) -> Iterator[int]:
    """The steps that processes train to before they end: those to evaluate after, and the last one."""
    every = settings.evaluate_every
    yield from range(every, settings.steps, every) if every else ()
    yield settings.steps


def _outcome(folder: str, rounds: Sequence[dict[str, Any]], evaluated: dict[str, Metrics]) -> TrainOutcome:
    return TrainOutcome(
        folder=folder,
        untrained=files.join(folder, UNTRAINED),
        steps=rounds[-1]["steps"],
        first_step=rounds[0]["first_step"],
        losses=tuple(loss for one in rounds for loss in one["losses"]),
        seconds=round(sum(one["seconds"] for one in rounds), 3),
        evaluated=evaluated,
    )


def _evaluate(
    folder: str, step: int, settings: TrainSettings, sets: Sequence[EvaluationSet], gpu: bool
) -> dict[str, Metrics]:
    """Figures of the checkpoint of a step, also in the logs. An older one that is gone has no more to say."""
    from detector.logs import open_logs

    name = f"step-{step:06d}"
    checkpoint = os.path.join(folder, name)
    if not os.path.isdir(checkpoint) or newest(folder) != step:
        return {}
    found = {
        one.name: one.metrics for one in evaluate(sets, checkpoint, files.join(folder, "evaluations", name), gpu=gpu)
    }
    with open_logs(folder, settings) as write:
        write(step, {f"evaluate/{title}/{key}": value for title, one in found.items() for key, value in one.items()})
    return {name: found}


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
        for name in (UNTRAINED, TINY_LLM):  # of a run that never got to a checkpoint
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    files.write_json(note, inputs)


def _launch(config: dict[str, Any], section: TrainSection) -> dict[str, Any]:
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    result = os.path.join(config["out"], RESULT)
    with contextlib.suppress(FileNotFoundError):
        os.remove(result)  # of an earlier run
    with tempfile.TemporaryDirectory(prefix="llmdet-train-") as storage:
        trainer = TorchTrainer(
            work,
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
