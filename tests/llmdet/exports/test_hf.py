import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from llmdet.exports.hf import Hf
from llmdet.record import from_batch, to_batch
from llmdet.sources.source import SourceInfo
from tests.llmdet.example_records import FULL, PETS, SENTENCE

VAL = replace(FULL, id="pets/13/0", image_id="13", split="val")


def sources(folder: Path) -> dict[str, SourceInfo]:
    (folder / "a").mkdir(parents=True)
    Image.new("RGB", (100, 80), (200, 10, 10)).save(folder / "a/12.jpg")
    return {"pets": SourceInfo("pets", "coco", "CC0", "https://pets.example", str(folder), PETS.categories)}


def test_files_and_card_are_where_the_hub_looks(tmp_path: Path) -> None:
    outcome = Hf(shard_records=2).write([to_batch([FULL, VAL, SENTENCE, FULL])], str(tmp_path / "out"), {"pets": PETS})
    assert outcome.files == (
        "README.md", "data/train-00000.parquet", "data/train-00001.parquet", "data/val-00000.parquet"
    )  # fmt: skip
    assert (outcome.records, outcome.boxes, outcome.lost) == (4, 10, {})
    head = (tmp_path / "out/README.md").read_text().split("---")[1]
    assert yaml.safe_load(head)["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*.parquet"},
                {"split": "val", "path": "data/val-*.parquet"},
            ],
        }
    ]
    parts = [pq.read_table(tmp_path / "out" / name) for name in outcome.files[1:]]
    assert [record for part in parts for record in from_batch(part)] == [FULL, SENTENCE, FULL, VAL]


def test_pictures_go_into_the_rows(tmp_path: Path) -> None:
    Hf(images="copy").write([to_batch([FULL, SENTENCE])], str(tmp_path / "out"), sources(tmp_path / "pets"))
    table = pq.read_table(tmp_path / "out/data/train-00000.parquet")
    picture, missing = table["image"].to_pylist()
    assert picture["path"] == "a/12.jpg"
    assert Image.open(io.BytesIO(picture["bytes"])).size == (100, 80)
    assert missing == {"bytes": None, "path": "7.jpg"}


def test_failure_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def broken():
        yield to_batch([FULL, VAL])
        raise RuntimeError("damaged")

    with pytest.raises(RuntimeError):
        Hf().write(broken(), str(tmp_path), {})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_load_dataset_gives_the_same_records(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    Hf().write([to_batch([FULL, VAL, SENTENCE])], str(tmp_path / "out"), {"pets": PETS})
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    tables = {name: pa.Table.from_batches(split.data.table.to_batches()) for name, split in loaded.items()}
    found = {name: from_batch(table.replace_schema_metadata(None)) for name, table in tables.items()}
    assert found == {"train": [FULL, SENTENCE], "val": [VAL]}


def test_load_dataset_decodes_the_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    Hf(images="copy").write([to_batch([FULL])], str(tmp_path / "out"), sources(tmp_path / "pets"))
    row = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))[0]
    assert row["image"].size == (100, 80)
    assert row["text"] == "dog. tv. cat. "
    assert row["regions"][0]["boxes"][0]["xyxy"] == [1.5, 2.0, 30.25, 40.0]
