from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from llmdet.errors import MissingError, SettingError
from llmdet.exports.groundingcap import GroundingCap
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.workspace import Manifest, Table, Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.export import export
from pipelines.merge import MergeSettings, merge, outdated, split_of
from pipelines.parts import run_parts
from pipelines.refine import RefineSettings, refine
from tests.pipelines.fakes import INFO, DropImage, Fake, record, told, write_records

LeftOut = Callable[[Table], list[Reject]]


def named(source: str, number: int, image: int | None = None) -> Record:
    one = record(number, image)
    return replace(one, id=one.id.replace("hand", source), source=source, root=source)


def write(workspace: Workspace, source: str, records: Sequence[Record], part_rows: int, key: str = "k") -> None:
    table = workspace.records(source)
    groups = [records[i : i + part_rows] for i in range(0, len(records), part_rows)]
    parts = tuple(table.write_part(i, key, to_batch(group)) for i, group in enumerate(groups))
    table.commit(Manifest("ingest", key, parts, info=replace(INFO, name=source).to_dict()))


def ids(workspace: Workspace) -> list[str]:
    return [one.id for part in workspace.groundingcap().batches() for one in from_batch(part)]


@pytest.fixture
def three(workspace: Workspace) -> Workspace:
    for source, count in (("b", 5), ("a", 3), ("c", 2)):
        write(workspace, source, [named(source, i) for i in range(count)], part_rows=2)
    return workspace


def test_sources_come_by_name_or_in_the_order_asked_for(local: None, three: Workspace) -> None:
    assert merge(three).records == 10
    assert ids(three) == [f"{s}/{i}/{i}" for s, n in (("a", 3), ("b", 5), ("c", 2)) for i in range(n)]
    done = merge(three, MergeSettings(order=("c", "a")))
    assert (done.skipped, done.records) == (False, 5)
    assert ids(three) == [f"{s}/{i}/{i}" for s, n in (("c", 2), ("a", 3)) for i in range(n)]
    assert merge(three, MergeSettings(order=("c", "a"))).skipped


def test_a_cap_keeps_the_first_and_rejects_the_rest(local: None, three: Workspace, left_out: LeftOut) -> None:
    done = merge(three, MergeSettings(caps={"b": 3, "c": 0}))
    assert (done.records, done.rejects, done.faults) == (6, {"over_cap": 4}, {})
    assert ids(three) == ["a/0/0", "a/1/1", "a/2/2", "b/0/0", "b/1/1", "b/2/2"]
    assert told(left_out(three.rejects("merge", "all"))) == [
        (f"{one}/{one[-1]}", "record", "policy", "over_cap") for one in ("b/3", "b/4", "c/0", "c/1")
    ]


def test_new_captions_are_merged_again(local: None, three: Workspace) -> None:
    merge(three)
    refine(three, "a", RefineSettings(rules=(DropImage("1.jpg"),)))
    done = merge(three)
    assert (done.skipped, done.records) == (False, 9)
    assert ids(three)[:2] == ["a/0/0", "a/2/2"]


def test_what_changed_after_a_merge_is_told(local: None, three: Workspace) -> None:
    assert outdated(three) == []
    merge(three, MergeSettings(order=("b", "c")))
    assert outdated(three) == []
    refine(three, "a", RefineSettings(rules=(DropImage("1.jpg"),)))
    assert outdated(three) == []  # that merge did without it
    merge(three)
    assert outdated(three) == []
    refine(three, "b", RefineSettings(rules=(DropImage("1.jpg"),)))
    write(three, "d", [named("d", 1)], part_rows=2)
    assert outdated(three) == ["b", "d"]


def test_captions_of_older_records_are_never_merged_unseen(local: None, three: Workspace, tmp_path: Path) -> None:
    refine(three, "a", RefineSettings(rules=()))
    write(three, "a", [named("a", 7)], part_rows=2, key="corrected")
    with pytest.raises(MissingError, match=r"captions of a were made from other records .* refine --source a"):
        merge(three)
    with pytest.raises(MissingError, match="refine --source a"):
        export(three, GroundingCap(), str(tmp_path / "out"), source="a")
    refine(three, "a", RefineSettings(rules=()))
    assert merge(three).records == 8
    assert ids(three)[0] == "a/7/7"


