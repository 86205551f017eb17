"""Opening records for training."""

import os
import pickle
import time
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest

from detector.records import UNUSED_S, RecordTable, cache_folder, names_by_source
from llmdet.errors import DamagedError, MissingError
from llmdet.record import Box, Caption, Link, Provenance, Record, Region, to_batch
from llmdet.workspace import Manifest, Part, Table, to_parquet
from tests.detector import example_run


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMDET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a table of three rows is a large one."""
    monkeypatch.setattr("detector.records.DECODED_ROWS", 2)


SAID = Caption("A dog.", "a DOG", Provenance("lmm"), "abc", 1, 5, 3, (Link((2, 5), 0, 0),))
FULL = Record(
    "s/1/0", "s", "1", "0", "detection", "a.jpg", "w", 100, 50, "dog. cat. red cup. ",
    regions=(
        Region(("dog",), ((0, 3),), (Box((1.5, 2.0, 30.0, 40.0), 1, "human", 0.5, "7", 9.0, True, "{}", SAID),), 4),
        Region(("cat", "red cup"), ((5, 8), (10, 17)), (Box((0.0, 0.0, 9.0, 9.0), origin="pseudo"),)),
    ),
    negatives=((5, 8),), exhaustive=True, captions=(SAID, replace(SAID, text="Another.")), tags=("dog",),
    flags=("leak",), orientation="applied", image_sha256="00", split="train", licence="CC", origin="here",
    extra={"a": 1},
)  # fmt: skip


def as_trained(record: Record) -> Record:
    """A record as training reads it from a large table."""

    def bare(caption: Caption | None) -> Caption | None:
        return Caption(caption.text) if caption else None

    regions = tuple(
        replace(
            one,
            boxes=tuple(
                replace(b, score=None, annotation_id=None, area=None, mask=None, caption=bare(b.caption))
                for b in one.boxes
            ),
        )
        for one in record.regions
    )
    captions = tuple(Caption(one.text) for one in record.captions)
    return replace(record, regions=regions, captions=captions, image_sha256=None, split="", licence="", extra={})


def write(folder: Path, *parts: list[Record]) -> str:
    table = Table(str(folder))
    named = tuple(table.write_part(number, "f", to_batch(rows)) for number, rows in enumerate(parts))
    table.commit(Manifest("merge", "f", named))
    return str(folder)


def numbered(count: int) -> list[Record]:
    return [replace(FULL, id=f"s/{number}/0", width=100 + number) for number in range(count)]


@pytest.mark.usefixtures("large")
def test_a_large_table_reads_row_by_row_what_training_needs(tmp_path: Path) -> None:
    rows = numbered(5)
    empty = replace(FULL, id="s/9/0", regions=(), negatives=(), captions=(), tags=(), flags=())
    table = RecordTable(write(tmp_path / "t", rows[:2], [], [*rows[2:], empty]))
    assert table.decoded is None
    assert [table[row] for row in (5, 0, 4, 2)] == [as_trained(one) for one in (empty, rows[0], rows[4], rows[2])]
    assert len(list(cache_folder().glob("*/*.arrow"))) == 2
    again = pickle.loads(pickle.dumps(table))  # as a spawned reader gets it
    assert again[1] == as_trained(rows[1])


@pytest.mark.usefixtures("large")
def test_every_row_of_a_part_of_many_groups_is_found(tmp_path: Path) -> None:
    table = RecordTable(write(tmp_path / "t", numbered(70), numbered(33)))
    assert [table[row].width for row in range(103)] == [*range(100, 170), *range(100, 133)]


@pytest.mark.usefixtures("large")
def test_opening_a_large_table_reads_no_part_and_a_part_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "t", numbered(4))
    reads = []
    read = Table.read
    monkeypatch.setattr(Table, "read", lambda *args: reads.append(args) or read(*args))
    table = RecordTable(folder)
    assert not reads
    assert not cache_folder().exists()
    assert table[3].id == "s/3/0"
    assert table[0].id == RecordTable(folder)[0].id == "s/0/0"
    assert len(reads) == 1


@pytest.mark.usefixtures("large")
def test_another_table_at_the_same_place_is_not_read_from_the_old_files(tmp_path: Path) -> None:
    assert RecordTable(write(tmp_path / "t", numbered(4)))[1].width == 101
    other = [replace(one, width=7) for one in numbered(4)]
    assert RecordTable(write(tmp_path / "t", other))[1].width == 7


@pytest.mark.usefixtures("large")
def test_files_that_nobody_used_for_a_week_are_removed(tmp_path: Path) -> None:
    table = RecordTable(write(tmp_path / "first", numbered(4)))
    assert table[0]
    (first,) = cache_folder().iterdir()
    os.utime(first, (time.time() - UNUSED_S - 60,) * 2)
    assert RecordTable(write(tmp_path / "second", numbered(5)))[0]
    assert not first.exists()
    assert table[1].id == "s/1/0"  # what is open stays readable


@pytest.mark.usefixtures("large")
def test_without_a_place_to_write_records_are_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LLMDET_CACHE", str(tmp_path / "file"))
    table = RecordTable(write(tmp_path / "t", *[[one] for one in numbered(6)]))
    assert [table[row].id for row in range(6)] == [f"s/{row}/0" for row in range(6)]
    assert len(table.rows.open) == 4
    assert [entry.getMessage().split(":")[0] for entry in caplog.records] == ["records are read slowly"]


@pytest.mark.parametrize("rows", [2, 100])
def test_damage_is_one_line_at_the_latest_when_a_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("detector.records.DECODED_ROWS", rows)
    folder = write(tmp_path / "t", numbered(4))
    (part,) = (tmp_path / "t").glob("*.parquet")
    whole = part.read_bytes()
    part.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(DamagedError, match="doctor --verify"):
        RecordTable(folder)[0]
    part.write_bytes(whole[:-9])
    with pytest.raises(DamagedError, match="doctor --verify"):
        RecordTable(folder)
    part.unlink()
    with pytest.raises(MissingError, match="run merge again"):
        RecordTable(folder)


@pytest.mark.usefixtures("large")
def test_a_manifest_with_other_counts_is_found_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", numbered(4))
    manifest = orjson.loads((tmp_path / "t/manifest.json").read_bytes())
    manifest["parts"][0]["rows"] = 5
    (tmp_path / "t/manifest.json").write_bytes(orjson.dumps(manifest))
    with pytest.raises(DamagedError, match="has 4 rows, its manifest says 5"):
        RecordTable(folder)[0]


def test_a_small_table_is_decoded_whole(tmp_path: Path) -> None:
    table = RecordTable(example_run.data(tmp_path).records)
    assert [table[row] for row in range(6)] == example_run.records(6)


def test_parts_that_the_manifest_does_not_name_are_not_trained_on(tmp_path: Path) -> None:
    """They are those of a merge that was killed."""
    folder = example_run.data(tmp_path).records
    table = Table(folder)
    first, stray = table.listing()
    rows = table.read(first).num_rows
    table_of_first = Manifest("merge", "f", (Part(first, rows, ""),))
    (tmp_path / "records" / "manifest.json").write_bytes(orjson.dumps(asdict(table_of_first)))
    assert len(RecordTable(folder)) == rows
    assert (tmp_path / "records" / stray).is_file()


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """Brackets, stars and question marks are patterns to a file system that looks for files."""
    place = tmp_path / "a [1] *?"
    place.mkdir()
    assert len(RecordTable(example_run.data(place).records + "/")) == 6


@pytest.mark.parametrize("rows", [2, 100])
def test_names_of_a_source_are_those_of_its_detection_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("detector.records.DECODED_ROWS", rows)
    other = replace(FULL, source="t", regions=FULL.regions[:1])
    sentence = replace(FULL, kind="grounding", regions=(Region(("dog.",), ((0, 4),), ()),))
    (tmp_path / "part-00000.parquet").write_bytes(to_parquet(to_batch([FULL, other, FULL, sentence])))
    found = {source: names.to_pylist() for source, names in names_by_source(RecordTable(str(tmp_path))).items()}
    assert found == {"s": ["cat", "dog", "red cup"], "t": ["dog"]}
