"""Which detection stands for which true box: the greedy matching of lvis-api, for all images and categories at once.

In each image and category the detections choose by descending score: the true box of highest IoU that is left and
reaches the threshold; one that counts before one that is ignored; at equal IoU the later one. Groups do not touch each
other, so the r-th detections of all groups choose together, in one step of numpy.
"""

# N detections   C detections that reach some true box (candidates)   G true boxes   P pairs of them
# A area ranges   T IoU thresholds

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.metrics.detections import Floats, Ints, run_starts, runs

Flags = NDArray[np.bool_]
_PAIRS_AT_ONCE = 2_000_000


class Matches(NamedTuple):
    """What the candidates were given; every other detection has no match at any threshold."""

    candidate_C: Ints  # row numbers of detections, ascending
    matched_CAT: Flags
    ignored_CAT: Flags  # matched to a true box that does not count


class Pairs(NamedTuple):
    """Detections and true boxes of the same image and category that overlap enough to be matched."""

    detection_P: Ints
    truth_P: Ints
    iou_P: Floats


def overlapping(box_N4: Floats, truth_G4: Floats, first_N: Ints, count_N: Ints, least: float) -> Pairs:
    """Pairs with an IoU of at least `least`; detection n is compared with `count_N[n]` boxes from `first_N[n]` on.

    Boxes are xywh; IoU is that of pycocotools.mask, bit for bit.
    """
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    ends = np.cumsum(count_N)
    start = 0
    while start < len(count_N):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE)))
        count = count_N[start:stop]
        detection_P = np.repeat(np.arange(start, stop), count)
        truth_P = np.arange(len(detection_P)) - np.repeat(np.cumsum(count) - count - first_N[start:stop], count)
        iou_P = iou(box_N4[detection_P], truth_G4[truth_P])
        kept = iou_P >= least
        found.append(Pairs(detection_P[kept], truth_P[kept], iou_P[kept]))
        start = stop
    return Pairs(*map(np.concatenate, zip(*found, strict=True)))


def iou(a_P4: Floats, b_P4: Floats) -> Floats:
    """Intersection over union of xywh boxes, pair by pair."""
    ax, ay, aw, ah = a_P4.T
    bx, by, bw, bh = b_P4.T
    width = np.minimum(aw + ax, bw + bx) - np.maximum(ax, bx)
    height = np.minimum(ah + ay, bh + by) - np.maximum(ay, by)
    inter = width * height
    inter[(width <= 0) | (height <= 0)] = 0
    union = aw * ah + bw * bh - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=inter > 0)


def match(pairs: Pairs, group_N: Ints, ignored_GA: Flags, thresholds_T: Floats) -> Matches:
    """Match detections that are sorted by descending score; `group_N` names the image and category of each."""
    candidate_C, number_P = np.unique(pairs.detection_P, return_inverse=True)
    shape = len(candidate_C), ignored_GA.shape[1], len(thresholds_T)
    matched_CAT, ignored_CAT = np.zeros(shape, bool), np.zeros(shape, bool)
    turn_P = _turns(group_N[candidate_C])[number_P]
    order = np.lexsort((pairs.truth_P, pairs.iou_P, number_P, turn_P))
    number_P, truth_P, turn_P = number_P[order], pairs.truth_P[order], turn_P[order]
    reaches_PT = pairs.iou_P[order][:, None] >= thresholds_T
    # In the pairs of one detection a later place is a better choice; one that counts is better than any that does not.
    size = len(order)
    worth_PA = np.arange(size, dtype=np.int32)[:, None] + np.where(ignored_GA[truth_P], 0, size).astype(np.int32)
    taken_GAT = np.zeros((len(ignored_GA), *shape[1:]), bool)
    for now in runs(turn_P):
        open_PAT = reaches_PT[now, None, :] & ~taken_GAT[truth_P[now]]
        worth_PAT = np.where(open_PAT, worth_PA[now, :, None], np.int32(-1))
        own = run_starts(number_P[now])
        chosen_DAT = np.maximum.reduceat(worth_PAT, own, axis=0)
        deciding = number_P[now][own]
        matched_CAT[deciding] = chosen_DAT >= 0
        ignored_CAT[deciding] = (chosen_DAT >= 0) & (chosen_DAT < size)
        row, area, threshold = np.nonzero(chosen_DAT >= 0)
        taken_GAT[truth_P[chosen_DAT[row, area, threshold] % size], area, threshold] = True
    return Matches(candidate_C, matched_CAT, ignored_CAT)


def _turns(group_C: Ints) -> Ints:
    """The how-manieth of its group each element is, from 0."""
    order = np.argsort(group_C, kind="stable")
    starts = run_starts(group_C[order])
    turn_C = np.empty(len(order), np.int64)
    turn_C[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return turn_C
