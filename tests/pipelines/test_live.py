from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from llmdet.workspace import Workspace
from pipelines import live as module
from pipelines.caption import CaptionOutcome, CaptionSettings, caption
from pipelines.engines.engine import Usage
from pipelines.live import Live, Meter, live_runs
from pipelines.parts import Row
from pipelines.prices import Prices
from pipelines.run import after
from pipelines.status import status
from tests.pipelines.fakes import Fake, record, write_records

HEAD = Live(source="hand", task="all", shard="0/1", engine="fake", model="m", ledgers={}, chunks=4, gpus=2.0)


def row(worker: str = "a", usage: tuple[Usage, Usage] = (Usage(), Usage()), **changes: object) -> Row:
    """What one chunk tells: ten requests about four pictures, 1000 tokens in, 600 of them cached, 100 out."""
    counts = {"images": 4, "requests": 10, "prompt_tokens": 1000, "cached_tokens": 600, "answer_tokens": 100}
    return {**counts, "errors": {}, "worker": worker, "usage": [asdict(one) for one in usage], **changes}


@dataclass
class Clock:
    """A clock that tests set."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_rates_hits_and_time_left_follow_from_what_chunks_tell(workspace: Workspace, clock: Clock) -> None:
    meter = Meter(workspace, HEAD, Prices())
    for _ in range(2):
        clock.now += 5
        meter.add(row(errors={"timeout": 1}))
    live = meter.live
    assert (live.chunks_done, live.images, live.requests, live.errors) == (2, 8, 20, {"timeout": 2})
    assert (live.images_per_s, live.requests_per_s) == (0.8, 2.0)
    assert (live.prompt_tokens_per_s, live.answer_tokens_per_s) == (200.0, 20.0)
    assert live.cache_hits == 0.6
    assert live.left_s == 10.0
    assert live.line() == "0.8 images/s, 2.0 requests/s, tokens/s 200 in, 20 out, cached 60%, 2 timeout"


def test_rates_are_those_of_the_last_minute_while_it_runs_and_of_all_at_the_end(
    workspace: Workspace, clock: Clock
) -> None:
    meter = Meter(workspace, HEAD, Prices())
    with meter.running():
        clock.now += 600  # a model that loads
        meter.add(row())
        for _ in range(3):
            clock.now += 20
            meter.add(row())
        assert meter.live.requests_per_s == pytest.approx(30 / 60)
    assert meter.live.requests_per_s == pytest.approx(40 / 660)
    assert (meter.live.state, meter.live.left_s) == ("finished", None)


def test_the_engines_waiting_is_what_each_worker_added(workspace: Workspace, clock: Clock) -> None:
    meter = Meter(workspace, HEAD, Prices())
    # Worker a had worked for an earlier run; its chunks overlap and come out of order.
    meter.add(row("a", (Usage(running_s=110, waiting_s=51), Usage(running_s=130, waiting_s=52))))
    meter.add(row("a", (Usage(running_s=100, waiting_s=50), Usage(running_s=120, waiting_s=51))))
    meter.add(row("b", (Usage(), Usage(running_s=10, waiting_s=6, image_tokens_predicted=70, image_tokens=72))))
    assert meter.live.waiting == (2 + 6) / (30 + 10)
    assert (meter.live.image_tokens_predicted, meter.live.image_tokens) == (70, 72)


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        (Prices(), 0.0),
        (Prices(gpu_hour=3.6), 2 * 50 * 3.6 / 3600),  # two GPUs for 50 s
        (Prices(prompt_million=2.0, answer_million=10.0), 1000 * 2e-6 + 100 * 10e-6),
        (Prices(prompt_million=2.0, cached_million=0.5), 400 * 2e-6 + 600 * 0.5e-6),
    ],
)
def test_cost_is_that_of_gpus_and_tokens(workspace: Workspace, clock: Clock, prices: Prices, cost: float) -> None:
    meter = Meter(workspace, HEAD, prices)
    clock.now += 50
    meter.add(row())
    assert meter.live.cost == pytest.approx(cost)


def test_the_file_is_written_at_most_every_two_seconds_and_at_the_end(workspace: Workspace, clock: Clock) -> None:
    path = Path(workspace.path("runs", "live", "hand-all-1-of-4.json"))
    meter = Meter(workspace, replace(HEAD, shard="1/4"), Prices())
    assert json.loads(path.read_bytes())["state"] == "running"
    seen = []

    def work() -> None:
        with meter.running():
            for _ in range(4):
                clock.now += 1
                meter.add(row())
                seen.append(json.loads(path.read_bytes())["chunks_done"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert seen == [0, 0, 3, 3]
    written = json.loads(path.read_bytes())
    assert (written["chunks_done"], written["state"]) == (4, "stopped")


def test_a_finished_run_is_told_with_its_errors_and_cost(local: None, workspace: Workspace, tmp_path: Path) -> None:
    engine = Fake(log=str(tmp_path / "asked.jsonl"), fail=("1.jpg",))
    write_records(workspace, [record(i) for i in range(6)], part_rows=4)
    price = Prices(prompt_million=1e6, cached_million=0.0, answer_million=1e6)
    told: list[str] = []

    class Teller:
        def __call__(self, done: int, total: int | None) -> None: ...

        def tell(self, line: str) -> None:
            told.append(line)

    done = caption(workspace, "hand", engine, CaptionSettings(chunk_images=2, price=price), Teller())
    (run,) = status(workspace).live
    assert (run.state, run.source, run.task, run.engine, run.model) == ("finished", "hand", "all", "fake", "fake")
    assert (run.chunks_done, run.chunks, run.images, run.requests) == (3, 3, 6, 12)
    assert run.errors == {"engine_down": 2}
    # five images with 7 tokens in (2 of them cached) and 3 out, five region requests with 5 in
    assert (run.prompt_tokens, run.cached_tokens, run.answer_tokens) == (60, 10, 15)
    assert run.cost == done.cost == 50 + 15
    assert (done.asked, done.failed) == (12, 2)
    assert len(told) == 3
    assert "2 engine_down, cost 65.00" in told[-1]


def test_a_killed_run_is_stopped_and_one_at_work_is_running(workspace: Workspace) -> None:
    code = """
