"""The benchmarks of training run, each on the tiny model: figures that are there and of the right kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def lines(script: str, *options: str) -> list[dict[str, object]]:
    """What a benchmark prints."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_steps_are_timed_beside_plain_transformers() -> None:
    *found, last = lines("train_speed.py", "--steps", "1", "--rounds", "1", "--contenders", "plain", "equal", "all")
    assert [one["contender"] for one in found] == ["plain", "equal", "all"]
    for one in found:
        phases = [float(str(one[f"{phase}_cpu_s"])) for phase in ("data", "forward", "loss", "backward", "optimizer")]
        assert sum(phases) == pytest.approx(float(str(one["step_cpu_s"])))
    assert last["plain_over"] is not None


def test_the_table_of_a_gpu_is_made_on_a_cpu_too(tmp_path: Path) -> None:
    options = ("--device", "cpu", "--sizes", "tiny", "--batches", "1", "--steps", "1", "--peak-tflops", "1")
    rows = lines("gpu_training.py", *options, "--out", str(tmp_path / "made"))
    assert [row["captions"] for row in rows] == ["off", "on"]
    assert all(float(str(row["images_per_s"])) > 0 and float(str(row["mfu"])) > 0 for row in rows)
    stored = json.loads((tmp_path / "made" / "gpu_training.json").read_text())
    assert stored["rows"] == rows
    assert (tmp_path / "made" / "gpu_training.md").read_text().count("| tiny |") == 2
