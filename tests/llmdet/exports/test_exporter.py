import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmdet import files
from llmdet.errors import FormatError, SettingError
from llmdet.exports import EXPORTERS, exporter
from llmdet.exports.odvg import Odvg
from llmdet.exports.parquet import Parquet
from llmdet.record import Record, from_batch, to_batch
from llmdet.sources.source import SourceInfo
from tests.llmdet.example_records import FULL, PETS, SENTENCE


def numbered(count: int, split: str = "") -> pa.RecordBatch:
    return to_batch(
        [
            Record(f"c/{i}/0", "c", str(i), "0", "grounding", f"{i}.jpg", "c", 9, 9, "x", split=split)
            for i in range(count)
        ]
    )


def names(path: Path) -> list[str]:
    return [json.loads(line)["filename"] for line in path.read_text().splitlines()]


def test_shards_hold_their_number_of_records_across_batches(tmp_path: Path) -> None:
    batch = numbered(10)
    empty = batch.slice(0, 0)
    written = Odvg(shard_records=4).write([empty, batch.slice(0, 3), empty, batch.slice(3)], str(tmp_path), {})
    assert written.files == ("odvg-00000.jsonl", "odvg-00001.jsonl", "odvg-00002.jsonl")
    assert [names(tmp_path / name) for name in written.files] == [
        ["0.jpg", "1.jpg", "2.jpg", "3.jpg"],
        ["4.jpg", "5.jpg", "6.jpg", "7.jpg"],
        ["8.jpg", "9.jpg"],
    ]
    assert written.records == 10


def test_shard_that_ends_with_its_batch_leaves_no_empty_file_behind(tmp_path: Path) -> None:
    batch = numbered(4)
    written = Odvg(shard_records=2).write([batch.slice(0, 2), batch.slice(2)], str(tmp_path), {})
    assert written.files == ("odvg-00000.jsonl", "odvg-00001.jsonl")


def test_no_records_make_one_empty_file(tmp_path: Path) -> None:
    assert Odvg().write([], str(tmp_path), {}).files == ("odvg.jsonl",)
    assert (tmp_path / "odvg.jsonl").read_bytes() == b""


