"""mmdet as a consumer: a process of another Python, because its dependencies cannot live beside ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PYTHON = "LLMDET_MMDET_PYTHON"


@dataclass(frozen=True)
class Mmdet:
    """A running `read_with_mmdet.py`."""

    process: subprocess.Popen[str]
    errors: Path

    def ask(self, do: str, **request: object) -> dict[str, Any]:
        """The answer to one request; what mmdet raised fails the test."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **request}, default=str) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process with mmdet has ended: {self.errors.read_text()[-3000:]}"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        assert "error" not in answer, answer["error"]
        return answer

    def samples(self, ann_file: Path, **request: object) -> list[dict[str, Any]]:
        """What ODVGDataset makes of each line."""
        found = self.ask("odvg", ann_file=ann_file, **request)["samples"]
        assert isinstance(found, list)
        return found


@pytest.fixture(scope="session")
def mmdet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mmdet]:
    """mmdet in its own environment, started once."""
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} is not set: it names a Python that has mmdet (`make mmdet` builds one)")
    if shutil.which(python) is None:
        pytest.skip(f"{PYTHON} names {python}, which cannot be run")
    scratch = tmp_path_factory.mktemp("mmdet")
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    with (scratch / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [python, str(Path(__file__).with_name("read_with_mmdet.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "LLMDET_MMDET_SCRATCH": str(scratch)},
        )
        yield Mmdet(process, scratch / "errors.txt")
        process.communicate()  # an end of its input ends it
