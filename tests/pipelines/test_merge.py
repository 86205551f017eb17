from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.parquet as pq
import pytest

from llmdet.errors import DamagedError, MissingError, SettingError
from llmdet.exports.groundingcap import GroundingCap
from llmdet.quality import Quality
from llmdet.record import SCHEMA, Caption, Link, Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.seal import seal
from llmdet.workspace import Manifest, Table, Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.export import export, exporter_of
from pipelines.merge import MergeSettings, merge, outdated, split_of
from pipelines.parts import run_parts
from pipelines.refine import RefineSettings, refine
from pipelines.tasks import in_order
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
        monkeypatch.setattr(
            "pipelines.refine.run_parts", lambda *a, n=workers, **kw: run_parts(*a, **kw, concurrency=n)
        )
        monkeypatch.setattr("pipelines.merge.in_order", lambda *a, n=workers: in_order(*a, concurrency=n))
        caption(workspace, "hand", engine, settings)
        refine(workspace, "hand")
        merge(workspace)
        export(workspace, GroundingCap(), workspace.path("out"))
        found.add(Path(workspace.path("out", "groundingcap.jsonl")).read_bytes())
    (only,) = found
    assert only.count(b"\n") == 20


def rich(number: int) -> Record:
    """Record `number` of source a, with 0 to 2 captions (the second one the longer), a link, a flag and a check."""
    captions = (Caption("A dog.", links=(Link((2, 5), 0),)), Caption("A dog on grass."))[: number % 3]
    extra = {"checks": {"counts": {"claims": 2, "wrong": number % 2}}}
    flags = ("count_contradiction",) if number % 2 else ()
    return replace(named("a", number, image=number % 40), captions=captions, flags=flags, extra=extra)


@pytest.mark.parametrize(("choice", "text"), [("first", "A dog."), ("longest", "A dog on grass.")])
def test_one_caption_can_be_chosen(
    local: None, workspace: Workspace, left_out: LeftOut, choice: Literal["first", "longest"], text: str
) -> None:
    write(workspace, "a", [rich(i) for i in range(6)], part_rows=4)
    merge(workspace, MergeSettings(captions=choice))
    found = [[caption.text for caption in one.captions] for one in workspace.groundingcap().records()]
    assert found == [[], ["A dog."], [text]] * 2
    lost = 1 if choice == "first" else 0
    assert told(left_out(workspace.rejects("merge", "all"))) == [
        (f"a/{i}/{i}#image_caption-{lost}", "annotation", "policy", "caption_not_chosen") for i in (2, 5)
    ]


def test_a_weight_below_one_draws_photos_and_above_one_repeats_records(
    local: None, workspace: Workspace, left_out: LeftOut
) -> None:
    write(workspace, "a", [named("a", i, image=i % 40) for i in range(80)], part_rows=7)
    write(workspace, "b", [named("b", i) for i in range(2)], part_rows=2)

    def drawn(number: int, weight: float) -> bool:
        digest = hashlib.blake2b(f"{number:064d}".encode(), digest_size=8, person=b"weight").digest()
        return int.from_bytes(digest, "big") / 2**64 < weight

    done = merge(workspace, MergeSettings(weights={"a": 0.25, "b": 3}))
    kept = [i for i in range(80) if drawn(i % 40, 0.25)]
    assert 0 < len(kept) < 40
    thrice = ["b/0/0", "b/0/0~2", "b/0/0~3", "b/1/1", "b/1/1~2", "b/1/1~3"]
    assert ids(workspace) == [f"a/{i % 40}/{i}" for i in kept] + thrice
    assert [one.text_id for one in workspace.groundingcap().records()][-3:] == ["1", "1~2", "1~3"]
    assert done.rejects == {"not_drawn": 80 - len(kept)}
    assert len(left_out(workspace.rejects("merge", "all"))) == 80 - len(kept)
    merge(workspace, MergeSettings(order=("a",), weights={"a": 1.25}))
    twice = [name for i in range(80) for name in [f"a/{i % 40}/{i}", f"a/{i % 40}/{i}~2"][: 1 + drawn(i % 40, 0.25)]]
    assert ids(workspace) == twice


def test_what_a_weight_draws_is_spread_over_the_splits(local: None, workspace: Workspace) -> None:
    write(workspace, "a", [named("a", i) for i in range(400)], part_rows=200)
    merge(workspace, MergeSettings(weights={"a": 0.5}, splits={"val": 0.5}))
    counts = Counter(one.split for one in workspace.groundingcap().records())
    assert 60 < counts["val"] < 140  # all 200 or none, if both were the same draw


def test_statistics_by_source_and_flag_stand_in_the_manifest(local: None, workspace: Workspace) -> None:
    write(workspace, "a", [rich(i) for i in range(7)], part_rows=3)
    write(workspace, "b", [named("b", 0)], part_rows=3)
    merge(workspace, MergeSettings(caps={"a": 6}, splits={"val": 1}))
    info = workspace.groundingcap().require("").info
    assert Quality.from_dict(info["quality"]["a"]) == Quality(
        records=6,
        captioned=4,
        image_captions=6,
        linked_captions=4,
        links=4,
        regions=4,
        linked_regions=4,
        splits=Counter(val=6),
        flags=Counter(count_contradiction=3),
        claims=Counter(counts=12),
        wrong=Counter(counts=3),
    )
    assert info["quality"]["b"]["image_captions"] == 0
    card = Path(workspace.groundingcap().url, "README.md").read_text()
    assert "| a | 50.0 % |" in card
    assert "| merge | record | policy | over_cap | 1 |" in card


