"""Regions and boxes of a batch as flat columns: the bulk view that exporters and the validator work on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Offsets = NDArray[np.int32]  # (n + 1,), from 0: list i is items[offsets[i]:offsets[i + 1]]


@dataclass(frozen=True, slots=True)
class Flat:
    """All regions of a batch one after the other, and all their boxes.

    Record r has the regions `region_offsets[r]:region_offsets[r + 1]`, region g the boxes
    `box_offsets[g]:box_offsets[g + 1]`.
    """

    regions: pa.StructArray
    region_offsets: Offsets
    boxes: pa.StructArray
    box_offsets: Offsets

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Flat:
        regions = batch.column("regions")
        flat = regions.flatten()
        boxes = flat.field("boxes")
        return cls(flat, offsets_of(regions), boxes.flatten(), offsets_of(boxes))

    @property
    def xyxy(self) -> NDArray[np.float64]:
        """Corners in pixels, (n, 4), as the source gave them."""
        corners: NDArray[np.float64] = self.boxes.field("xyxy").flatten().to_numpy(zero_copy_only=False)
        return corners.reshape(-1, 4)

    @property
    def region_of_box(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.regions)), np.diff(self.box_offsets))

    @property
    def record_of_region(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.region_offsets) - 1), np.diff(self.region_offsets))

    def crowds(self) -> NDArray[np.bool_]:
        """Which boxes stand for a group, (n,)."""
        flags: NDArray[np.bool_] = self.boxes.field("crowd").fill_null(False).to_numpy(zero_copy_only=False)
        return flags

    def keep_boxes(self, keep: NDArray[np.bool_]) -> Flat:
        """The same regions with some of their boxes."""
        if keep.all():
            return self
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(keep, dtype=np.int32)])[self.box_offsets]
        return Flat(self.regions, self.region_offsets, self.boxes.filter(pa.array(keep)), offsets)

    def with_boxes_only(self) -> Flat:
        """Without the regions that have no box: most formats have no way to write them."""
        counts = np.diff(self.box_offsets)
        keep = counts > 0
        if keep.all():
            return self
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(keep, dtype=np.int32)])[self.region_offsets]
        box_offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts[keep], dtype=np.int32)])
        return Flat(self.regions.filter(pa.array(keep)), offsets, self.boxes, box_offsets)


def offsets_of(lists: pa.Array) -> Offsets:
    """Where each list of a list column begins in `lists.flatten()`; a null list is an empty one."""
    ends = np.cumsum(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int32)
    return np.concatenate([np.zeros(1, np.int32), ends])


def utf8(texts: pa.Array) -> tuple[NDArray[np.uint8], Offsets]:
    """The bytes that a column of strings points into, and where each text begins in them: text i is data[o[i]:o[i+1]].

    A slice points into the bytes of its whole, so its offsets need not begin at zero.
    """
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int32)
    there = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, dtype=np.uint8), there
