"""Training that is ended early goes on to the same weights, bit for bit, and to the same records in the same order."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.pipelines import training
from tests.pipelines.training import Run

STEPS = 8


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("train")
    run = Run(training.workspace(place).url, place / "unbroken", training.settings(STEPS, checkpoint_every=2))
    assert run.pair() == [0, 0]
    return run


@pytest.mark.slow
def test_two_kills_change_no_bit(unbroken: Run, tmp_path: Path) -> None:
    broken = Run(unbroken.workspace, tmp_path / "broken", unbroken.settings)
    for step in (3, 6):
        assert broken.pair(dies=step)[1] == -signal.SIGKILL
    assert broken.pair() == [0, 0]
    assert broken.shown() == unbroken.shown()
    assert broken.files() == unbroken.files()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_ends_all_processes_with_a_checkpoint_and_the_same_command_goes_on(
    unbroken: Run, tmp_path: Path
) -> None:
    broken = Run(unbroken.workspace, tmp_path / "broken", unbroken.settings)
    driver = broken.start()
    assert broken.wait_for(driver, 3)
    driver.send_signal(signal.SIGTERM)
    said, _ = driver.communicate(timeout=60)
    done = broken.log()[-1]["step"]
    assert driver.returncode == 128 + signal.SIGTERM
    assert f"the newest checkpoint in {broken.out} is of step {done} of {STEPS}\n" in said
    assert "the same command goes on" in said
    assert (broken.out / f"step-{done:06d}" / "training").is_dir()  # no step is lost, whatever checkpoint_every says
    driver = broken.start()
    said, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, said
    assert [entry["step"] for entry in broken.log()] == list(range(1, STEPS + 1))
    assert broken.shown() == unbroken.shown()
    assert broken.files() == unbroken.files()
