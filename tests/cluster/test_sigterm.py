"""SIGTERM to a driver with a local Ray: a clean end in half a minute, after which the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from llmdet.workspace import Workspace
from pipelines.lease import leases
from pipelines.ledger import Ledger
from tests.cluster.conftest import LINES, SCENES, World, plain, run_here
from tests.cluster.raylets import ROOT
from tests.cluster.test_jobs import wait_for_answers

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_sigterm_ends_a_run_in_order_and_it_goes_on(world: World, unbroken: bytes, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    typed = run_here(world, workspace)
    driver = subprocess.Popen(typed, cwd=ROOT, env=plain(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    wait_for_answers(workspace, SCENES // 8)
    family = psutil.Process(driver.pid).children(recursive=True)
    started = time.monotonic()
    driver.send_signal(signal.SIGTERM)
    output, errors = driver.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert driver.returncode == 128 + signal.SIGTERM, errors
    assert "interrupted; the same command goes on where this one stopped" in errors
    assert "Traceback" not in errors
    assert output == ""
    assert psutil.wait_procs(family, timeout=10)[1] == []
    ledgers = [Ledger(str(folder)) for folder in workspace.glob("responses/world/*-*")]
    held = [lease for ledger in ledgers for lease in leases(ledger.url).values() if lease]
    assert len(held) == 2
    assert not any(lease.alive() for lease in held)
    assert [lease.pid for lease in held] == [0, 0]
    done = subprocess.run(typed, cwd=ROOT, env=plain(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (workspace / LINES).read_bytes() == unbroken
    assert json.loads(done.stdout.splitlines()[-1])["stages"]["caption world"]["answered"] == 2 * SCENES
    assert asked_twice(Workspace.at(str(workspace))) == 0


def asked_twice(workspace: Workspace) -> int:
    """Answers beyond one per request: what was begun when the signal came was ended, not thrown away."""
    twice = 0
    for name in workspace.children("responses", "world"):
        ledger = Ledger(workspace.path("responses", "world", name))
        ids = [row["request_id"] for part in ledger.names() for row in ledger.read(part, ["request_id"]).to_pylist()]
        twice += len(ids) - len(set(ids))
    return twice
