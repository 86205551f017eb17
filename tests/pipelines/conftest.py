"""Fixtures of the tests of pipelines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmdet import rejects
from llmdet.rejects import Reject
from llmdet.workspace import Table, Workspace
from tests.pipelines import fakes


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


@pytest.fixture
def local(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray whose workers get the fakes by value (they need not find this folder), and know the fake prompts."""
    import ray

    from llmdet.prompts import PROMPTS

    ray.cloudpickle.register_pickle_by_value(fakes)
    for name, kind in fakes.PROMPTS.items():
        monkeypatch.setitem(PROMPTS, name, kind)
    yield
    ray.cloudpickle.unregister_pickle_by_value(fakes)


@pytest.fixture
def left_out() -> Callable[[Table], list[Reject]]:
    """The rows of a table of rejects, [] where there is none."""

    def read(table: Table) -> list[Reject]:
        return [row for part in table.batches() for row in rejects.from_batch(part)] if table.manifest() else []

    return read


@pytest.fixture
def ages() -> Callable[[str], dict[str, int]]:
    """Names of the parquet files of a folder with their time of writing."""

    def read(url: str) -> dict[str, int]:
        return {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(url) if entry.name.endswith(".parquet")}

    return read
