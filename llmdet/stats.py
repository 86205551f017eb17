"""Statistics over records in bulk: made part by part and added up, so that a data set never has to fit in memory.

`Stats.of` reads Arrow batches with the columns of `llmdet.record.SCHEMA`, `RejectCounts.of` those of
`llmdet.rejects.SCHEMA`. Both have an empty value and `+`, which does not care about the order of the parts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet import boxes as geometry
from llmdet.histogram import ASPECTS, BOXES, CHARACTERS, SHARES, WORDS, Histogram
from llmdet.quality import Quality


class Made(NamedTuple):
    """By what a caption was made: the key that captions are counted by."""

    level: str  # image or region
    origin: str
    model: str
    prompt: str


_NO_WORDS, _NO_CHARACTERS = Histogram.of(np.zeros(0), WORDS), Histogram.of(np.zeros(0), CHARACTERS)
_NO_SHARES, _NO_ASPECTS = Histogram.of(np.zeros(0), SHARES), Histogram.of(np.zeros(0), ASPECTS)


@dataclass(frozen=True, eq=False)
class Tally:
    """What was counted over some records. Add tallies with `+`."""

    records: int = 0
    regions: int = 0
    boxes: int = 0
    pseudo_boxes: int = 0
    crowd_boxes: int = 0
    phrases: int = 0
    negatives: int = 0
    image_captions: int = 0
    region_captions: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    made: Counter[Made] = field(default_factory=Counter)
    image_words: Histogram = _NO_WORDS  # words of an image-level caption, split on white space
    region_words: Histogram = _NO_WORDS
    text_characters: Histogram = _NO_CHARACTERS
    area_share: Histogram = _NO_SHARES  # of a box, clipped to the image
    aspect: Histogram = _NO_ASPECTS
    links: Histogram = _NO_WORDS  # of an image-level caption
    removed_words: Histogram = _NO_WORDS  # that rules took out of a caption, for captions that they changed
    quality: Quality = field(default_factory=Quality)
    # One 64-bit hash per different (root, image), sorted, and the number of boxes of its records: 16 bytes an image.
    image_keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    image_boxes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __add__(self, other: Tally) -> Tally:
        keys, boxes = _sum_by_key(
            np.concatenate([self.image_keys, other.image_keys]), np.concatenate([self.image_boxes, other.image_boxes])
        )
        names = [f.name for f in fields(self) if f.name not in ("image_keys", "image_boxes")]
        summed = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Tally(**summed, image_keys=keys, image_boxes=boxes)

    @property
    def images(self) -> int:
        """How many different images the records show."""
        return len(self.image_keys)

    @property
    def boxes_per_image(self) -> Histogram:
        """Over images, not records: a box that two texts of an image name counts twice."""
        return Histogram.of(self.image_boxes, BOXES)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), int)}
        histograms = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _HISTOGRAMS}
        return {
            **numbers,
            "images": self.images,
            "kinds": dict(self.kinds.most_common()),
            "flags": dict(self.flags.most_common()),
            "captions": [{**made._asdict(), "count": n} for made, n in self.made.most_common()],
            "quality": self.quality.to_dict(),
            **{name: histogram.to_dict() for name, histogram in histograms.items()},
            "boxes_per_image": self.boxes_per_image.to_dict(),
        }


_HISTOGRAMS = ("image_words", "region_words", "text_characters", "area_share", "aspect", "links", "removed_words")


@dataclass(frozen=True, eq=False)
class Stats:
    """A tally per source, and their sum."""

    sources: dict[str, Tally] = field(default_factory=dict)

    @classmethod
    def of(cls, table: pa.RecordBatch | pa.Table) -> Stats:
        """Statistics of a batch or table of records."""
        if isinstance(table, pa.Table):
            return sum((cls.of(batch) for batch in table.to_batches()), cls())
        names = pc.unique(table.column("source")).to_pylist()
        if len(names) == 1:  # the usual case, a part of one source: no copy
            return cls({names[0]: _tally(table)})
        return cls({name: _tally(table.filter(pc.equal(table.column("source"), name))) for name in names})

    def __add__(self, other: Stats) -> Stats:
        names = [*self.sources, *(name for name in other.sources if name not in self.sources)]
        nothing = Tally()
        return Stats({name: self.sources.get(name, nothing) + other.sources.get(name, nothing) for name in names})

    @property
    def total(self) -> Tally:
        """All sources together; an image that two sources share is one image."""
        return sum(self.sources.values(), Tally())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        sources = {name: self.sources[name].to_dict() for name in sorted(self.sources)}
        return {"total": self.total.to_dict(), "sources": sources}


def _tally(batch: pa.RecordBatch) -> Tally:
    regions = batch.column("regions")
    region_boxes = pc.struct_field(regions.flatten(), "boxes")
    record_of_region = _parents(regions)
    record_of_box = record_of_region[_parents(region_boxes)]
    box = region_boxes.flatten()
    image_captions = batch.column("captions").flatten()
    region_captions = pc.struct_field(box, "caption").drop_null()
    keys, image_boxes = _sum_by_key(_image_keys(batch), np.bincount(record_of_box, minlength=batch.num_rows))
    return Tally(
        records=batch.num_rows,
        regions=len(record_of_region),
        boxes=len(box),
        pseudo_boxes=_true(pc.equal(pc.struct_field(box, "origin"), "pseudo")),
        crowd_boxes=_true(pc.struct_field(box, "crowd")),
        phrases=len(pc.struct_field(regions.flatten(), "phrases").flatten()),
        negatives=len(batch.column("negatives").flatten()),
        image_captions=len(image_captions),
        region_captions=len(region_captions),
        kinds=_value_counts(batch.column("kind")),
        flags=_value_counts(batch.column("flags").flatten()),
        made=_made("image", image_captions) + _made("region", region_captions),
        image_words=Histogram.of(_words(pc.struct_field(image_captions, "text")), WORDS),
        region_words=Histogram.of(_words(pc.struct_field(region_captions, "text")), WORDS),
        text_characters=Histogram.of(_numpy(pc.utf8_length(batch.column("text"))), CHARACTERS),
        **_box_shapes(batch, box, record_of_box),
        links=Histogram.of(_numpy(pc.struct_field(image_captions, "links").value_lengths().fill_null(0)), WORDS),
        removed_words=_removed(image_captions) + _removed(region_captions),
        quality=Quality.of(batch),
        image_keys=keys,
        image_boxes=image_boxes,
    )


def _box_shapes(batch: pa.RecordBatch, box: pa.Array, record_of_box: NDArray[np.int64]) -> dict[str, Histogram]:
    xyxy = _numpy(pc.struct_field(box, "xyxy").flatten()).reshape(-1, 4)
    width = _numpy(batch.column("width"))[record_of_box].astype(np.float64)
    height = _numpy(batch.column("height"))[record_of_box].astype(np.float64)
    inside = np.clip(xyxy, 0.0, np.stack([width, height, width, height], axis=1))
    image_area = width * height
    share = np.divide(geometry.areas(inside), image_area, out=np.zeros(len(xyxy)), where=image_area > 0)
    size = xyxy[:, 2:] - xyxy[:, :2]
    aspect = np.divide(size[:, 0], size[:, 1], out=np.ones(len(xyxy)), where=size[:, 1] > 0)
    return {"area_share": Histogram.of(share, SHARES), "aspect": Histogram.of(aspect, ASPECTS)}


def _parents(lists: pa.Array) -> NDArray[np.int64]:
    """For each item of a list column, the row that it came from."""
    lengths = _numpy(lists.value_lengths().fill_null(0))
    return np.repeat(np.arange(len(lengths)), lengths)


def _numpy(array: pa.Array) -> NDArray[Any]:
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _true(mask: pa.Array) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _words(texts: pa.Array) -> NDArray[Any]:
    # Not Arrow's regular expressions: to them only ASCII white space parts words.
    import polars as pl  # takes as long to import as all the rest, and who imports this module may count nothing

    return pl.Series("text", texts, dtype=pl.String).str.count_matches(r"\S+").fill_null(0).to_numpy()


def _removed(captions: pa.Array) -> Histogram:
    """Words that rules took out, over captions whose text is not what was said."""
    said, words = pc.struct_field(captions, "raw"), pc.struct_field(captions, "text")
    changed = pc.and_(pc.not_equal(said, ""), pc.not_equal(said, words)).fill_null(False)
    fewer = _words(said.filter(changed)).astype(np.int64) - _words(words.filter(changed)).astype(np.int64)
    return Histogram.of(np.maximum(fewer, 0), WORDS)


def _value_counts(values: pa.Array) -> Counter[str]:
    counted = values.drop_null().value_counts()
    return Counter(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))


def _made(level: str, captions: pa.Array) -> Counter[Made]:
    result: Counter[Made] = Counter()
    for text, count in _value_counts(pc.struct_field(captions, "provenance")).items():
        how = orjson.loads(text)
        result[Made(level, how["origin"], how["model"], how["prompt"])] += count
    return result


def _image_keys(batch: pa.RecordBatch) -> NDArray[np.uint64]:
    import polars as pl

    names = {name: pl.Series(name, batch.column(name), dtype=pl.String) for name in ("root", "image")}
    return pl.DataFrame(names).hash_rows(seed=0).to_numpy()


def _sum_by_key(keys: NDArray[np.uint64], values: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    unique, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(unique), np.int64)
    np.add.at(sums, inverse, values)
    return unique, sums


class RejectKey(NamedTuple):
    """What rejects are counted by."""

    stage: str
    level: str
    kind: str
    reason: str


@dataclass(frozen=True)
class RejectCounts:
    """How many things were left out, by stage, level, kind and reason."""

    counts: Counter[RejectKey] = field(default_factory=Counter)

    @classmethod
    def of(cls, table: pa.RecordBatch | pa.Table) -> RejectCounts:
        """Counts of a batch or table of rejects."""
        names = list(RejectKey._fields)
        table = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        grouped = table.group_by(names).aggregate([([], "count_all")])
        rows = zip(*(grouped.column(name).to_pylist() for name in (*names, "count_all")), strict=True)
        return cls(Counter({RejectKey(*row[:-1]): row[-1] for row in rows}))

    def __add__(self, other: RejectCounts) -> RejectCounts:
        return RejectCounts(self.counts + other.counts)

    @property
    def total(self) -> int:
        """How many things were left out."""
        return self.counts.total()

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain JSON values, most frequent first, then by name."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return [{**key._asdict(), "count": count} for key, count in ordered]
