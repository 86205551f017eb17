from __future__ import annotations

from pathlib import Path

import pytest

from llmdet.errors import LlmdetError, MissingError, SettingError
from llmdet.workspace import Workspace
from pipelines.cluster import cluster
from pipelines.nodes import Look, _judge, check_nodes, check_place


@pytest.mark.parametrize("address", ["/data/run", "s3://bucket/run", "file:///data/run", "run"])
def test_places_that_last_are_taken(address: str) -> None:
    check_place(address)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("memory://run", "lives in one process"),
        ("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1/workspace", "Ray deletes after the job"),
    ],
)
def test_places_that_do_not_last_are_refused_before_ray_starts(address: str, says: str) -> None:
    with pytest.raises(SettingError, match=says), cluster(address):
        raise AssertionError("Ray was started")


@pytest.mark.parametrize(
    ("look", "kind", "says"),
    [
        (
            Look("package", "/w", "No module named 'llmdet'"),
            SettingError,
            "^node a .* has no llmdet-data .*--working-dir",
        ),
        (Look("version", "/w", "0.0.9"), SettingError, "has llmdet-data 0.0.9, this is .*install the same"),
        (Look("write", "/w", "not there"), SettingError, r"does not see /w \(not there\); .* all nodes share"),
        (Look("read", "/photos", "not there"), MissingError, "does not see /photos"),
    ],
)
def test_a_node_that_cannot_take_part_is_named(look: Look, kind: type[LlmdetError], says: str) -> None:
    with pytest.raises(kind, match=says):
        _judge({"1": look, "2": Look()}, {"1": "a (10.0.0.1)", "2": "b (10.0.0.2)"})


def test_several_are_counted() -> None:
    names = {str(i): f"n{i} (10.0.0.{i})" for i in range(4)}
    with pytest.raises(SettingError, match=r"node n0 \(10.0.0.0\) and 3 more does not see"):
        _judge({node: Look("write", "/w", "not there") for node in names}, names)


def test_one_machine_is_not_asked(local: None, workspace: Workspace) -> None:
    check_nodes([workspace.url], ["/not/there"])
    assert not Path(workspace.url).exists()
