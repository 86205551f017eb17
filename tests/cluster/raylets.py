"""Real Ray clusters on this machine: a head, and further nodes that are processes of their own with their own CPUs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_S = 90
# Those of the person or the test session that must not reach a cluster.
_NOT_PASSED = ("PYTHONPATH", "RAY_ADDRESS", "LLMDET_WORKSPACE", "LLMDET_DATA_ROOT")
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TERM": "dumb",
}


def python_of(folder: Path, *, installed: bool) -> Path:
    """A Python environment that has the packages of this one, and llmdet-data itself only if `installed`.

    Its own site-packages name ours by a plain line, which Python does not search for further `.pth` files: an editable
    install of the checkout is out of sight.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "theirs.pth").write_text(f"{ours}\n")
    python = folder / "bin" / "python"
    (folder / "bin" / "ray").write_text(f"#!{python}\nfrom ray.scripts.scripts import main\nmain()\n")
    (folder / "bin" / "ray").chmod(0o755)
    if installed:
        _install(site, python)
    return python


def _install(site: Path, python: Path) -> None:
    """Put in place what a wheel carries, and its console script; building one would need the network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in wheel["only-include"]:
        place = site / wheel["sources"].get(package, package)
        shutil.copytree(ROOT / package, place, ignore=shutil.ignore_patterns("__pycache__"))
    for name, target in project["project"]["scripts"].items():
        module, function = target.split(":")
        script = python.parent / name
        script.write_text(f"#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
        script.chmod(0o755)


@dataclass
class Node:
    """One `ray start --block` with all that it started."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL for the raylet and everything on its node, as when a machine loses power."""
        if self.process.poll() is not None:
            return
        for process in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait(30)


@dataclass
class Cluster:
    """A head that takes jobs, and further nodes."""

    python: Path
    environment: dict[str, str] = field(default_factory=dict)  # of the cluster and its jobs, beside the usual one
    nodes: list[Node] = field(default_factory=list)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)  # nobody else may give it work
    port: int = field(default_factory=lambda: free_port())
    dashboard: str = field(default_factory=lambda: f"http://{HOST}:{free_port()}")
    # Its path is short: sockets below it may have 107 characters.
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="llmdet-ray-")))

    def __enter__(self) -> Cluster:
        ports = {
            "port": self.port,
            "dashboard-port": self.dashboard.rpartition(":")[2],
            "ray-client-server-port": free_port(),
        }
        self._start("--head", "--dashboard-host", HOST, *(f"--{name}={port}" for name, port in ports.items()), cpus=2)
        self._wait_for(self._takes_jobs)
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.kill()  # never `ray stop`: it stops every Ray of this machine
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
        path = f"{self.python.parent}{os.pathsep}{kept.get('PATH', '')}"
        own = {"PATH": path, "RAY_TMPDIR": str(self.folder), "RAY_AUTH_TOKEN": self.token}
        return {**kept, **_ENVIRONMENT, **own, **self.environment}

    def add_node(self, cpus: int = 2, hide: Path | None = None) -> Node:
        """Another node; `hide` is a folder that it does not see, as on another machine."""
        name = f"node{len(self.nodes)}"
        node = self._start("--address", self.address, cpus=cpus, hide=hide)
        self._wait_for(lambda: name in self._alive())
        return node

    def _start(self, *words: str, cpus: int, hide: Path | None = None) -> Node:
        ports = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
        fixed = [f"--{name}-port={free_port()}" for name in ports]  # two nodes of a machine cannot share the usual ones
        typed = [str(self.python.parent / "ray"), "start", "--block", "--node-ip-address", HOST, *words, *fixed]
        typed += ["--num-cpus", str(cpus), "--object-store-memory", str(100 * 2**20), "--disable-usage-stats"]
        typed += ["--resources", json.dumps({f"node{len(self.nodes)}": 1})]
        if hide:
            typed = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{hide}" && exec "$@"', "sh", *typed]
        log = self.folder / f"node-{len(self.nodes)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                typed, cwd=self.folder, env=self.env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        node = Node(process, log)
        self.nodes.append(node)
        return node

    def _takes_jobs(self) -> bool:
        try:
            return isinstance(self._get("/api/jobs/"), list)
        except OSError:
            return False

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def _alive(self) -> set[str]:
        """Resources of all living nodes: each node has one of its own, `node0` and so on."""
        nodes = self._get("/api/v0/nodes?detail=1")["data"]["result"]["result"]
        return {name for node in nodes if node["state"] == "ALIVE" for name in node["resources_total"]}

    def _wait_for(self, true: Callable[[], bool]) -> None:
        until = time.monotonic() + START_S
        while not true():
            node = self.nodes[-1]
            assert node.process.poll() is None, node.log.read_text()
            assert time.monotonic() < until, node.log.read_text()
            time.sleep(0.2)

    def submit(self, *words: str, working_dir: Path = ROOT, more: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """`ray job submit --working-dir . -- WORDS`, typed in the checkout."""
        typed = [str(self.python.parent / "ray"), "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        return subprocess.Popen(
            [*typed, *more, "--", *words],
            cwd=working_dir,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop_job(self, job: str) -> None:
        ray = str(self.python.parent / "ray")
        subprocess.run([ray, "job", "stop", "--address", self.dashboard, job], env=self.env, check=True, timeout=120)


def free_port() -> int:
    """A free port. The system gives none of 10002-19999, where Ray's workers listen."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])
