"""A small world, a recipe for it, and Ray clusters of several processes; all their tests are marked `cluster`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmdet.world import write_world
from tests.cluster.raylets import ROOT, Cluster, python_of

SCENES = 200
LINES = Path("exports/groundingcap/groundingcap.jsonl")
# A unit of work for each image: a run can be hit in the middle.
RECIPE = """
name: world
sources:
  world: {{format: coco, annotations: {world}/annotations.json, images: {world}/images, negatives: 8}}
caption: {{engine: template, chunk_images: 1, engines: {{template: {{colours: true}}}}}}
export: [{{format: groundingcap}}]
"""


@dataclass(frozen=True)
class World:
    """Photos, annotations and a recipe that reads them."""

    folder: Path
    recipe: Path

    @property
    def source(self) -> list[str]:
        """Options of `caption` that name it."""
        named = f"--annotations {self.folder}/annotations.json --images {self.folder}/images"
        return f"--source world --format coco {named}".split()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, SCENES, 0)
    recipe = folder / "world.yaml"
    recipe.write_text(RECIPE.format(world=folder))
    return World(folder, recipe)


@pytest.fixture(scope="session")
def unbroken(world: World, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the recipe exports on this machine alone, without a cluster and without a break."""
    workspace = tmp_path_factory.mktemp("unbroken") / "workspace"
    done = subprocess.run(run_here(world, workspace), cwd=ROOT, env=plain(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (workspace / LINES).read_bytes()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head whose environment has no llmdet-data; tests add nodes, and take them away again."""
    python = python_of(tmp_path_factory.mktemp("environment") / "bare", installed=False)
    # What Ray gives a job by itself, 3 seconds, is less than a clean end may take.
    with Cluster(python, {"RAY_JOB_STOP_WAIT_TIME_S": "30"}) as started:
        yield started


def plain() -> dict[str, str]:
    """The environment without what names a cluster."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


def run_here(world: World, workspace: Path) -> list[str]:
    """The recipe as a process of this machine."""
    return [sys.executable, "-m", "cli", "run", str(world.recipe), "--workspace", str(workspace), "--json"]


def last_json(output: str) -> dict[str, Any]:
    """The JSON object among the lines of `ray job submit`, which adds its own after it."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    assert lines, output
    value = json.loads(lines[-1])
    assert isinstance(value, dict)
    return value
