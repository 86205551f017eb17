"""Denoising queries: where they lie, whom they see, and that neighbours do not matter."""

import numpy as np
import pytest
import torch

from detector.config import DenoisingSettings
from detector.denoising import attention_mask, build, noised

BOXES = np.array([[0.5, 0.5, 0.2, 0.3], [0.3, 0.6, 0.1, 0.1]], dtype=np.float32)


def test_positives_stay_within_half_a_side_and_negatives_move_further() -> None:
    queries, targets, groups = noised(BOXES, DenoisingSettings(groups=50), np.random.default_rng(0))
    assert len(queries) == 50 * 2 * 2
    assert groups.tolist() == sorted(groups.tolist())
    assert targets[:4].tolist() == [0, 1, -1, -1]
    corners = np.concatenate([queries[:, :2] - queries[:, 2:] / 2, queries[:, :2] + queries[:, 2:] / 2], axis=1)
    true = np.concatenate([BOXES[:, :2] - BOXES[:, 2:] / 2, BOXES[:, :2] + BOXES[:, 2:] / 2], axis=1)
    half = np.concatenate([BOXES[:, 2:], BOXES[:, 2:]], axis=1) / 2
    source = np.tile([0, 1, 0, 1], 50)
    moved = np.abs(corners - true[source]) / half[source]
    positive = targets >= 0
    assert moved[positive].max() <= 1 + 1e-4
    assert moved[positive].mean() == pytest.approx(0.5, abs=0.05)
    # A negative's edges may cross over and change places, so only boxes that kept their order are compared.
    ordered = moved[~positive][(moved[~positive] >= 1 - 1e-4).all(axis=1)]
    assert len(ordered) > 20
    assert ordered.max() <= 2 + 1e-4
    assert (queries >= 0).all()
    assert (queries <= 1).all()


def loop_mask(groups: list[int], queries: int) -> np.ndarray:
    size = len(groups) + queries
    allowed = np.zeros((size, size), dtype=bool)
    for looker in range(size):
        for seen in range(size):
            if seen >= len(groups):
                allowed[looker, seen] = True  # ordinary queries are visible to all
            elif looker < len(groups):
                allowed[looker, seen] = groups[looker] == groups[seen] and groups[seen] >= 0
    return allowed


def test_mask_equals_a_loop() -> None:
    groups = [[0, 0, 1, 1, -1, -1], [0, 0, 0, 1, 1, 1]]
    found = attention_mask(np.array(groups), 3)
    for row, expected in zip(found, groups, strict=True):
        assert ((row == 0) == loop_mask(expected, 3)).all()
        assert set(np.unique(row)) == {np.float32(-1e9), np.float32(0)}


def test_noise_of_an_image_does_not_change_with_its_neighbours() -> None:
    settings = DenoisingSettings(groups=2)
    together = build([BOXES, np.zeros((0, 4), np.float32), BOXES[:1]], [(1, 2), (3,), (4,)], 5, settings)
    alone = build([BOXES[:1]], [(4,)], 5, settings)
    assert together is not None
    assert alone is not None
    assert together.boxes_BD4.shape == (3, 8, 4)
    assert alone.boxes_BD4.shape == (1, 4, 4)
    assert torch.equal(together.boxes_BD4[2, :4], alone.boxes_BD4[0])
    assert together.real_BD.sum(1).tolist() == [8, 0, 4]
    assert together.target_BD[2].tolist() == [0, -1, 0, -1, -1, -1, -1, -1]


def test_nothing_to_noise_gives_nothing() -> None:
    assert build([np.zeros((0, 4), np.float32)], [(1,)], 5, DenoisingSettings()) is None
    assert build([BOXES], [(1,)], 5, DenoisingSettings(groups=0)) is None


def test_groups_follow_one_another_and_have_a_positive_and_a_negative_copy_of_every_box() -> None:
    """As DINO lays them out: of each group first the copies to be found again, then those to be rejected."""
    count, settings = 3, DenoisingSettings(groups=4, box_noise=0.7)
    boxes = np.random.default_rng(5).uniform(0.3, 0.5, (count, 4)).astype(np.float32)
    queries, targets, groups = noised(boxes, settings, np.random.default_rng(6))
    draws = np.random.default_rng(6)
    strength = draws.random((4, 2, count, 4), dtype=np.float32).astype(np.float64)
    sign = draws.random((4, 2, count, 4)) < 0.5
    number = 0
    for group in range(4):
        for negative in (False, True):
            for box in range(count):
                assert groups[number] == group
                assert targets[number] == (-1 if negative else box)
                cx, cy, w, h = (float(value) for value in boxes[box])
                edges = []
                for side, (edge, half) in enumerate(
                    [(cx - w / 2, w / 2), (cy - h / 2, h / 2), (cx + w / 2, w / 2), (cy + h / 2, h / 2)]
                ):
                    share = (strength[group, int(negative), box, side] + negative) * 0.7
                    moved = edge - share * half if sign[group, int(negative), box, side] else edge + share * half
                    edges.append(min(max(moved, 0.0), 1.0))
                x1, x2 = sorted((edges[0], edges[2]))
                y1, y2 = sorted((edges[1], edges[3]))
                wanted = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
                assert queries[number].tolist() == pytest.approx(wanted, abs=1e-6)
                number += 1
    assert number == len(queries)
