"""What statistics count, on a few records whose numbers were worked out by hand."""

import json
import math

import numpy as np
import pytest

from llmdet import rejects
from llmdet.histogram import SHARES, WORDS, Histogram
from llmdet.record import Box, Caption, Provenance, Record, Region, to_batch
from llmdet.rejects import Reject
from llmdet.stats import Made, RejectCounts, RejectKey, Stats

LMM = Provenance(origin="lmm", prompt="region@1", model="qwen")


def record(number: int, source: str = "coco", image: str | None = None, **changes) -> Record:
    fields = {
        "id": f"{source}/{number}/0",
        "source": source,
        "image_id": str(number),
        "text_id": "0",
        "kind": "detection",
        "image": image or f"{number}.jpg",
        "root": "photos",
        "width": 100,
        "height": 50,
        "text": "dog. cat. ",
    }
    return Record(**{**fields, **changes})


def three() -> list[Record]:
    first = record(
        1,
        regions=(
            Region(("dog",), ((0, 3),), (Box((0, 0, 50, 50)), Box((90, 40, 190, 60), crowd=True))),
            Region(
                ("cat", "cat"),
                ((5, 8), (5, 8)),
                (Box((0, 0, 10, 40), origin="pseudo", caption=Caption("a small cat", provenance=LMM)),),
            ),
        ),
        captions=(Caption("A dog and\u3000a cat."), Caption("Two pets.", provenance=Provenance(origin="template"))),
        flags=("count_mismatch",),
    )
    second = record(2, negatives=((0, 3), (5, 8)), kind="grounding", text="x" * 25)
    third = record(3, source="goldg", image="1.jpg", regions=(Region(("dog",), ((0, 3),), (Box((1, 1, 5, 5)),)),))
    return [first, second, third]


def test_totals_count_records_images_boxes_and_texts():
    total = Stats.of(to_batch(three())).total
    counted = (total.records, total.images, total.regions, total.boxes, total.phrases, total.negatives)
    assert counted == (3, 2, 3, 4, 4, 2)  # records 1 and 3 show the same photo
    assert (total.pseudo_boxes, total.crowd_boxes) == (1, 1)
    assert (total.image_captions, total.region_captions) == (2, 1)
    assert total.kinds == {"detection": 2, "grounding": 1}
    assert total.flags == {"count_mismatch": 1}


def test_captions_are_counted_by_what_made_them():
    made = Stats.of(to_batch(three())).total.made
    assert made == {
        Made("image", "source", "", ""): 1,
        Made("image", "template", "", ""): 1,
        Made("region", "lmm", "qwen", "region@1"): 1,
    }


def test_words_are_split_on_any_white_space():
    total = Stats.of(to_batch(three())).total
    assert (total.image_words.count, total.image_words.total) == (2, 5 + 2)
    assert total.image_words.to_dict()["bins"] == [[2.0, 3.0, 1], [5.0, 6.0, 1]]
    assert (total.region_words.smallest, total.region_words.largest) == (3, 3)


def test_box_shapes_are_shares_of_the_image_after_clipping():
    total = Stats.of(to_batch(three()[:1])).total
    # 50x50 of 100x50; 10x10 of the crowd box lies inside; 10x40.
    assert total.area_share.total == pytest.approx(0.5 + 100 / 5000 + 400 / 5000)
    assert (total.aspect.smallest, total.aspect.largest) == (0.25, 5.0)


def test_boxes_per_image_adds_the_records_of_one_image():
    histogram = Stats.of(to_batch(three())).total.boxes_per_image
    assert histogram.to_dict()["bins"] == [[0.0, 1.0, 1], [4.0, 5.0, 1]]


def test_each_box_is_measured_in_its_own_image():
    dog = Region(("dog",), ((0, 3),), (Box((0, 0, 50, 50)),))
    small, large = record(1, regions=(dog,)), record(2, width=500, height=500, regions=(dog, dog))
    total = Stats.of(to_batch([record(0), small, large])).total
    assert total.area_share.total == pytest.approx(0.5 + 0.01 + 0.01)
    assert total.boxes_per_image.to_dict()["bins"] == [[0.0, 1.0, 1], [1.0, 2.0, 1], [2.0, 3.0, 1]]


def test_text_lengths_are_characters():
    assert Stats.of(to_batch([record(1, text="äöü")])).total.text_characters.total == 3


def test_sources_are_told_apart():
    stats = Stats.of(to_batch(three()))
    assert {name: tally.records for name, tally in stats.sources.items()} == {"coco": 2, "goldg": 1}
    assert {name: tally.boxes for name, tally in stats.sources.items()} == {"coco": 3, "goldg": 1}


def test_parts_add_up_to_the_whole_in_any_order_and_for_slices():
    batch = to_batch(three())
    whole = Stats.of(batch).to_dict()
    parts = [Stats.of(batch.slice(i, 1)) for i in range(3)]
    assert sum(parts, Stats()).to_dict() == whole
    assert sum(reversed(parts), Stats()).to_dict() == whole


def test_a_table_read_from_polars_counts_the_same():
    import polars as pl

    batch = to_batch(three())
    table = pl.from_arrow(batch).to_arrow()
    assert Stats.of(table).to_dict() == Stats.of(batch).to_dict()


def test_statistics_are_plain_json():
    stats = Stats.of(to_batch(three()))
    assert json.loads(json.dumps(stats.to_dict()))["sources"]["goldg"]["records"] == 1


def test_no_records_are_counted_as_nothing():
    stats = Stats.of(to_batch([]))
    assert stats.to_dict() == Stats().to_dict()
    assert (stats.total.records, stats.total.image_words.mean, stats.total.area_share.quantile(0.5)) == (0, None, None)


def test_histogram_puts_outliers_into_the_end_bins():
    histogram = Histogram.of(np.array([0, 3, 3, 9999]), WORDS)
    assert (histogram.counts[0], histogram.counts[3], histogram.counts[-1]) == (1, 2, 1)
    assert (histogram.count, histogram.mean, histogram.quantile(0.5)) == (4, 2501.25, 3.0)


def test_a_box_of_the_whole_image_falls_in_the_last_share_bin():
    assert Histogram.of(np.array([1.0]), SHARES).counts[-1] == 1
    assert math.isclose(SHARES[-5], 0.1)


def test_histograms_of_different_bins_are_not_added():
    with pytest.raises(ValueError, match="different edges"):
        _ = Histogram.of(np.array([1]), WORDS) + Histogram.of(np.array([1]), SHARES)


def test_rejects_are_counted_by_stage_level_kind_and_reason():
    rows = [
        Reject("coco/1", "annotation", "policy", "ingest", "crowd"),
        Reject("coco/2", "annotation", "policy", "ingest", "crowd"),
        Reject("coco/3", "record", "fault", "ingest", "photo_missing", "3.jpg"),
    ]
    counts = RejectCounts.of(rejects.to_batch(rows[:2])) + RejectCounts.of(rejects.to_batch(rows[2:]))
    assert counts == RejectCounts.of(rejects.to_batch(rows))
    assert counts.counts[RejectKey("ingest", "annotation", "policy", "crowd")] == 2
    assert [row["reason"] for row in counts.to_dict()] == ["crowd", "photo_missing"]
    assert (counts.total, RejectCounts.of(rejects.to_batch([])).total) == (3, 0)