def test_splits_are_by_picture_and_the_same_every_time(local: None, workspace: Workspace) -> None:
    write(workspace, "a", [named("a", i, image=i % 40) for i in range(80)], part_rows=7)
    write(workspace, "b", [named("b", i, image=i) for i in range(40)], part_rows=50)  # the same pictures
    settings = MergeSettings(splits={"val": 0.25, "test": 0.25})
    merge(workspace, settings)
    found = [(one.image_id, one.split) for part in workspace.groundingcap().batches() for one in from_batch(part)]

    def expected(number: int) -> str:
        place = int.from_bytes(hashlib.blake2b(f"{number:064d}".encode(), digest_size=8).digest(), "big") / 2**64
        return "val" if place < 0.25 else "test" if place < 0.5 else "train"

    assert found == [(str(i % 40), expected(i % 40)) for i in range(80)] + [(str(i), expected(i)) for i in range(40)]
    assert {split for _, split in found} == {"val", "test", "train"}


def test_shares_of_splits_are_about_right() -> None:
    counts = {"val": 0, "train": 0}
    for i in range(20_000):
        counts[split_of(str(i), {"val": 0.1})] += 1
    assert 1800 < counts["val"] < 2200  # ten standard deviations are 424


def test_without_splits_the_sources_own_stay(local: None, workspace: Workspace) -> None:
    write(workspace, "a", [replace(named("a", 0), split="minival")], part_rows=2)
    merge(workspace)
    assert [one.split for one in workspace.groundingcap().records()] == ["minival"]


def test_what_is_not_there_is_named(workspace: Workspace) -> None:
    with pytest.raises(MissingError, match="run: llmdet-data ingest"):
        merge(workspace)
    write(workspace, "a", [named("a", 0)], part_rows=2)
    with pytest.raises(SettingError, match=r"merge names the sources \['coca'\], the workspace has \['a'\]"):
        merge(workspace, MergeSettings(order=("coca",)))
    with pytest.raises(SettingError, match=r"\['b'\]"):
        merge(workspace, MergeSettings(caps={"b": 1}))


def test_export_works_before_merge_caption_and_refine(three: Workspace, tmp_path: Path) -> None:
    done = export(three, GroundingCap(), str(tmp_path / "out"))
    lines = (tmp_path / "out" / "groundingcap.jsonl").read_bytes().splitlines()
    assert (done.files, done.records, done.boxes, len(lines)) == (("groundingcap.jsonl",), 10, 10, 10)
    assert export(three, GroundingCap(), str(tmp_path / "one"), source="b").records == 5
    with pytest.raises(MissingError, match="llmdet-data ingest --source nobody"):
        export(three, GroundingCap(), str(tmp_path / "none"), source="nobody")


def test_the_jsonl_is_the_same_whatever_the_parts_chunks_and_workers(
    local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for number, (part_rows, chunk_images, workers) in enumerate([(3, 2, 1), (7, 5, 2), (50, 3, 4), (1, 50, 4)]):
        workspace = Workspace.at(str(tmp_path / str(number)))
        write_records(workspace, [record(i, image=i % 9, boxes=i % 4) for i in range(20)], part_rows)
        engine = Fake(log=str(tmp_path / f"{number}.jsonl"))
        settings = CaptionSettings(chunk_images=chunk_images, concurrency=workers)
        for stage in ("pipelines.refine", "pipelines.merge"):
            monkeypatch.setattr(f"{stage}.run_parts", lambda *a, n=workers, **kw: run_parts(*a, **kw, concurrency=n))
        caption(workspace, "hand", engine, settings)
        refine(workspace, "hand")
        merge(workspace)
        export(workspace, GroundingCap(), workspace.path("out"))
        found.add(Path(workspace.path("out", "groundingcap.jsonl")).read_bytes())
    (only,) = found
    assert only.count(b"\n") == 20
