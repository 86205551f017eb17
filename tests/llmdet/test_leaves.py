from __future__ import annotations

import io
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet import leaves, quality, validate
from llmdet.errors import FormatError
from llmdet.exports.exporter import losses, losses_of_file
from llmdet.exports.odvg import Odvg
from llmdet.flat import Flat
from llmdet.quality import Quality
from llmdet.record import SCHEMA, Record, Region, from_batch, to_batch
from llmdet.workspace import from_parquet, to_parquet
from tests.llmdet.example_records import FULL, SENTENCE, few, records

NO_PHRASES = replace(SENTENCE, regions=(Region((), (), ()), Region((), (), ())))
BARE = Record("a/1/0", "a", "1", "0", "grounding", "1.jpg", "a", 10, 20, "a dog")


@few
@given(st.lists(records(), max_size=4))
def test_what_is_read_is_what_was_written_whatever_it_holds(many: list[Record]) -> None:
    data = to_parquet(to_batch(many))
    read, whole = leaves.read(data), from_parquet(data)
    assert (read.equals(whole), read.schema.metadata) == (True, whole.schema.metadata)


@pytest.mark.parametrize("many", [[], [BARE], [NO_PHRASES, BARE], [FULL], [BARE, FULL, SENTENCE, NO_PHRASES]])
def test_the_validator_and_the_figures_see_no_difference(many: list[Record]) -> None:
    data = to_parquet(to_batch(many))
    part = leaves.read(data, {*validate.COLUMNS, *quality.COLUMNS})
    assert part.schema.equals(SCHEMA)
    found = [one for batch in part.to_batches() for one in validate.sound(batch).tolist()]
    assert found == [not validate.faults(record) for record in many]
    assert Quality.of(part) == Quality.of(from_parquet(data))


def test_what_nobody_named_is_null_or_empty() -> None:
    (read,) = from_batch(
        leaves.read(to_parquet(to_batch([FULL])), {"text", "regions.list.element.boxes.list.element.score"})
    )
    assert (read.text, read.id, read.tags, read.captions, read.negatives) == (FULL.text, None, (), (), ())
    boxes = [(box.score, box.xyxy, box.order) for region in read.regions for box in region.boxes]
    assert boxes == [(box.score, None, None) for region in FULL.regions for box in region.boxes]
    assert [region.phrases for region in read.regions] == [() for _ in FULL.regions]


def test_other_types_are_read_whole_and_other_tables_refused() -> None:
    sink = io.BytesIO()
    table = pa.Table.from_batches([to_batch([FULL])])
    pq.write_table(table.set_column(7, "width", table["width"].cast(pa.int64())), sink)
    assert leaves.read(sink.getvalue(), {"text"})["id"].to_pylist() == [FULL.id]
    with pytest.raises(FormatError, match="a table of records needs the columns"):
        leaves.read(to_parquet(pa.table({"id": ["a"]})))


def test_a_file_without_figures_is_read_and_counted_all_the_same() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_batches([to_batch([FULL, SENTENCE])]), sink, write_statistics=False)
    bare, full = sink.getvalue(), to_parquet(to_batch([FULL, SENTENCE]))
    assert leaves.read(bare).equals(leaves.read(full))
    assert losses_of_file(bare)[0] == {}
    assert Odvg().lines(bare, {})[1] == Odvg().lines(full, {})[1]


@few
@given(st.lists(records(), max_size=4))
def test_a_file_says_what_a_format_without_it_loses(many: list[Record]) -> None:
    batch = to_batch(many)
    said, unsaid = losses_of_file(to_parquet(batch))
    found = losses(batch, Flat.of(batch), frozenset())
    pseudo = found.pop("pseudo marks", 0)
    assert said == found
    assert unsaid or not pseudo


@few
@given(st.lists(records(), max_size=4))
def test_lines_of_a_file_are_those_of_its_records(many: list[Record]) -> None:
    batch = to_batch(many)
    pieces, counted = Odvg().lines(to_parquet(batch), {})
    assert b"".join(pieces) == Odvg().encode(batch)
    assert counted == Odvg().count(batch)


def test_counts_are_summed_over_row_groups() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1, None, 3, None]}), sink, row_group_size=1)
    assert leaves.counts(pq.ParquetFile(io.BytesIO(sink.getvalue()))) == {"a": 2}