def test_the_jsonl_of_a_drawn_set_is_the_same_whatever_the_parts_and_workers(
    local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = MergeSettings(caps={"a": 50}, weights={"a": 1.5, "b": 0.5}, captions="longest", splits={"val": 0.3})
    found = set()
    for part_rows, workers in [(1, 4), (7, 1), (7, 2), (7, 4), (100, 2)]:
        workspace = Workspace.at(str(tmp_path / f"{part_rows}-{workers}"))
        write(workspace, "a", [rich(i) for i in range(60)], part_rows)
        write(workspace, "b", [named("b", i) for i in range(30)], part_rows)
        monkeypatch.setattr("pipelines.merge.in_order", lambda *a, n=workers: in_order(*a, concurrency=n))
        merge(workspace, settings)
        export(workspace, GroundingCap(), workspace.path("out"))
        export(workspace, GroundingCap(split="val"), workspace.path("val"))
        out, val = (Path(workspace.path(name, "groundingcap.jsonl")).read_bytes() for name in ("out", "val"))
        found.add((out, val))
    ((out, val),) = found
    assert out.count(b"\n") > 60
    assert 0 < val.count(b"\n") < out.count(b"\n")


def test_settings_that_make_no_sense_are_named(three: Workspace) -> None:
    for settings, message in [
        (MergeSettings(weights={"x": 1}), r"merge names the sources \['x'\]"),
        (MergeSettings(weights={"a": -1}), r"merge.weights.a must be from 0 to 100; got -1"),
        (MergeSettings(splits={"val": 0.7, "test": 0.7}), "sum of at most 1"),
    ]:
        with pytest.raises(SettingError, match=message):
            merge(three, settings)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("odvg", {}),
        ("odvg", {"compression": "gzip"}),
        ("odvg", {"split": "val"}),
        ("odvg", {"shard_records": 4}),
        ("groundingcap", {}),
        ("parquet", {}),
        ("parquet", {"split": "val"}),
    ],
)
def test_files_are_the_same_whether_tasks_or_threads_made_them(
    local: None,
    three: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, object],
) -> None:
    write(three, "d", [replace(named("d", i), split="val") for i in range(5)], part_rows=3)
    exporter = exporter_of(name, options)
    threads = export(three, exporter, str(tmp_path / "threads"))
    monkeypatch.setattr("pipelines.tasks.on_cluster", lambda: True)
    tasks = export(three, exporter, str(tmp_path / "tasks"))
    assert (tasks.files, tasks.records, tasks.boxes, tasks.lost) == (
        threads.files,
        threads.records,
        threads.boxes,
        threads.lost,
    )
    for file in threads.files:
        assert (tmp_path / "tasks" / file).read_bytes() == (tmp_path / "threads" / file).read_bytes()


def test_parquet_takes_the_parts_of_the_table_as_they_are(local: None, three: Workspace, tmp_path: Path) -> None:
    merge(three)
    out = tmp_path / "out"
    export(three, exporter_of("parquet", {"shard_records": 1}), str(out))
    done = export(three, exporter_of("parquet"), str(out))
    assert (done.files[0], len(done.files), done.records, done.boxes) == ("records-00000.parquet", 6, 10, 10)
    assert sorted(path.name for path in out.iterdir()) == list(done.files)
    parts = three.groundingcap().require("").parts
    assert [hashlib.sha256((out / name).read_bytes()).hexdigest() for name in done.files] == [p.sha256 for p in parts]


def test_parquet_of_other_types_is_brought_to_ours(three: Workspace, tmp_path: Path) -> None:
    table = three.records("c")
    (part,) = table.require("").parts
    path = Path(table.url, part.name)
    expected = list(table.records())
    sink = io.BytesIO()
    pl.read_parquet(path).write_parquet(sink)
    path.write_bytes(seal(sink.getvalue()))
    done = export(three, exporter_of("parquet"), str(tmp_path / "out"), source="c")
    (read,) = (pq.ParquetFile(tmp_path / "out" / name).read() for name in done.files)
    assert (read.schema.equals(SCHEMA), from_batch(read)) == (True, expected)


def test_a_damaged_part_is_named(local: None, three: Workspace, tmp_path: Path) -> None:
    table = three.records("c")
    path = Path(table.url, table.require("").parts[0].name)
    path.write_bytes(b"PAR1 half of a file")
    with pytest.raises(DamagedError, match=rf"{path.name} is damaged: .* doctor --verify"):
        merge(three)
    for name in ("parquet", "odvg"):
        with pytest.raises(DamagedError, match=path.name):
            export(three, exporter_of(name), str(tmp_path / "out"), source="c")
