from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import stop

ROOT = Path(__file__).parents[2]
BEGIN = """
import sys, time
from pipelines import stop
stop.DRAIN_S, stop.LIMIT_S = {drain}, {limit}
stop._tell_workers = lambda: None  # there is no Ray
stop.listen()
print("begun", flush=True)
"""


def ends(body: str, *, drain: float = 20, limit: float = 28, signals: int = 1) -> tuple[int, str, float]:
    """Exit code, output and seconds of a driver that is sent SIGTERM when it has begun."""
    code = BEGIN.format(drain=drain, limit=limit) + body
    driver = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "begun\n"
    time.sleep(0.3)
    started = time.monotonic()
    for _ in range(signals):
        driver.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    output, _ = driver.communicate(timeout=30)
    return driver.returncode, output, time.monotonic() - started


def test_outside_of_collecting_sigterm_ends_at_once_and_in_order() -> None:
    body = "try:\n    time.sleep(60)\nfinally:\n    print('given back')\n"
    code, output, seconds = ends(body)
    assert (code, output) == (143, "given back\n")
    assert seconds < 5


def test_what_is_begun_is_collected_first() -> None:
    body = """
with stop.draining():
    until = time.monotonic() + 2
    while time.monotonic() < until:
        time.sleep(0.01)
    print("collected")
print("never")
"""
    assert ends(body)[:2] == (143, "collected\n")


def test_what_takes_too_long_is_given_up() -> None:
    body = "with stop.draining():\n    try:\n        time.sleep(60)\n    finally:\n        print('given back')\n"
    code, output, seconds = ends(body, drain=0.5)
    assert (code, output) == (143, "given back\n")
    assert seconds < 5


def test_a_second_sigterm_does_not_wait() -> None:
    body = "with stop.draining():\n    time.sleep(60)\n"
    code, _, seconds = ends(body, signals=2)
    assert code == 143
    assert seconds < 5


def test_further_signals_do_not_disturb_the_end() -> None:
    body = "try:\n    time.sleep(60)\nfinally:\n    time.sleep(1.5)\n    print('given back')\n"
    assert ends(body, signals=4)[:2] == (143, "given back\n")


def test_an_end_that_hangs_is_cut_off() -> None:
    body = "try:\n    time.sleep(60)\nfinally:\n    time.sleep(60)\n"
    code, _, seconds = ends(body, limit=0.8)
    assert code == 143
    assert seconds < 5


@pytest.mark.parametrize(("told", "code"), [(True, 143), (False, 1)])
def test_an_error_while_stopping_is_the_stop(told: bool, code: int) -> None:
    """Who stops the driver may have stopped its Ray too."""
    # What comes at once may be read with the first line, and is lost to `communicate`.
    wait = "while not stop.told(): time.sleep(0.01)\n    " if told else "time.sleep(1)\n    "
    body = f"with stop.draining():\n    {wait}raise ConnectionError('Ray is gone')\n"
    found, output, _ = ends(body, signals=int(told))
    assert found == code
    assert ("Ray is gone" in output) is not told


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was told to end, and half a second is left."""
    monkeypatch.setattr(stop, "stopping", lambda: True)
    monkeypatch.setattr(stop, "_LOOK_S", 0.05)
    monkeypatch.setattr(stop, "ANSWER_S", 0.5)


def test_what_is_soon_done_is_done_and_the_rest_is_cancelled(stopped: None) -> None:
    ended: list[str] = []

    async def wait(seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            ended.append(f"done {seconds}")
        except asyncio.CancelledError:
            ended.append(f"cancelled {seconds}")
            raise

    asyncio.run(stop.until_stop(wait(seconds) for seconds in (0.01, 0.2, 30.0)))
    assert ended == ["done 0.01", "done 0.2", "cancelled 30.0"]


def test_an_error_ends_the_others_at_once() -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    started = time.monotonic()
    with pytest.raises(ValueError, match="a bug"):
        asyncio.run(stop.until_stop([asyncio.sleep(30), fail()]))
    assert time.monotonic() - started < 5
