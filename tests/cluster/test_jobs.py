"""`ray job submit` to real clusters: with and without llmdet-data in their environment, whole and losing a node."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import LINES, SCENES, World, last_json
from tests.cluster.raylets import ROOT, Cluster, python_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ROOMS = ("llmdet", "detector", "pipelines", "cli", "workflows")


def can_hide() -> bool:
    """Whether this machine lets us start a process with file systems of its own."""
    done = subprocess.run(["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True)
    return done.returncode == 0


def test_a_job_brings_the_code_where_it_is_not_installed(cluster: Cluster, world: World, tmp_path: Path) -> None:
    there = subprocess.run([cluster.python, "-c", "import llmdet"], cwd=tmp_path, env=cluster.env, capture_output=True)
    assert b"No module named 'llmdet'" in there.stderr
    node = cluster.add_node()
    workspace = tmp_path / "workspace"
    words = ["caption", *world.source, "--engine", "template", "--workspace", f"file://{workspace}", "--json"]
    job = cluster.submit("python", "-m", "cli", *words)
    output, _ = job.communicate(timeout=300)
    node.kill()
    assert job.returncode == 0, output
    told = last_json(output)
    assert (told["records"], told["answered"], told["faults"]) == (SCENES, 2 * SCENES, {})


def test_a_job_uses_what_is_installed(world: World, tmp_path: Path) -> None:
    here = tmp_path / "here"  # the working directory: a recipe and no code
    here.mkdir()
    shutil.copy(world.recipe, here / "world.yaml")
    with Cluster(python_of(tmp_path / "env", installed=True)) as cluster:
        words = ["run", "world.yaml", "--set", "caption.chunk_images=64", "--workspace", str(tmp_path / "w"), "--json"]
        job = cluster.submit("llmdet-data", *words, working_dir=here)
        output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert last_json(output)["records"] == SCENES


def test_a_lost_node_changes_no_byte(cluster: Cluster, world: World, unbroken: bytes, tmp_path: Path) -> None:
    node = cluster.add_node()
    workspace = tmp_path / "workspace"
    job = cluster.submit("python", "-m", "cli", "run", str(world.recipe), "--workspace", str(workspace), "--json")
    answered = wait_for_answers(workspace, SCENES // 8)
    node.kill()
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert answered < SCENES / 2
    assert (workspace / LINES).read_bytes() == unbroken
    caption = last_json(output)["stages"]["caption world"]
    assert (caption["requests"], caption["answered"], caption["faults"]) == (2 * SCENES, 2 * SCENES, {})


def test_a_stopped_job_goes_on_at_once(cluster: Cluster, world: World, unbroken: bytes, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    words = ["python", "-m", "cli", "run", str(world.recipe), "--workspace", str(workspace), "--json"]
    job = cluster.submit(*words, more=("--submission-id", "stopped"))
    wait_for_answers(workspace, SCENES // 8)
    started = time.monotonic()
    cluster.stop_job("stopped")
    output, _ = job.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert "interrupted; the same command goes on where this one stopped" in output
    job = cluster.submit(*words)
    output, _ = job.communicate(timeout=300)
    assert job.returncode == 0, output
    assert (workspace / LINES).read_bytes() == unbroken


def test_a_workspace_in_the_jobs_own_folder_is_refused(cluster: Cluster, world: World) -> None:
    job = cluster.submit("python", "-m", "cli", "caption", *world.source, "--engine", "template")
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 1
    assert "/workspace is inside the copy of the working directory, which Ray deletes after the job" in output
    assert "Traceback" not in output


@pytest.mark.skipif(not can_hide(), reason="needs `unshare --mount`: root, or a machine that allows it")
def test_a_node_that_cannot_take_part_is_named(cluster: Cluster, world: World, tmp_path: Path) -> None:
    private = tmp_path / "private"
    for room in ROOMS:
        shutil.copytree(ROOT / room, private / "checkout" / room, ignore=shutil.ignore_patterns("__pycache__"))
    node = cluster.add_node(hide=private)
    words = ["python", "-m", "cli", "caption", *world.source, "--engine", "template", "--workspace"]
    job = cluster.submit(*words, str(private / "workspace"))
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 1
    assert f"does not see {private}/workspace (what was written there is not there); on a cluster it must be" in output
    assert "Traceback" not in output
    assert not (private / "workspace" / "records").exists()
    # A driver that was not submitted as a job, from a checkout that this node does not have.
    done = subprocess.run(
        [cluster.python, *words[1:], str(tmp_path / "shared")],
        cwd=private / "checkout",
        env={**cluster.env, "RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    node.kill()
    assert done.returncode == 1
    assert "has no llmdet-data (No module named 'llmdet')" in done.stderr
    assert "Traceback" not in done.stderr


def wait_for_answers(workspace: Path, least: int) -> int:
    """Wait until so many units of work have their answers; how many there are then."""
    until = time.monotonic() + 120
    while (count := answers(workspace)) < least:
        assert time.monotonic() < until, "no answers"
        time.sleep(0.05)
    return count


def answers(workspace: Path) -> int:
    folders = list(workspace.glob("responses/world/image-*"))
    return sum(name.startswith("part-") for folder in folders for name in os.listdir(folder))
