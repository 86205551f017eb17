from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from llmdet import files
from llmdet.exports.groundingcap import GroundingCap
from llmdet.workspace import Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.export import export
from pipelines.ledger import Ledger
from pipelines.merge import merge
from pipelines.refine import RefineSettings, refine
from tests.pipelines import caption_only, fakes
from tests.pipelines.conftest import local  # noqa: F401  a fixture

ROOT = Path(__file__).parents[2]
WINDOW_WORKERS, WINDOW_ITEMS = 3, 2  # most workers of a run, chunks that a worker has at once
CHUNKS = (8, 16, 32)  # images in a chunk: another number after each kill


def _start(workspace: Workspace, draw: random.Random, pause_s: float) -> subprocess.Popen[str]:
    chunk, workers = draw.choice(CHUNKS), draw.randint(1, WINDOW_WORKERS)
    return subprocess.Popen(
        [sys.executable, "tests/pipelines/caption_only.py", workspace.url, str(chunk), str(workers), str(pause_s)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _kill_worker(driver: subprocess.Popen[str], draw: random.Random) -> bool:
    """SIGKILL to one actor of a running driver."""
    for process in draw.sample(family := psutil.Process(driver.pid).children(recursive=True), len(family)):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                process.kill()
                return True
        except psutil.Error:
            continue
    return False


def _run(workspace: Workspace, drivers: int, workers: int, pause_s: float, seed: int) -> Counter[str]:
    """Kill drivers and workers at random moments while there is something to ask; then let the last one end."""
    draw, killed = random.Random(seed), Counter[str]()
    while True:
        driver = _start(workspace, draw, pause_s)
        assert driver.stdout is not None
        kill_at = draw.randint(1, 4) if killed["driver"] < drivers else None
        for number, line in enumerate(driver.stdout):
            if not line.startswith(("started", "caption")):
                continue
            time.sleep(draw.uniform(0, 0.3))
            if kill_at is not None and number >= kill_at:
                family = psutil.Process(driver.pid).children(recursive=True)
                os.kill(driver.pid, signal.SIGKILL)
                for process in family if draw.random() < 0.5 else []:  # else they notice, and end by themselves
                    process.kill()
                killed["driver"] += 1
                break
            if number and killed["worker"] < workers and draw.random() < 0.5:
                killed["worker"] += _kill_worker(driver, draw)
        driver.stdout.close()
        if driver.wait() == 0:
            return killed


def _exported(workspace: Workspace) -> bytes:
    refine(workspace, "hand", RefineSettings(rules=()))
    merge(workspace)
    export(workspace, GroundingCap(), workspace.path("exports"))
    return files.read_bytes(workspace.path("exports/groundingcap.jsonl"))


def _check(tmp_path: Path, count: int, drivers: int, workers: int, pause_s: float) -> None:
    records = [fakes.record(number, boxes=1 + number % 5) for number in range(count)]
    unbroken, broken = (Workspace.at(str(tmp_path / name)) for name in ("unbroken", "broken"))
    for workspace in (unbroken, broken):
        fakes.write_records(workspace, records, part_rows=500)
    caption(unbroken, "hand", caption_only.engine_of(unbroken), CaptionSettings(chunk_images=64))
    expected = _exported(unbroken)

    killed = _run(broken, drivers, workers, pause_s, seed=count)
    assert killed["driver"] == drivers
    assert killed["worker"] == workers
    assert _exported(broken) == expected

    ledgers = [Ledger(broken.path("responses", "hand", name)) for name in broken.children("responses", "hand")]
    answers = Counter(
        (ledger.url, row["request_id"], row["attempt"])
        for ledger in ledgers
        for part in ledger.names()
        for row in ledger.read(part).to_pylist()
    )
    assert max(answers.values()) == 1
    asked = Counter((one["record"], one["task"], one["text"]) for one in caption_only.engine_of(broken).asked())
    assert len(asked) == len(answers)
    # A kill costs what was under way, a request or a few for each image of every chunk in flight.
    window = WINDOW_WORKERS * WINDOW_ITEMS * max(CHUNKS) * 4
    repeated = sum(asked.values()) - len(asked)
    print(f"{killed}: {repeated} of {len(asked)} requests asked again, {repeated / killed.total():.0f} a kill")
    assert repeated <= killed.total() * window


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_three_drivers_and_three_workers_killed_change_no_byte(local: None, tmp_path: Path) -> None:  # noqa: F811
    _check(tmp_path, 600, drivers=3, workers=3, pause_s=0.02)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_fifty_drivers_and_fifty_workers_killed_change_no_byte(local: None, tmp_path: Path) -> None:  # noqa: F811
    _check(tmp_path, 10_000, drivers=50, workers=50, pause_s=0.02)
