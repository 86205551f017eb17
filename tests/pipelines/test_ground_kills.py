"""ground under SIGKILL: the process and all that it started, again and again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from detector import checkpoint
from detector.config import quickstart_model
from llmdet.world import write_world

ROOT = Path(__file__).parents[2]
SCENES = 24


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """`llmdet-data WORDS` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cli", *words]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def end(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said.decode()


def kill_after(process: subprocess.Popen[bytes], table: Path, parts: int) -> int:
    """Kill a process with all that it started when so many parts are there; how many there were."""
    while len(list(table.glob("part-*.parquet"))) < parts and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.wait()
    return len(list(table.glob("part-*.parquet")))


def committed(workspace: Path) -> list[object]:
    """Names, rows and hashes of all parts, boxes and rejects."""
    tables = (workspace / "grounded/scenes", workspace / "rejects/ground/scenes")
    return [json.loads((table / "manifest.json").read_bytes())["parts"] for table in tables]


@pytest.mark.soak
def test_kills_change_no_byte(tmp_path: Path) -> None:
    images = write_world(tmp_path / "scenes", SCENES, 0).parent / "images"
    lines = [json.dumps({"file_name": path.name, "text": "A dog near a cup."}) for path in sorted(images.iterdir())]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    (tmp_path / "tiny").mkdir()
    checkpoint.write_model(tmp_path / "tiny", checkpoint.start(quickstart_model(), 0))
    for workspace in ("unbroken", "broken"):
        reader = ("--format", "folder", "--annotations", "captions.jsonl", "--images", str(images))
        end(start(tmp_path, "ingest", "--source", "scenes", *reader, "--workspace", workspace))
    settings = [word for value in ("part_rows=2", "min_score=0", "min_boxes=1") for word in ("--set", value)]
    ground = ("ground", "--source", "scenes", "--checkpoint", "tiny", "--cpu", *settings, "--workspace")
    end(start(tmp_path, *ground, "unbroken"))
    table = tmp_path / "broken/grounded/scenes"
    for parts in (1, 4):
        assert kill_after(start(tmp_path, *ground, "broken"), table, parts) >= parts
        assert not (table / "manifest.json").exists()
    end(start(tmp_path, *ground, "broken"))
    assert committed(tmp_path / "broken") == committed(tmp_path / "unbroken")
