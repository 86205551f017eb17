from __future__ import annotations

from pathlib import Path

from llmdet.workspace import Workspace
from llmdet.world import write_world
from tests.pipelines import data_half, kills
from tests.pipelines.data_half import LINES, SCENES


def test_two_kills_change_no_byte(local: None, tmp_path: Path) -> None:
    world = tmp_path / "world"
    write_world(world, SCENES, 0)
    unbroken = Workspace.at(str(tmp_path / "unbroken"))
    data_half.run(str(world), unbroken, *data_half.settings_of("template", unbroken))
    broken = Workspace.at(str(tmp_path / "broken"))
    # Lines: 1 start, 9 ingest, 8 caption, 8 refine, 8 merge, 1 export.
    told = kills.run_with_kills(world, broken, "template", kills=2, steps=18, seed=1)
    assert len(told.killed) == 2
    assert Path(broken.path(LINES)).read_bytes() == Path(unbroken.path(LINES)).read_bytes()
    assert kills.ids(broken) == [f"world/{i + 1}/0" for i in range(SCENES)]
    assert (told.lost, told.left_over, kills.damaged(broken)) == (0, [], [])
