"""One training process of Ray Train: everything that matters is on disk when it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from llmdet import files
from llmdet.errors import LlmdetError
from pipelines.parts import failure
from pipelines.settings import build
from pipelines.stop import stopping
from pipelines.train_log import LOG, entry

if TYPE_CHECKING:
    from detector.config import ModelSettings
    from detector.train import TrainResult

RESULT = "result.json"
UNTRAINED = "untrained"  # the model before its first step, for comparison


def work(config: dict[str, Any]) -> None:
    """Train as the driver says in `pipelines.train`, to step `until` or until it is sent SIGTERM; write the result."""
    import ray.train

    context = ray.train.get_context()
    result = os.path.join(config["out"], RESULT)
    try:
        done = _train(config, first=context.get_world_rank() == 0)
    except LlmdetError as error:
        files.write_json(result, failure(error))
        if context.get_world_size() > 1:
            raise  # the others wait for this one's gradient: Ray stops them
        return
    if context.get_world_rank() == 0:
        told = {"steps": done.steps, "first_step": done.first_step, "losses": done.losses}
        files.write_json(result, told | {"seconds": round(done.seconds, 3)})


def _train(config: dict[str, Any], first: bool) -> TrainResult:
    from detector.config import ModelSettings, TrainSettings
    from detector.data import TrainData
    from detector.train import StepReport, train

    out = config["out"]
    settings = build(TrainSettings, orjson.loads(config["settings"]), "train.settings")
    model = ModelSettings(**config["model"])
    if first and not os.path.exists(os.path.join(out, UNTRAINED, "config.json")):
        _write_untrained(model, settings.seed, Path(out, UNTRAINED))
    with open(os.path.join(out, LOG), "ab", buffering=0) as log:

        def on_step(report: StepReport) -> None:
            if first:
                log.write(entry(report))

        data = TrainData(config["records"], config["roots"])
        return train(settings, model, data, out, on_step, until=config["until"], stop=stopping)


def _write_untrained(model: ModelSettings, seed: int, folder: Path) -> None:
    from detector import checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_model(folder, checkpoint.start(model, seed))
