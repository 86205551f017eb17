"""Precision at fixed recalls and the final recall of every category, from matches: lvis-api's numbers to the last bit.

Only true positives can raise a precision curve, and they are few: the false positives between them are counted, not
visited.
"""

# N detections   C candidates   K categories   A area ranges   T IoU thresholds   R recalls   H true positives

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.metrics.detections import Floats, Ints
from detector.metrics.matching import Flags, Matches


def curves(
    category_N: Ints, plain_NA: Flags, matches: Matches, positives_KA: Ints, recalls_R: Floats
) -> tuple[Floats, Floats]:
    """Precision (T, R, K, A) and recall (T, K, A); -1 for a category without a true box that counts.

    Detections are sorted by category and descending score; `category_N` numbers categories from 0. `plain_NA` says
    where a detection without a match is a false positive.
    """
    hit_CAT = matches.matched_CAT & ~matches.ignored_CAT
    category_C = category_N[matches.candidate_C]
    categories, areas = positives_KA.shape
    precision_H, count_ATK = _precisions(hit_CAT, _false(category_N, plain_NA, matches), category_C, categories)
    ends_ATK = np.cumsum(count_ATK).reshape(count_ATK.shape)
    needed_KAR = _needed(positives_KA, recalls_R)
    thresholds = hit_CAT.shape[2]
    precision = np.full((thresholds, len(recalls_R), categories, areas), -1.0)
    padded = np.append(precision_H, 0.0)  # the last one is the precision of a recall that was not reached
    for area in range(areas):
        needed, counts = needed_KAR[:, area], count_ATK[area, :, :, None]
        at = ends_ATK[area, :, :, None] - counts + needed - 1
        found_TKR = padded[np.where(needed <= counts, at, len(precision_H))]
        precision[..., area] = np.where(positives_KA[:, area, None] > 0, found_TKR, -1.0).transpose(0, 2, 1)
    total_KA = np.maximum(positives_KA, 1)
    recall = np.where(positives_KA > 0, count_ATK.transpose(1, 2, 0) / total_KA, -1.0)
    return precision, recall


def _false(category_N: Ints, plain_NA: Flags, matches: Matches) -> NDArray[np.int32]:
    """False positives of its category up to each candidate, (C, A, T)."""
    upto_NA = _running(plain_NA, category_N)[matches.candidate_C]
    spared_CAT = matches.matched_CAT & plain_NA[matches.candidate_C][:, :, None]
    return upto_NA[:, :, None] - _running(spared_CAT, category_N[matches.candidate_C])


def _running(flags: Flags, category: Ints) -> NDArray[np.int32]:
    """Number of flags so far in the same category, along the first axis."""
    total = np.cumsum(flags, axis=0, dtype=np.int32)
    if not len(total):
        return total
    first = np.searchsorted(category, category)  # where the category begins
    before = np.concatenate([np.zeros_like(total[:1]), total])[first]
    return np.asarray(total - before, dtype=np.int32)


def _precisions(hit_CAT: Flags, false_CAT: NDArray[np.int32], category_C: Ints, categories: int) -> tuple[Floats, Ints]:
    """Best precision at this or a higher recall, for each true positive by area, threshold, category and score.

    Also how many there are in each, (A, T, K).
    """
    areas, thresholds = hit_CAT.shape[1:]
    true_CAT = _running(hit_CAT, category_C)
    area, threshold, candidate = np.nonzero(hit_CAT.transpose(1, 2, 0))
    true_H = true_CAT[candidate, area, threshold].astype(np.float64)
    precision_H = true_H / (false_CAT[candidate, area, threshold] + true_H + np.spacing(1))
    segment_H = (area * thresholds + threshold) * categories + category_C[candidate]
    count = np.bincount(segment_H, minlength=areas * thresholds * categories)
    step, longest = 1, count.max(initial=0)
    while step < longest:
        same = segment_H[step:] == segment_H[:-step]
        np.maximum(precision_H[:-step], np.where(same, precision_H[step:], 0.0), out=precision_H[:-step])
        step *= 2
    return precision_H, count.reshape(areas, thresholds, categories)


def _needed(positives_KA: Ints, recalls_R: Floats) -> Ints:
    """How many true positives reach each recall, at least 1, (K, A, R): the least k with k / positives >= recall."""
    total = np.maximum(positives_KA, 1)[..., None].astype(np.float64)
    needed = np.ceil(recalls_R * total)
    needed -= (needed - 1) / total >= recalls_R  # the product was rounded up
    needed += needed / total < recalls_R  # or down
    return np.maximum(needed, 1).astype(np.int64)
