from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.pipelines import training
from tests.pipelines.training import Run

STEPS, KILLS = 60, 10


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_kills_of_training_change_no_bit(tmp_path: Path) -> None:
    """Of the driver or of one training process, with captions."""
    where, spoken = training.workspace(tmp_path).url, training.captions(training.llm(tmp_path / "llm"))
    values = training.settings(STEPS, checkpoint_every=5)
    unbroken = Run(where, tmp_path / "unbroken", values, spoken)
    driver = unbroken.start()
    said, _ = driver.communicate(timeout=1200)
    assert driver.returncode == 0, said
    draw = random.Random(0)
    broken = Run(where, tmp_path / "broken", values, spoken)
    for number, step in enumerate(sorted(draw.sample(range(1, STEPS), KILLS))):
        started = time.monotonic()
        driver = broken.start()
        assert broken.wait_for(driver, step)
        victim = "driver" if number % 2 else "worker"
        if victim == "driver":
            driver.kill()
        else:
            draw.choice(training.workers(driver)).kill()
        said, _ = driver.communicate(timeout=300)
        print(f"{victim} killed after step {step}, {time.monotonic() - started:.0f} s")
        assert driver.returncode == (-signal.SIGKILL if victim == "driver" else 1), said
        if victim == "worker":
            assert "was killed (is there enough memory?); the same command goes on" in said
    driver = broken.start()
    said, _ = driver.communicate(timeout=1200)
    assert driver.returncode == 0, said
    assert broken.shown() == unbroken.shown()
    assert broken.files() == unbroken.files()
