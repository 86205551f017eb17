"""The Slurm script on one node and on two, which have processes, files and networks of their own; `slurm/` is Slurm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from llmdet.workspace import Workspace
from tests.cluster.conftest import SCENES, World, plain
from tests.cluster.raylets import ROOT

ALONE = ["unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]


def can_part() -> bool:
    """Whether this machine lets us make networks and processes of their own."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    cable = "ip link set lo up && ip link add node0 type veth peer name node1"
    return subprocess.run([*ALONE, "sh", "-c", cable], capture_output=True).returncode == 0


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.skipif(not can_part(), reason="needs `unshare` and `ip` of a machine that allows networks of their own")
@pytest.mark.parametrize("nodes", [1, 2])
def test_the_slurm_script_runs_a_command(nodes: int, world: World, tmp_path: Path) -> None:
    folder = tempfile.mkdtemp(prefix="llmdet-ray-")  # short: sockets below it may have 107 characters
    path = [str(ROOT / "tests" / "cluster" / "slurm"), str(Path(sys.executable).parent), os.environ["PATH"]]
    job = {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_CPUS_PER_TASK": "2",
        "PATH": os.pathsep.join(path),
        "RAY_TMPDIR": folder,
    }
    script = 'ip link set lo up && exec bash workflows/cluster/slurm.sbatch "$@"'
    words = ["caption", *world.source, "--engine", "template", "--workspace", str(tmp_path / "workspace")]
    done = subprocess.run(
        [*ALONE, "sh", "-c", script, "sh", *words],
        cwd=ROOT,
        env={**plain(), **job},
        capture_output=True,
        text=True,
        timeout=300,
    )
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * SCENES} of {2 * SCENES} requests answered" in done.stdout
    manifest = Workspace.at(str(tmp_path / "workspace")).records("world").manifest()
    assert manifest is not None
    assert manifest.rows == SCENES
