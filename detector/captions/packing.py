"""Sequences that begin alike, laid into few rows: the common beginning once, then one sequence's rest after another.

A rest sees the beginning and itself, and its positions go on from the beginning, so a token's state is what it would be
in a row of its own. What the beginning predicts is counted once for each sequence.
"""

# R rows   L tokens of a row   N image tokens of all rows

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.captions.scripts import Piece

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Tail:
    """What follows the common beginning: tokens of the image, then text."""

    images: int
    text: Piece


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows; image tokens have id 0 here, and `images_N2` are their rows and columns, sequence by sequence.

    `targets_RL` is the token that each place must predict, or IGNORED; `weights_RL` how often it counts;
    `segments_RL` is 0 for the beginning, 1... for the rests, -1 for padding. `alone`: no row holds two sequences.
    """

    ids_RL: Tensor
    positions_RL: Tensor
    segments_RL: Tensor
    targets_RL: Tensor
    weights_RL: Tensor
    images_N2: Tensor
    alone: bool

    def mask(self) -> Tensor | None:
        """Who sees whom, (R, 1, L, L); None where plain causal attention does."""
        if self.alone:
            return None
        segments, length = self.segments_RL, self.segments_RL.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
        own = segments[:, :, None] == segments[:, None, :]
        return ((own | (segments == 0)[:, None, :]) & causal)[:, None]

    def to(self, device: torch.device) -> Rows:
        names = ("ids_RL", "positions_RL", "segments_RL", "targets_RL", "weights_RL", "images_N2")
        return Rows(**{name: getattr(self, name).to(device) for name in names}, alone=self.alone)


def pack(before: Piece, tails: Sequence[Tail], row_tokens: int) -> Rows:
    """Rests in their order, as many to a row as fit into `row_tokens`, at least one."""
    groups: list[list[Tail]] = []
    room = 0
    for tail in tails:
        size = tail.images + len(tail.text)
        if not groups or size > room:
            groups.append([])
            room = row_tokens - len(before)
        groups[-1].append(tail)
        room -= size
    rows = [_row(before, group) for group in groups]
    length = max(len(row[0]) for row in rows)
    fills = (0, 0, -1, IGNORED, 0)
    columns = [np.full((len(rows), length), fill, dtype=np.int64) for fill in fills]
    images: list[tuple[int, int]] = []
    for number, (*values, places) in enumerate(rows):
        for column, value in zip(columns, values, strict=True):
            column[number, : len(value)] = value
        images += [(number, int(place)) for place in places]
    ids, positions, segments, targets, weights = (torch.from_numpy(column) for column in columns)
    found = torch.tensor(images, dtype=torch.long).reshape(-1, 2)
    return Rows(ids, positions, segments, targets, weights, found, all(len(group) == 1 for group in groups))


_Row = tuple[NDArray[np.int64], ...]


def _row(before: Piece, tails: Sequence[Tail]) -> _Row:
    """Ids, positions, segments, targets, weights and places of image tokens of one row."""
    ids, wanted = list(before.ids), list(before.wanted)
    positions, segments, weights = list(range(len(before))), [0] * len(before), [len(tails)] * len(before)
    images: list[int] = []
    ends = {len(before) - 1}  # what stands there predicts nothing: several sequences may follow
    for number, tail in enumerate(tails, 1):
        size = tail.images + len(tail.text)
        images += range(len(ids), len(ids) + tail.images)
        ids += [0] * tail.images + list(tail.text.ids)
        wanted += [False] * tail.images + list(tail.text.wanted)
        positions += range(len(before), len(before) + size)
        segments += [number] * size
        weights += [1] * size
        ends.add(len(ids) - 1)
    follows = [place + 1 < len(ids) and place not in ends and wanted[place + 1] for place in range(len(ids))]
    targets = [ids[place + 1] if follow else IGNORED for place, follow in enumerate(follows)]
    return tuple(np.array(one, dtype=np.int64) for one in (ids, positions, segments, targets, weights, images))
