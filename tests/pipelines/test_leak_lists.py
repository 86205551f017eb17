"""Folders of evaluation photos are hashed once, and again when they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdet.leaks import Leak, LeakSettings
from llmdet.workspace import Workspace
from llmdet.world import write_world
from pipelines import leak_lists as module
from pipelines.leak_lists import leak_lists, state_of_lists

SCENES = 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_world(tmp_path / "world", SCENES, 0)
    return tmp_path / "world" / "images"


def test_a_folder_is_hashed_once_in_parallel(
    ray_local: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.at(str(tmp_path / "workspace"))
    settings = LeakSettings(photos=(str(folder),))
    monkeypatch.setattr(module, "CHUNK", 3)
    (folder / "broken.jpg").write_bytes(b"no picture")
    leaks = leak_lists(workspace, settings)
    (photos,) = leaks.photos
    assert photos.names == tuple(sorted(path.name for path in folder.iterdir() if path.name != "broken.jpg"))
    assert (len(photos.names), photos.unreadable) == (SCENES, 1)
    assert leaks.by_looks(photos.sha256[2], None) == Leak("photos images", "sha256", photos.names[2])
    with monkeypatch.context() as patch:
        patch.setattr(module, "_hashed", lambda folder: pytest.fail("hashed again"))
        assert leak_lists(workspace, settings).photos[0].sha256 == photos.sha256
    (folder / "broken.jpg").unlink()
    (again,) = leak_lists(workspace, settings).photos
    assert (again.sha256, again.unreadable) == (photos.sha256, 0)


def test_keep_hashes_nothing_and_a_missing_folder_is_not_checked(folder: Path, tmp_path: Path) -> None:
    workspace = Workspace.at(str(tmp_path / "workspace"))
    kept = leak_lists(workspace, LeakSettings(photos=(str(folder),), action="keep"))
    assert not kept.by_content
    gone = leak_lists(workspace, LeakSettings(photos=(str(tmp_path / "gone"),)))
    assert gone.report("coco")["lists"]["photos gone"]["why"] == f"there is no {tmp_path}/gone"
    assert not Path(workspace.url).exists()


def test_a_changed_list_is_a_new_input(tmp_path: Path) -> None:
    path = tmp_path / "val.json"
    settings = LeakSettings(coco_val=str(path), refcoco=(str(tmp_path / "gone.p"),))
    before = state_of_lists(settings)
    assert before == {str(path): "", str(tmp_path / "gone.p"): ""}
    path.write_text('{"images": []}')
    after = state_of_lists(settings)
    assert after[str(path)] != before[str(path)]
    path.write_text('{"images": [{"id": 1}]}')
    assert state_of_lists(settings)[str(path)] != after[str(path)]
