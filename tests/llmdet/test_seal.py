from __future__ import annotations

import io
import random

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmdet.seal import is_whole, seal
from llmdet.workspace import from_parquet, to_parquet

TABLE = pa.table({"id": [f"coco/{n}/0" for n in range(300)], "boxes": [[n, n + 1] for n in range(300)]})


def test_every_reader_finds_what_was_written() -> None:
    data = to_parquet(TABLE)
    assert is_whole(data)
    assert from_parquet(data).equals(TABLE)
    assert from_parquet(data, ["id"]).equals(TABLE.select(["id"]))
    assert pl.read_parquet(io.BytesIO(data)).to_arrow().num_rows == 300
    assert pq.read_table(io.BytesIO(data), filters=[("id", "=", "coco/7/0")]).num_rows == 1


def test_each_flipped_bit_is_found() -> None:
    data = to_parquet(TABLE.slice(0, 3))
    whole = [bit for bit in range(8 * len(data)) if is_whole(_flipped(data, bit))]
    assert whole == []


def test_cut_and_longer_files_are_found() -> None:
    data = to_parquet(TABLE)
    draw = random.Random(0)
    assert not any(is_whole(data[: draw.randrange(len(data))]) for _ in range(200))
    assert not is_whole(data + b"\0")
    assert not is_whole(b"")


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_a_file_without_a_checksum_is_not_whole(compression: str) -> None:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink, compression=compression)
    assert not is_whole(sink.getvalue())
    assert is_whole(seal(sink.getvalue()))


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
