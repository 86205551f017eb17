"""Training processes that end before their time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.train
import ray.train.torch
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from detector.config import CaptionSettings
from llmdet import files
from llmdet.errors import LlmdetError, MissingError, SettingError
from pipelines.parts import failure, raise_failure
from pipelines.recipe import TrainSection
from pipelines.train import RESULT, _launch


def launched(monkeypatch: pytest.MonkeyPatch, out: Path, error: Exception, said: LlmdetError | None = None) -> Any:
    """What `_launch` makes of processes that end with an error, one of which may have said why."""

    class Ended:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def fit(self) -> None:
            if said:
                files.write_json(str(out / RESULT), failure(said))
            raise ray.train.WorkerGroupError("pages of Ray's own", {1: error})

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Ended)
    files.write_json(str(out / RESULT), {"steps": 7})  # of an earlier run
    return _launch({"out": str(out)}, TrainSection())


def test_a_killed_process_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = WorkerHealthCheckFailedError("a worker health check failed", ActorDiedError())
    with pytest.raises(
        LlmdetError, match=r"^training process 1 was killed .*; the same command goes on from"
    ) as raised:
        launched(monkeypatch, tmp_path, gone)
    assert "\n" not in str(raised.value)


def test_what_stopped_one_of_several_processes_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = launched(monkeypatch, tmp_path, RuntimeError("connection closed"), MissingError("64 photos in a row"))
    with pytest.raises(MissingError, match="64 photos in a row"):
        raise_failure(result)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ray.train.WorkerGroupError):
        launched(monkeypatch, tmp_path, ZeroDivisionError())


def test_captions_of_a_recipe_become_settings_of_training() -> None:
    found = TrainSection(settings={"steps": 3}, captions={"llm": "models/qwen", "lora_rank": 4}).build_settings()
    assert found.steps == 3
    assert found.captions == CaptionSettings(llm="models/qwen", lora_rank=4)
    assert TrainSection(settings={"steps": 3}).build_settings().captions is None


def test_a_misspelt_setting_of_captions_is_named() -> None:
    with pytest.raises(SettingError, match=r"train\.captions has no setting 'lora_rnk'; did you mean lora_rank\?"):
        TrainSection(captions={"lora_rnk": 4}).build_settings()