import sys, time
from llmdet.workspace import Workspace
from pipelines.lease import hold
from pipelines.live import Live, Meter
from pipelines.prices import Prices
place = Workspace.at(sys.argv[1])
with hold(place.path("responses/hand/image-1")) as held:
    ledgers = {"responses/hand/image-1": held.epoch}
    Meter(place, Live(source="hand", task="image", shard="0/1", engine="e", model="", ledgers=ledgers), Prices())
    print("held", flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code, workspace.url], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert [run.state for run in live_runs(workspace)] == ["running"]
    other.kill()
    other.wait()
    assert [run.state for run in live_runs(workspace)] == ["stopped"]


def test_the_newest_run_is_first(workspace: Workspace) -> None:
    for source in ("old", "new"):
        Meter(workspace, replace(HEAD, source=source), Prices())
        time.sleep(0.01)
    assert [run.source for run in live_runs(workspace)] == ["new", "old"]
    assert os.listdir(workspace.path("runs", "live"))


def test_rounds_of_a_run_add_what_they_spent_and_the_last_says_what_is_left() -> None:
    first = CaptionOutcome(requests=9, answered=7, asked=9, prompt_tokens=90, cost=2.0, faults={"timeout": 2})
    last = CaptionOutcome(requests=9, answered=9, asked=2, prompt_tokens=20, cost=0.5, skipped=False)
    both = after(first, last)
    assert (both.asked, both.prompt_tokens, both.cost) == (11, 110, 2.5)
    assert (both.requests, both.answered, both.faults) == (9, 9, {})
    assert after(None, first) is first
