from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.pipelines import training
from tests.pipelines.training import Run

STEPS = 60


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_kills_of_training_change_no_bit(tmp_path: Path) -> None:
    """Of one of two processes, the other following at once; with captions and a running mean."""
    where, spoken = training.workspace(tmp_path).url, training.captions(training.llm(tmp_path / "llm"))
    values = training.settings(STEPS, checkpoint_every=5, ema=0.9)
    unbroken = Run(where, tmp_path / "unbroken", values, spoken)
    assert unbroken.pair() == [0, 0]
    broken = Run(where, tmp_path / "broken", values, spoken)
    for step in sorted(random.Random(0).sample(range(1, STEPS), 10)):
        started = time.monotonic()
        assert broken.pair(dies=step)[1] == -signal.SIGKILL
        print(f"killed after step {step}, {time.monotonic() - started:.0f} s", flush=True)
    assert broken.pair() == [0, 0]
    assert broken.shown() == unbroken.shown()
    assert broken.files() == unbroken.files()


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_kills_of_the_command_and_of_its_processes_change_no_bit(tmp_path: Path) -> None:
    where = training.workspace(tmp_path).url
    values = training.settings(STEPS, checkpoint_every=5)
    unbroken = Run(where, tmp_path / "unbroken", values)
    assert unbroken.pair() == [0, 0]
    draw = random.Random(0)
    broken = Run(where, tmp_path / "broken", values)
    for victim, step in zip(("worker", "driver") * 2, sorted(draw.sample(range(1, STEPS), 4)), strict=True):
        driver = broken.start()
        assert broken.wait_for(driver, step)
        (driver if victim == "driver" else draw.choice(training.workers(driver))).kill()
        said, _ = driver.communicate(timeout=600)
        assert driver.returncode == (-signal.SIGKILL if victim == "driver" else 1), said
        if victim == "worker":
            assert "was killed (is there enough memory?); the same command goes on" in said
    driver = broken.start()
    said, _ = driver.communicate(timeout=1200)
    assert driver.returncode == 0, said
    assert broken.shown() == unbroken.shown()
    assert broken.files() == unbroken.files()
