"""Kill the data half with SIGKILL at random moments, continue it, and look at what came out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from llmdet import files
from llmdet.record import from_batch
from llmdet.workspace import Workspace
from pipelines.ledger import Ledger

ROOT = Path(__file__).parents[2]


@dataclass
class Told:
    """What happened, for people."""

    killed: list[str] = field(default_factory=list)  # the last line before each kill
    lost: int = 0  # committed response files that are gone or changed
    left_over: list[str] = field(default_factory=list)  # processes that outlived their driver for long
    asked_twice: int = 0  # answers beyond one per request and attempt
    seconds: list[float] = field(default_factory=list)


def run_with_kills(world: Path, workspace: Workspace, engine: str, kills: int, steps: int, seed: int) -> Told:
    """Start the data half, kill it `kills` times after a random one of its next `steps` lines, then let it end."""
    draw, told = random.Random(seed), Told()
    seen: dict[str, str] = {}  # response file -> hash
    processes: set[psutil.Process] = set()
    while len(told.killed) < kills:
        started = time.monotonic()
        driver = _start(world, workspace, engine)
        last = _kill(driver, draw, draw.randrange(steps), processes)
        told.seconds.append(round(time.monotonic() - started, 1))
        if last is None:
            break  # it had ended before; what follows would only find a finished table
        told.killed.append(last)
        told.lost += sum(_responses(workspace).get(url) != digest for url, digest in seen.items())
        seen |= _responses(workspace)
    driver = _start(world, workspace, engine)
    output, _ = driver.communicate(timeout=240)
    assert driver.returncode == 0, output
    told.lost += sum(_responses(workspace).get(url) != digest for url, digest in seen.items())
    told.asked_twice = sum(count - 1 for count in _answers(workspace).values())
    _, alive = psutil.wait_procs(processes, timeout=60)
    told.left_over = [_name(process) for process in alive]
    return told


def _start(world: Path, workspace: Workspace, engine: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/pipelines/data_half.py"), str(world), workspace.url, engine],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _kill(driver: subprocess.Popen[str], draw: random.Random, after: int, processes: set[psutil.Process]) -> str | None:
    """Read lines, then kill the driver alone or with all that it started; the last line, or None for one that ended.

    The driver alone: its workers go on for a moment, and the next driver starts beside them.
    """
    assert driver.stdout is not None
    last = "nothing"
    for number, line in enumerate(driver.stdout):
        last = line.strip()
        if number == after:
            break
    else:
        assert driver.wait() == 0, last
        return None
    time.sleep(draw.uniform(0, 0.2))
    family = psutil.Process(driver.pid).children(recursive=True)
    processes.update(family)
    alone = draw.random() < 0.5
    os.kill(driver.pid, signal.SIGKILL)
    for process in [] if alone else family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    driver.wait()
    driver.stdout.close()
    return f"{last} ({'driver' if alone else 'all'})"


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:80]
    except psutil.Error:
        return str(process.pid)


def _ledgers(workspace: Workspace) -> Iterator[Ledger]:
    for name in workspace.children("responses", "world"):
        yield Ledger(workspace.path("responses", "world", name))


def _responses(workspace: Workspace) -> dict[str, str]:
    urls = [files.join(ledger.url, name) for ledger in _ledgers(workspace) for name in ledger.names()]
    return {url: files.sha256(files.read_bytes(url)) for url in urls}


def _answers(workspace: Workspace) -> Counter[tuple[str, bytes, int]]:
    return Counter(
        (ledger.url, row["request_id"], row["attempt"])
        for ledger in _ledgers(workspace)
        for name in ledger.names()
        for row in ledger.read(name).to_pylist()
    )


def ids(workspace: Workspace) -> list[str]:
    """Ids of the merged records, in order."""
    return [record.id for part in workspace.groundingcap().batches() for record in from_batch(part)]


def damaged(workspace: Workspace) -> list[str]:
    """Parts of any table that are not what their manifest says."""
    tables = [
        workspace.records("world"),
        workspace.captions("world"),
        workspace.asks("world"),
        workspace.groundingcap(),
    ]
    tables += [table for _, _, table in workspace.reject_tables()]
    return [files.join(table.url, name) for table in tables for name in table.damaged()]