def test_fewer_shards_than_last_time_leave_no_old_one(tmp_path: Path) -> None:
    Odvg(shard_records=2).write([numbered(6)], str(tmp_path), {})
    Odvg(shard_records=4).write([numbered(6)], str(tmp_path), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odvg-00000.jsonl", "odvg-00001.jsonl"]


def test_only_the_named_split_is_written(tmp_path: Path) -> None:
    written = Odvg(split="val").write([numbered(2, "train"), numbered(3, "val")], str(tmp_path), {})
    assert written.records == 3
    assert names(tmp_path / "odvg.jsonl") == ["0.jpg", "1.jpg", "2.jpg"]


def test_compressed_files_read_back_and_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    plain = Odvg().encode(to_batch([FULL, SENTENCE]))
    for compression, suffix in (("gzip", ".gz"), ("zstd", ".zst")):
        packed = Odvg(compression=compression)  # type: ignore[arg-type]
        packed.write([to_batch([FULL, SENTENCE])], str(tmp_path), {})
        first = (tmp_path / f"odvg.jsonl{suffix}").read_bytes()
        packed.write([to_batch([FULL]), to_batch([SENTENCE])], str(tmp_path / "again"), {})
        assert pa.input_stream(pa.py_buffer(first), compression=compression).read() == plain
        if compression == "gzip":
            assert gzip.decompress(first) == plain
            assert (tmp_path / "again" / f"odvg.jsonl{suffix}").read_bytes() == first


def test_failure_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def broken():
        yield numbered(2)
        raise RuntimeError("the table is damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        Odvg().write(broken(), str(tmp_path), {})
    assert list(tmp_path.iterdir()) == []


def test_out_may_be_a_url() -> None:
    Odvg().write([numbered(1)], "memory://exports/odvg", {})
    assert json.loads(files.read_bytes("memory://exports/odvg/odvg.jsonl"))["filename"] == "0.jpg"


def with_pictures(folder: Path) -> dict[str, SourceInfo]:
    (folder / "pets" / "a").mkdir(parents=True)
    (folder / "pets" / "a" / "12.jpg").write_bytes(b"jpeg bytes")
    return {"pets": SourceInfo("pets", "coco", "", "", str(folder / "pets"), PETS.categories)}


def test_pictures_are_copied_once_and_named_by_the_lines(tmp_path: Path) -> None:
    sources = with_pictures(tmp_path)
    written = Odvg(images="copy").write([to_batch([FULL, FULL])], str(tmp_path / "out"), sources)
    assert written.files == ("odvg.jsonl", "images/")
    assert (tmp_path / "out/images/pets/a/12.jpg").read_bytes() == b"jpeg bytes"
    assert names(tmp_path / "out/odvg.jsonl") == ["pets/a/12.jpg", "pets/a/12.jpg"]


def test_pictures_can_be_links(tmp_path: Path) -> None:
    Odvg(images="link").write([to_batch([FULL])], str(tmp_path / "out"), with_pictures(tmp_path))
    link = tmp_path / "out/images/pets/a/12.jpg"
    assert link.is_symlink()
    assert link.read_bytes() == b"jpeg bytes"
    with pytest.raises(SettingError, match="--images copy"):
        Odvg(images="link").write([to_batch([FULL])], "memory://linked", with_pictures(tmp_path / "b"))


def test_missing_picture_and_one_outside_its_folder_are_counted(tmp_path: Path) -> None:
    sources = with_pictures(tmp_path)
    bad = [
        Record("pets/1/0", "pets", "1", "0", "grounding", image, "pets", 9, 9, "x")
        for image in ("gone.jpg", "../x.jpg")
    ]
    written = Odvg(images="copy").write([to_batch(bad)], str(tmp_path / "out"), sources)
    assert written.lost["pictures not found"] == 2
    assert written.records == 2


def test_parquet_gives_the_same_records_back(tmp_path: Path) -> None:
    written = Parquet(shard_records=1).write([to_batch([FULL, SENTENCE])], str(tmp_path), {})
    assert (written.records, written.boxes, written.lost) == (2, 4, {})
    assert written.files == ("records-00000.parquet", "records-00001.parquet")
    tables = [pq.read_table(tmp_path / name) for name in written.files]
    assert [record for table in tables for record in from_batch(table)] == [FULL, SENTENCE]
    assert pq.ParquetFile(tmp_path / written.files[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_table_without_the_columns_of_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="needs the columns"):
        Odvg().write([to_batch([FULL]).drop_columns(["text"])], str(tmp_path), {})


def test_tables_that_polars_wrote_are_written_alike(tmp_path: Path) -> None:
    pl.from_arrow(pa.Table.from_batches([to_batch([FULL, SENTENCE])])).write_parquet(tmp_path / "polars.parquet")
    for table in (pq.read_table(tmp_path / "polars.parquet"), pl.read_parquet(tmp_path / "polars.parquet").to_arrow()):
        Odvg().write(table.to_batches(), str(tmp_path), {})
        assert (tmp_path / "odvg.jsonl").read_bytes() == Odvg().encode(to_batch([FULL, SENTENCE]))


def test_large_batches_are_written_in_parts_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = to_batch([FULL, SENTENCE, FULL, FULL, SENTENCE])
    monkeypatch.setattr(exporter, "ROWS_AT_ONCE", 2)
    Odvg().write([batch], str(tmp_path), {})
    assert (tmp_path / "odvg.jsonl").read_bytes() == Odvg().encode(batch)


@pytest.mark.parametrize("name", sorted(EXPORTERS))
def test_every_exporter_counts_records_says_what_it_loses_and_writes_what_it_names(name: str, tmp_path: Path) -> None:
    written = EXPORTERS[name]().write([to_batch([FULL, FULL])], str(tmp_path), {"pets": PETS})
    assert written.records == 2
    assert all((tmp_path / file).exists() for file in written.files)
    assert len(EXPORTERS[name].cannot_hold) > 20
    assert {path.name for path in tmp_path.iterdir()} == {file.split("/")[0] for file in written.files}
    if name in {"parquet", "hf"}:
        assert written.lost == {}
    elif name == "webdataset":
        assert written.lost == {"pictures not found": 2}
    else:
        assert written.lost["masks" if name not in {"coco", "lvis"} else "tags"] >= 2
