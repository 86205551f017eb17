from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import psutil
import pytest

from llmdet import files
from llmdet.errors import BusyError
from pipelines import lease
from pipelines.lease import Lease, hold, leases


def there(url: str, **changes: object) -> Lease:
    """Write the lease of a live holder on another host, changed as asked."""
    one = Lease("ann", "far-away", "boot|1", 4711, 1.0, 3, (0, 1), time.time())
    one = replace(one, **changes)  # type: ignore[arg-type]
    files.write_bytes(f"{url}/leases/{one.epoch:05d}.json", orjson.dumps(asdict(one)))
    return one


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("url", ["{tmp}/ledger", "memory://lease-test/ledger"])
def test_epochs_grow_and_a_lease_is_given_back(tmp_path: Path, url: str) -> None:
    url = url.format(tmp=tmp_path)
    for epoch in range(3):
        with hold(url) as held:
            assert held.epoch == epoch
            assert leases(url)[epoch] == held.lease
            held.check()
        given_back = leases(url)
        assert given_back == {epoch: replace(held.lease, pid=0, heartbeat=0.0)}


def test_a_second_live_driver_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    url = str(tmp_path)
    with hold(url) as held, pytest.raises(BusyError) as refused, hold(url):
        pass
    assert f"{held.lease.owner} on {held.lease.host} (pid {os.getpid()}) is writing to {url}" in str(refused.value)
    with hold(url) as again:
        assert again.epoch == 1


def test_a_driver_in_another_process_is_refused_until_it_dies(tmp_path: Path) -> None:
    code = "import sys, time; from pipelines.lease import hold\n"
    code += "with hold(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=rf"pid {other.pid}\)"), hold(str(tmp_path)):
        pass
    other.kill()
    other.wait()
    with hold(str(tmp_path)) as held:  # at once: no heartbeat has to grow old
        assert held.epoch == 1


def test_a_dead_pid_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    with hold(str(tmp_path)) as held:
        mine = held.lease
    there(str(tmp_path), **{**asdict(mine), "pid": dead_pid(), "epoch": 5, "heartbeat": time.time()})
    with hold(str(tmp_path)) as held:
        assert held.epoch == 6


def test_a_pid_that_was_used_again_is_not_the_holder(tmp_path: Path) -> None:
    with hold(str(tmp_path)) as held:
        mine = held.lease
    there(str(tmp_path), **{**asdict(mine), "started": psutil.Process().create_time() - 100, "epoch": 5})
    with hold(str(tmp_path)) as held:
        assert held.epoch == 6


@pytest.mark.parametrize("changes", [{}, {"host": "same"}])
def test_a_holder_elsewhere_counts_as_dead_after_a_minute_of_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    # "same": a container of the same host name has pids of its own, so only its heartbeat tells
    monkeypatch.setattr("socket.gethostname", lambda: "same")
    there(str(tmp_path), heartbeat=time.time() - 55, **changes)
    with pytest.raises(BusyError, match="ann on"), hold(str(tmp_path)):
        pass
    there(str(tmp_path), heartbeat=time.time() - 61, **changes)
    with hold(str(tmp_path)) as held:
        assert held.epoch == 4


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ((0, 2), (1, 2), False),
        ((0, 2), (0, 2), True),
        ((0, 1), (1, 2), True),
        ((0, 2), (2, 4), True),
        ((0, 2), (3, 4), False),
        ((1, 2), (2, 3), True),
    ],
)
def test_only_shards_that_share_no_work_run_side_by_side(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int], overlap: bool
) -> None:
    shared = {k for k in range(12) if k % first[1] == first[0]} & {k for k in range(12) if k % second[1] == second[0]}
    assert bool(shared) == overlap
    with hold(str(tmp_path), first) as one:
        if overlap:
            with pytest.raises(BusyError), hold(str(tmp_path), second):
                pass
        else:
            with hold(str(tmp_path), second) as two:
                assert (one.epoch, two.epoch) == (0, 1)  # names of files hold the epoch: they can never agree
            assert list(leases(str(tmp_path))) == [0, 1]


def test_a_claim_without_a_byte_is_taken_for_dead(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "00007.json").touch()  # killed between creating and writing
    with hold(str(tmp_path)) as held:
        assert held.epoch == 8


def test_epochs_start_after_those_that_files_tell_of(tmp_path: Path) -> None:
    with hold(str(tmp_path), first_epoch=12) as held:
        assert held.epoch == 12


def test_a_holder_that_was_taken_over_notices_and_leaves_the_new_lease_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with hold(str(tmp_path)) as held:
        taker = there(str(tmp_path), epoch=1)
        assert held.lost.wait(5)
        with pytest.raises(BusyError, match="another driver has taken over"):
            held.check()
        assert leases(str(tmp_path))[1] == taker
    assert leases(str(tmp_path))[1] == taker
    with pytest.raises(BusyError, match="ann on far-away"), hold(str(tmp_path)):
        pass


def test_a_later_holder_of_another_shard_is_no_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.02)
    with hold(str(tmp_path), (0, 2)) as held:
        there(str(tmp_path), epoch=1, shard=(1, 2))
        before = leases(str(tmp_path))[0]
        assert before is not None
        for _ in range(200):
            now = leases(str(tmp_path))[0]
            if now is not None and now.heartbeat > before.heartbeat:
                break
            time.sleep(0.02)
        assert now is not None
        assert now.heartbeat > before.heartbeat  # it goes on beating
        held.check()


def test_of_many_that_start_at_once_one_holds(tmp_path: Path) -> None:
    outcomes: list[str] = []
    go, done = threading.Barrier(8), threading.Event()

    def drive() -> None:
        go.wait()
        try:
            with hold(str(tmp_path)):
                outcomes.append("held")
                done.wait(20)
        except BusyError:
            outcomes.append("refused")
            if len(outcomes) == 8:
                done.set()

    threads = [threading.Thread(target=drive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7
