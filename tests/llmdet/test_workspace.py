from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmdet.errors import DamagedError, FormatError, MissingError
from llmdet.record import SCHEMA, to_batch
from llmdet.workspace import Manifest, Table, Workspace, concat, fingerprint, to_parquet
from tests.llmdet.example_records import FULL, SENTENCE

NUMBERS = pa.table({"n": [1, 2, 3]})


@pytest.fixture(params=["local", "memory"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    return Table(str(tmp_path / "t") if request.param == "local" else f"memory://{tmp_path.name}/t")


def numbers(*values: int) -> pa.Table:
    return pa.table({"n": list(values)})


def commit(table: Table, key: str, *groups: pa.Table) -> Manifest:
    manifest = Manifest("stage", key, tuple(table.write_part(i, key, group) for i, group in enumerate(groups)))
    table.commit(manifest)
    return manifest


def test_a_table_is_what_was_committed_in_order(table: Table) -> None:
    assert table.manifest() is None
    manifest = commit(table, "abc", numbers(1, 2), numbers(3))
    assert table.manifest() == manifest
    assert manifest.rows == 3
    assert [part.to_pydict() for part in table.batches()] == [{"n": [1, 2]}, {"n": [3]}]


def test_parts_without_a_manifest_are_no_table(table: Table) -> None:
    table.write_part(0, "abc", numbers(1))
    assert table.manifest() is None
    with pytest.raises(MissingError, match=r"no finished table at .*; run ingest"):
        table.require("run ingest")
    with pytest.raises(MissingError):
        next(table.batches())


def test_a_new_commit_takes_the_place_of_the_old_parts_and_of_half_written_ones(table: Table) -> None:
    commit(table, "old", numbers(1), numbers(2))
    table.write_part(7, "killed", numbers(9))
    if "://" not in table.url:
        Path(table.url, ".part-00000-old.parquet.12345678").write_bytes(b"half")
    commit(table, "new", numbers(5))
    assert table.listing() == ["part-00000-new.parquet"]
    assert [part.to_pydict() for part in table.batches()] == [{"n": [5]}]
    if "://" not in table.url:
        assert sorted(os.listdir(table.url)) == ["manifest.json", "part-00000-new.parquet"]


def test_fingerprints_that_begin_alike_have_parts_of_their_own(table: Table) -> None:
    one, other = "0123456789abcdef", "01234567ffffffff"
    assert table.part_name(0, one) != table.part_name(0, other)
    table.write_part(0, one, numbers(1))
    table.write_part(0, other, numbers(2))
    assert table.read(table.part_name(0, one)).to_pydict() == {"n": [1]}


def test_a_removed_table_is_gone(table: Table) -> None:
    commit(table, "abc", numbers(1))
    table.remove()
    assert (table.manifest(), table.listing()) == (None, [])
    table.remove()


def test_reading_takes_only_the_columns_asked_for(table: Table) -> None:
    commit(table, "abc", pa.table({"n": [1], "m": ["x"]}))
    assert [part.to_pydict() for part in table.batches(["m"])] == [{"m": ["x"]}]


def test_records_come_back_equal(table: Table) -> None:
    commit(table, "abc", pa.Table.from_batches([to_batch([FULL])]), pa.Table.from_batches([to_batch([SENTENCE])]))
    assert list(table.records()) == [FULL, SENTENCE]


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    table = Table(str(tmp_path))
    commit(table, "abc", numbers(1), numbers(2), numbers(3))
    assert table.damaged() == []
    (tmp_path / "part-00000-abc.parquet").unlink()
    (tmp_path / "part-00002-abc.parquet").write_bytes(b"PAR1 and then nothing")
    assert table.damaged() == ["part-00000-abc.parquet", "part-00002-abc.parquet"]
    with pytest.raises(DamagedError, match=r"part-00002-abc\.parquet is damaged: .*doctor --verify"):
        table.read("part-00002-abc.parquet")


@pytest.mark.parametrize("content", [b'{"stage": "x"}', b'{"parts": [], "colour": 1}', b"{", b"[1]"])
def test_a_broken_manifest_is_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"manifest\.json"):
        Table(str(tmp_path)).manifest()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(str(tmp_path / "t"))
    commit(table, "abc", numbers(1))

    def full(source: str, target: str) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        table.write_part(0, "def", numbers(2))
    monkeypatch.undo()
    assert sorted(os.listdir(table.url)) == ["manifest.json", "part-00000-abc.parquet"]


def test_the_same_data_is_the_same_bytes() -> None:
    batch = to_batch([FULL, SENTENCE] * 400)
    assert to_parquet(batch) == to_parquet(pa.Table.from_batches([batch]))
    assert pq.read_metadata(pa.BufferReader(to_parquet(batch))).num_row_groups == 1


def test_a_fingerprint_ignores_the_order_of_keys_only() -> None:
    one = fingerprint({"a": 1, "b": [1, 2]})
    assert one == fingerprint({"b": [1, 2], "a": 1})
    assert len({one, fingerprint({"a": 1, "b": [2, 1]}), fingerprint({"a": "1", "b": [1, 2]})}) == 3


def test_concat_of_nothing_has_the_schema() -> None:
    assert concat([], SCHEMA) == SCHEMA.empty_table()
    assert concat([to_batch([FULL]), pa.Table.from_batches([to_batch([FULL])])], SCHEMA).num_rows == 2


def test_a_workspace_lists_what_is_finished(tmp_path: Path) -> None:
    workspace = Workspace.at(str(tmp_path))
    assert (workspace.sources(), workspace.reject_tables()) == ([], [])
    commit(workspace.records("b"), "k", numbers(1))
    commit(workspace.records("a"), "k", numbers(1))
    workspace.records("half").write_part(0, "k", numbers(1))
    commit(workspace.rejects("ingest", "a"), "k", numbers())
    workspace.rejects("ingest", "b").write_part(0, "k", numbers(1))
    assert workspace.sources() == ["a", "b"]
    assert [(stage, source) for stage, source, _ in workspace.reject_tables()] == [("ingest", "a")]


def test_pseudo_boxes_are_preferred_once_they_are_finished(tmp_path: Path) -> None:
    workspace = Workspace.at(str(tmp_path))
    commit(workspace.records("a"), "k", numbers(1))
    workspace.grounded("a").write_part(0, "k", numbers(1))
    assert workspace.best_records("a") == workspace.records("a")
    commit(workspace.grounded("a"), "k", numbers(1))
    assert workspace.best_records("a") == workspace.grounded("a")


def test_a_relative_workspace_becomes_absolute_and_a_url_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workspace.at("w").url == str(tmp_path / "w")
    assert Workspace.at("s3://bucket/w").url == "s3://bucket/w"
    assert Workspace.at("s3://bucket/w").captions("coco").url == "s3://bucket/w/captions/coco"
    assert Workspace("w").responses("coco", "image", "0f") == "w/responses/coco/image-0f"
