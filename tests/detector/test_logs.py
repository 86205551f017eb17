"""Where figures go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detector.config import TrainSettings
from detector.logs import open_logs
from llmdet.errors import ExtraError

WANDB = """
import sys
from detector.config import TrainSettings
from detector.logs import open_logs
for first in (1, 3):  # goes on after step 3, which was logged already
    with open_logs(sys.argv[1], TrainSettings(loggers=("wandb",))) as write:
        for step in (first, first + 1, first + 2):
            write(step, {"loss/total": 1.0 / step})
"""


def test_tensorboard_gets_every_figure(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_logs(tmp_path, TrainSettings()) as write:
        write(5, {"loss/total": 2.5, "speed/data_wait": 0.5})
    read = EventAccumulator(str(tmp_path / "log"))
    read.Reload()
    assert [(one.step, one.value) for one in read.Scalars("loss/total")] == [(5, 2.5)]
    assert [(one.step, one.value) for one in read.Scalars("speed/data_wait")] == [(5, 0.5)]


def test_a_missing_logger_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ExtraError, match=r"llmdet-data\[wandb\]"),
        open_logs(tmp_path, TrainSettings(loggers=("wandb",))),
    ):
        pass


@pytest.mark.slow
def test_wandb_without_a_network_is_one_run_however_often_it_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_API_KEY": "0123456789abcdef" * 3}
    done = subprocess.run(
        [sys.executable, "-c", WANDB, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    name = (tmp_path / "wandb" / "id").read_text()
    logs = sorted((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert {log.name for log in logs} == {f"run-{name}.wandb"}
    assert b"loss/total" in b"".join(log.read_bytes() for log in logs)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"0123456789abcdef" in path.read_bytes() for path in written)  # the key is nowhere
    assert "0123456789abcdef" not in done.stdout + done.stderr
