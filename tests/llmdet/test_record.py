import gc

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.errors import FormatError
from llmdet.record import SCHEMA, Box, Caption, Record, Region, check_schema, from_batch, images_of, to_batch
from tests.llmdet.example_records import FULL, SENTENCE, few, records


@few
@given(st.lists(records(), max_size=5))
def test_rows_and_batch_are_two_views_of_the_same_records(many: list[Record]) -> None:
    batch = to_batch(many)
    assert batch.schema.equals(SCHEMA, check_metadata=True)
    batch.validate(full=True)
    assert from_batch(batch) == many


@few
@given(st.lists(records(), min_size=2, max_size=6), st.data())
def test_slice_of_a_batch_is_the_slice_of_its_records(many: list[Record], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(many) - 1))
    length = data.draw(st.integers(0, len(many) - start))
    assert from_batch(to_batch(many).slice(start, length)) == many[start : start + length]


@few
@given(st.lists(records(), max_size=4))
def test_columns_say_what_the_rows_say(many: list[Record]) -> None:
    """Read by pyarrow's own conversion, which knows nothing of this module."""
    for row, record in zip(to_batch(many).to_pylist(), many, strict=True):
        assert row["id"] == record.id
        assert (row["width"], row["height"], row["kind"]) == (record.width, record.height, record.kind)
        assert row["tags"] == list(record.tags)
        assert [caption["text"] for caption in row["captions"]] == [caption.text for caption in record.captions]
        for stored, region in zip(row["regions"], record.regions, strict=True):
            assert stored["phrases"] == list(region.phrases)
            assert stored["spans"] == [list(span) for span in region.spans]
            assert [box["xyxy"] for box in stored["boxes"]] == [list(box.xyxy) for box in region.boxes]
            assert [box["score"] for box in stored["boxes"]] == [box.score for box in region.boxes]


def test_records_survive_parquet_and_polars(tmp_path) -> None:
    many = [FULL, SENTENCE, FULL]
    pq.write_table(pa.Table.from_batches([to_batch(many)]), tmp_path / "a.parquet")
    assert from_batch(pq.read_table(tmp_path / "a.parquet")) == many
    pl.read_parquet(tmp_path / "a.parquet").write_parquet(tmp_path / "b.parquet")
    assert from_batch(pq.read_table(tmp_path / "b.parquet")) == many
    assert from_batch(pl.read_parquet(tmp_path / "a.parquet").to_arrow()) == many


def test_table_of_several_chunks_is_read_in_order() -> None:
    table = pa.concat_tables([pa.Table.from_batches([to_batch([record])]) for record in (FULL, SENTENCE)])
    assert from_batch(table) == [FULL, SENTENCE]


def test_coordinates_keep_every_bit() -> None:
    xyxy = (0.1 + 0.2, 300.15999999999997, 1e-300, 5e-324)
    record = Record(
        "s/1/0", "s", "1", "0", "grounding", "1.jpg", "s", 9, 9, "a", (Region(("a",), ((0, 1),), (Box(xyxy),)),)
    )
    assert from_batch(to_batch([record]))[0].regions[0].boxes[0].xyxy == xyxy


def test_absent_and_zero_are_not_the_same() -> None:
    boxes = (Box((0.0, 0.0, 1.0, 1.0), score=None, area=0.0), Box((0.0, 0.0, 1.0, 1.0), score=0.0, area=None))
    captions = (Caption("x", prompt_tokens=0), Caption("", answer_tokens=None))
    regions = (Region(("a",), ((0, 1),), boxes, 0), Region(("a",), ((0, 1),), boxes, None))
    record = Record("s/1/0", "s", "1", "0", "grounding", "1.jpg", "s", 9, 9, "a", regions, captions=captions)
    assert from_batch(to_batch([record])) == [record]


def test_no_records_are_a_batch_without_rows() -> None:
    assert to_batch([]).num_rows == 0
    assert from_batch(to_batch([])) == []


def test_newer_schema_and_missing_column_are_refused() -> None:
    newer = SCHEMA.with_metadata({"llmdet.schema_version": "99"})
    with pytest.raises(FormatError, match="99"):
        check_schema(newer)
    with pytest.raises(FormatError, match="'text'"):
        from_batch(to_batch([FULL]).drop_columns(["text"]))


def test_conversion_leaves_the_garbage_collector_as_it_was() -> None:
    assert gc.isenabled()
    with pytest.raises(AttributeError):
        to_batch(["not a record"])  # type: ignore[list-item]
    assert gc.isenabled()
    gc.disable()
    try:
        from_batch(to_batch([FULL]))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_boxes_of_a_record_come_in_the_order_of_the_source() -> None:
    assert [box.annotation_id for box in FULL.boxes] == ["32", "33", "31"]


def test_images_are_counted_once() -> None:
    assert images_of([FULL, FULL, SENTENCE]) == 2
