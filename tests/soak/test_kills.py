from __future__ import annotations

from pathlib import Path

import pytest

from llmdet.workspace import Workspace
from llmdet.world import write_world
from tests.pipelines import data_half, kills
from tests.pipelines.conftest import local  # noqa: F401  a fixture
from tests.pipelines.data_half import LINES, SCENES

KILLS = 20


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["template", "fake"])
def test_twenty_kills_change_no_byte(local: None, tmp_path: Path, engine: str) -> None:  # noqa: F811
    world = tmp_path / "world"
    write_world(world, SCENES, 0)
    unbroken = Workspace.at(str(tmp_path / "unbroken"))
    data_half.run(str(world), unbroken, *data_half.settings_of(engine, unbroken))
    expected = Path(unbroken.path(LINES)).read_bytes()
    killed = []
    # A run that is killed again and again gets through a few steps each time; five kills a workspace reach every stage.
    for seed in range(KILLS):
        broken = Workspace.at(str(tmp_path / f"broken-{seed}"))
        told = kills.run_with_kills(world, broken, engine, kills=min(5, KILLS - len(killed)), steps=16, seed=seed)
        killed += told.killed
        print(seed, told)
        assert Path(broken.path(LINES)).read_bytes() == expected
        assert kills.ids(broken) == [f"world/{i + 1}/0" for i in range(SCENES)]
        assert (told.lost, told.left_over, kills.damaged(broken)) == (0, [], [])
        if len(killed) == KILLS:
            break
    assert len(killed) == KILLS
