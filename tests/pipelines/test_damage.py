"""One flipped bit in any stored shard: found, named, and only that shard is made again."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from llmdet import files
from llmdet.errors import DamagedError
from llmdet.exports.groundingcap import GroundingCap
from llmdet.sources.coco import Coco
from llmdet.workspace import Workspace
from llmdet.world import write_world
from pipelines.caption import CaptionSettings, caption
from pipelines.doctor import Finding, doctor
from pipelines.engines.template import TemplateEngine
from pipelines.export import export
from pipelines.ingest import IngestSettings, ingest
from pipelines.ledger import Ledger
from pipelines.merge import merge
from pipelines.refine import RefineSettings, refine
from pipelines.verify import check_files
from tests.pipelines.fakes import Fake, NeedAttempt, record, write_records


@dataclass(frozen=True)
class Loop:
    """The data half over a small world with one photo missing, so that there are rejects too."""

    world: Path
    workspace: Workspace

    def source(self) -> Coco:
        return Coco(annotations=str(self.world / "annotations.json"), images=str(self.world / "images"), name="world")

    def run(self) -> bytes:
        """All stages; what the jsonl of the end holds."""
        place = self.workspace
        ingest(place, self.source(), IngestSettings(part_rows=5))
        caption(place, "world", TemplateEngine(), CaptionSettings(chunk_images=5))
        refine(place, "world")
        merge(place)
        export(place, GroundingCap(), place.path("exports"))
        return Path(place.path("exports", "groundingcap.jsonl")).read_bytes()

    def shards(self) -> dict[Path, str]:
        """Every stored parquet file with its hash."""
        found = sorted(Path(self.workspace.url).rglob("part-*.parquet"))
        return {path: files.sha256(path.read_bytes()) for path in found}


@pytest.fixture
def loop(local: None, tmp_path: Path, workspace: Workspace) -> Loop:
    world = tmp_path / "world"
    write_world(world, 20, 0)
    (world / "images" / "000000000003.jpg").unlink()
    return Loop(world, workspace)


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def about_files(workspace: Workspace, remove: bool = False) -> list[Finding]:
    return [one for one in doctor(workspace, verify=True, remove=remove) if one.subject == "files"]


def test_a_flipped_bit_in_any_shard_is_found_and_named(loop: Loop) -> None:
    loop.run()
    draw, shards = random.Random(0), loop.shards()
    others = 4  # which ledger is the newest, and that it is complete, of two tasks
    assert check_files(loop.workspace) == (len(shards) + others, [])
    kinds = {path.relative_to(loop.workspace.url).parts[0] for path in shards}
    assert kinds == {"records", "responses", "asks", "captions", "groundingcap", "rejects"}
    for path in shards:
        whole = path.read_bytes()
        for _ in range(5):
            flip(path, draw)
            number, found = check_files(loop.workspace)
            assert (number, [one.url for one in found]) == (len(shards) + others, [str(path)])
            path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["records", "responses", "captions", "groundingcap"])
def test_only_damaged_shards_are_made_again_and_the_end_is_the_same(loop: Loop, kind: str) -> None:
    before = loop.run()
    # With a table its rejects, and with captions what was sent back: one shard of each.
    stage = {"records": "ingest", "responses": "caption", "captions": "refine", "groundingcap": "merge"}[kind]
    folders = {path.parent: path for path in loop.shards()}
    paths = [path for folder, path in folders.items() if {kind, stage} & set(folder.parts)]
    assert len(paths) >= 2
    for number, path in enumerate(paths):
        flip(path, random.Random(number))
    removed = about_files(loop.workspace, remove=True)
    assert {(one.level, one.text) for one in removed} == {
        ("warn", f"{path} is damaged: its checksum does not fit its content: removed") for path in paths
    }
    assert all(one.hint.startswith(f"run: llmdet-data {stage}") for one in removed)
    left = {other: other.stat().st_mtime_ns for path in paths for other in path.parent.glob("part-*.parquet")}
    assert loop.run() == before
    assert {other: other.stat().st_mtime_ns for other in left} == left
    assert [one.level for one in about_files(loop.workspace)] == ["ok"]


def test_only_the_requests_of_a_damaged_response_file_are_asked_again(
    local: None, workspace: Workspace, tmp_path: Path
) -> None:
    engine = Fake(log=str(tmp_path / "asked.jsonl"))
    write_records(workspace, [record(i, boxes=2) for i in range(12)], part_rows=4)
    done = caption(workspace, "hand", engine, CaptionSettings(chunk_images=3))
    ledger = Ledger(done.ledgers["region"])
    path = Path(ledger.url, ledger.names()[2])
    gone = ledger.read(path.name)["record_id"].to_pylist()
    flip(path, random.Random(2))
    with pytest.raises(DamagedError, match=f"{path.name} is damaged.* doctor --verify --remove-damaged"):
        refine(workspace, "hand", RefineSettings(rules=()))
    (found,) = about_files(workspace, remove=True)
    assert found.hint == "run: llmdet-data caption --source hand (only its requests are asked again)"
    Path(engine.log).unlink()
    again = caption(workspace, "hand", engine, CaptionSettings(chunk_images=3))
    assert (again.asked, again.answered) == (3, 24)
    assert Counter((one["record"], one["task"]) for one in engine.asked()) == {(name, "region"): 1 for name in gone}


def test_answers_that_were_sent_back_come_again_too(local: None, workspace: Workspace, tmp_path: Path) -> None:
    engine = Fake(log=str(tmp_path / "asked.jsonl"))
    write_records(workspace, [record(i, boxes=0) for i in range(6)], part_rows=3)
    rules = RefineSettings(rules=(NeedAttempt(1),))
    caption(workspace, "hand", engine, CaptionSettings(chunk_images=2))
    assert refine(workspace, "hand", rules).asks == 6
    table = workspace.asks("hand")
    flip(Path(table.url, table.listing()[1]), random.Random(3))
    (found,) = about_files(workspace, remove=True)
    assert found.hint == "run: llmdet-data refine --source hand"
    assert refine(workspace, "hand", rules).asks == 6
    caption(workspace, "hand", replace(engine), CaptionSettings(chunk_images=2))
    assert refine(workspace, "hand", rules).asks == 0


def test_no_stage_passes_damage_on(loop: Loop) -> None:
    loop.run()
    table = loop.workspace.captions("world")
    path = Path(table.url, table.listing()[0])
    flip(path, random.Random(4))
    loop.workspace.groundingcap().remove()
    with pytest.raises(DamagedError, match=f"{path.name} is damaged"):
        merge(loop.workspace)
