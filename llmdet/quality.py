"""Figures about captions: what was flagged, linked and checked. Made part by part and added up; plain JSON between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from llmdet.flat import offsets_of

# The leaves of a table of records that `Quality.of` looks at, as parquet spells them.
COLUMNS = [
    "source",
    "split",
    "flags.list.element",
    "extra",
    "captions.list.element.links.list.element.region",
    "regions.list.element.boxes.list.element.caption.attempt",
]
_CHECKS = '"checks"'  # in `extra`, which is only read where it has them


@dataclass(frozen=True)
class Quality:
    """What was counted over some records. Add with `+`."""

    records: int = 0
    captioned: int = 0  # records with an image caption
    image_captions: int = 0
    region_captions: int = 0
    linked_captions: int = 0  # image captions with at least one link
    links: int = 0
    regions: int = 0  # of records with an image caption
    linked_regions: int = 0  # those of them that a caption names
    splits: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)  # records with that flag
    claims: Counter[str] = field(default_factory=Counter)  # check -> what could be checked
    wrong: Counter[str] = field(default_factory=Counter)  # check -> what the boxes or pixels contradict

    @classmethod
    def of(cls, batch: pa.RecordBatch | pa.Table) -> Quality:
        """Figures of a batch or table that has at least the leaves in `COLUMNS`."""
        if isinstance(batch, pa.Table):
            return sum((cls.of(one) for one in batch.to_batches()), cls())
        captions = batch.column("captions").flatten()
        regions = batch.column("regions")
        boxes = regions.flatten().field("boxes").flatten()
        spoken = boxes.field("caption").drop_null()
        has_caption = np.diff(offsets_of(batch.column("captions"))) > 0
        claims, wrong = _checks(batch.column("extra"))
        return cls(
            records=batch.num_rows,
            captioned=int(has_caption.sum()),
            image_captions=len(captions),
            region_captions=len(spoken),
            **_links(batch),
            regions=int(np.diff(offsets_of(regions))[has_caption].sum()),
            splits=_counts(batch.column("split")),
            flags=_counts(batch.column("flags").flatten()),
            claims=claims,
            wrong=wrong,
        )

    def __add__(self, other: Quality) -> Quality:
        sums: dict[str, Any] = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Quality(**sums)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {key: dict(sorted(one.items())) if isinstance(one, Counter) else one for key, one in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Quality:
        """The inverse of `to_dict`."""
        found: dict[str, Any] = {key: Counter(one) if isinstance(one, Mapping) else one for key, one in values.items()}
        return cls(**found)


def _links(batch: pa.RecordBatch) -> dict[str, int]:
    captions = batch.column("captions")
    links = captions.flatten().field("links")
    lengths = np.diff(offsets_of(links))
    record = np.repeat(np.arange(batch.num_rows), np.diff(offsets_of(captions)))
    region: NDArray[np.int64] = links.flatten().field("region").to_numpy(zero_copy_only=False).astype(np.int64)
    named = np.unique(np.repeat(record, lengths) * (1 << 32) + region)
    return {"linked_captions": int((lengths > 0).sum()), "links": len(region), "linked_regions": len(named)}


def _checks(extra: pa.Array) -> tuple[Counter[str], Counter[str]]:
    claims: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for text in extra.filter(pc.match_substring(extra, _CHECKS).fill_null(False)).to_pylist():
        checks = orjson.loads(text).get("checks")
        for name, figures in checks.items() if isinstance(checks, dict) else ():
            if isinstance(figures, dict) and isinstance(figures.get("claims"), int):  # a source may use the word too
                claims[name] += figures["claims"]
                wrong[name] += figures["wrong"]
    return claims, wrong


def _counts(values: pa.Array) -> Counter[str]:
    counted = values.drop_null().value_counts()
    return Counter(dict(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True)))
