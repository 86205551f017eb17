import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.errors import FormatError
from llmdet.exports.webdataset import WebDataset, read, record_of
from llmdet.record import Record, to_batch
from llmdet.sources.source import SourceInfo
from tests.llmdet.example_records import FULL, SENTENCE, few, records


def sources(folder: Path) -> dict[str, SourceInfo]:
    (folder / "a").mkdir(parents=True, exist_ok=True)
    (folder / "a/12.jpg").write_bytes(b"jpeg bytes")
    return {"pets": SourceInfo("pets", "coco", "", "", str(folder))}


def test_sample_is_a_picture_and_a_json_file_of_one_key(tmp_path: Path) -> None:
    outcome = WebDataset().write([to_batch([FULL, SENTENCE])], str(tmp_path), sources(tmp_path / "pets"))
    assert outcome.files == ("shard-00000.tar",)
    assert outcome.lost == {"pictures not found": 1}
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        assert tar.getnames() == ["000000000.jpg", "000000000.json", "000000001.json"]
        assert {(member.mtime, member.uid) for member in tar} == {(0, 0)}
    assert list(read(str(tmp_path / "shard-00000.tar"))) == [(FULL, b"jpeg bytes"), (SENTENCE, None)]


def test_keys_count_over_shards_and_bytes_do_not_depend_on_batches(tmp_path: Path) -> None:
    many = [FULL] * 5
    exporter = WebDataset(shard_records=2)
    one = exporter.write([to_batch(many)], str(tmp_path / "one"), sources(tmp_path / "pets"))
    exporter.write([to_batch(many[:3]), to_batch(many[3:])], str(tmp_path / "two"), sources(tmp_path / "pets"))
    assert one.files == ("shard-00000.tar", "shard-00001.tar", "shard-00002.tar")
    for name in one.files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with tarfile.open(tmp_path / "one/shard-00002.tar") as tar:
        assert tar.getnames() == ["000000004.jpg", "000000004.json"]


def test_json_that_is_no_record_is_refused() -> None:
    with pytest.raises(FormatError, match="not a record"):
        record_of({"id": "x"})


def test_webdataset_library_reads_the_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    WebDataset().write([to_batch([FULL, SENTENCE])], str(tmp_path), sources(tmp_path / "pets"))
    samples = list(webdataset.WebDataset(str(tmp_path / "shard-00000.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["000000000", "000000001"]
    assert samples[0]["json"]["text"] == "dog. tv. cat. "


@few
@given(many=st.lists(records(), max_size=3))
def test_any_records_come_back_identical(tmp_path: Path, many: list[Record]) -> None:
    WebDataset(images="none").write([to_batch(many)], str(tmp_path), {})
    assert [record for record, _ in read(str(tmp_path / "shard-00000.tar"))] == many
