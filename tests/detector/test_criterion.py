"""The loss against plain loops in float64, and its independence of neighbours in a batch."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detector import denoising
from detector.config import CriterionSettings, DenoisingSettings
from detector.criterion import (
    Predictions,
    Targets,
    corners,
    costs,
    criterion,
    focal,
    giou,
    match,
    pad_targets,
    set_terms,
)

S = CriterionSettings()


def loop_focal(x: float, wanted: float) -> float:
    p = 1 / (1 + math.exp(-x))
    pt, alpha = (p, 0.25) if wanted else (1 - p, 0.75)
    return -alpha * (1 - pt) ** 2 * math.log(pt)


def loop_giou(a: list[float], b: list[float]) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    left, right = max(ax - aw / 2, bx - bw / 2), min(ax + aw / 2, bx + bw / 2)
    top, bottom = max(ay - ah / 2, by - bh / 2), min(ay + ah / 2, by + bh / 2)
    inner = max(0.0, right - left) * max(0.0, bottom - top)
    union = aw * ah + bw * bh - inner
    hull = (max(ax + aw / 2, bx + bw / 2) - min(ax - aw / 2, bx - bw / 2)) * (
        max(ay + ah / 2, by + bh / 2) - min(ay - ah / 2, by - bh / 2)
    )
    return inner / union - (hull - union) / hull


def drawn(
    seed: int, counts: list[int], k: int = 3, q: int = 7, t: int = 6, padded: int = 2
) -> tuple[Predictions, Targets]:
    """Predictions of k sets; the first image's last `padded` tokens are padding."""
    g = torch.Generator().manual_seed(seed)
    b = len(counts)
    logits = torch.randn(k, b, q, t, generator=g) * 2
    valid = torch.ones(b, t, dtype=torch.bool)
    if padded:
        valid[0, -padded:] = False
        logits[:, 0, :, -padded:] = -math.inf
    boxes = torch.rand(k, b, q, 4, generator=g) * 0.4 + 0.2
    true = [(torch.rand(n, 4, generator=g) * 0.4 + 0.2).numpy() for n in counts]
    tokens = [(torch.rand(n, t - padded, generator=g) < 0.4).numpy() for n in counts]
    return Predictions(logits, boxes, valid), pad_targets(true, tokens, t)


def cut(predictions: Predictions, targets: Targets, row: int) -> tuple[Predictions, Targets]:
    """One image of a batch, alone."""
    one = slice(row, row + 1)
    return (
        Predictions(predictions.logits_KBQT[:, one], predictions.boxes_KBQ4[:, one], predictions.valid_BT[one]),
        Targets(
            targets.boxes_BN4[one, : targets.counts[row]],
            targets.tokens_BNT[one, : targets.counts[row]],
            (targets.counts[row],),
        ),
    )


def loop_cost(predictions: Predictions, targets: Targets, k: int, b: int, q: int, n: int) -> float:
    total = 0.0
    for t in range(predictions.logits_KBQT.shape[-1]):
        if predictions.valid_BT[b, t]:
            x = float(predictions.logits_KBQT[k, b, q, t])
            total += 2 * loop_focal(x, float(targets.tokens_BNT[b, n, t]))
    mine, true = predictions.boxes_KBQ4[k, b, q].tolist(), targets.boxes_BN4[b, n].tolist()
    return total + 5 * sum(abs(x - y) for x, y in zip(mine, true, strict=True)) - 2 * loop_giou(mine, true)


def test_focal_equals_a_loop_and_ignores_padding() -> None:
    x = torch.tensor([-4.0, -0.5, 0.0, 0.7, 5.0, -math.inf])
    wanted = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    counted = torch.tensor([True] * 5 + [False])
    expected = [loop_focal(a, b) for a, b in zip(x.tolist()[:5], wanted.tolist(), strict=False)]
    assert focal(x, wanted, counted, S).tolist() == pytest.approx([*expected, 0.0], rel=1e-4)


def test_giou_equals_a_loop_for_near_far_and_nested_boxes() -> None:
    pairs = [([0.5, 0.5, 0.4, 0.4], [0.6, 0.5, 0.4, 0.2]), ([0.2, 0.2, 0.1, 0.1], [0.8, 0.7, 0.2, 0.3]),
             ([0.5, 0.5, 0.8, 0.8], [0.5, 0.5, 0.2, 0.2]), ([0.3, 0.3, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2])]  # fmt: skip
    a, b = torch.tensor([p[0] for p in pairs]), torch.tensor([p[1] for p in pairs])
    assert giou(corners(a), corners(b)).tolist() == pytest.approx([loop_giou(*pair) for pair in pairs], abs=1e-5)


def test_costs_equal_a_loop() -> None:
    predictions, targets = drawn(0, [3, 2])
    found = costs(predictions, targets, S)
    for k, (b, count), q in itertools.product(range(3), enumerate(targets.counts), range(7)):
        for n in range(count):
            assert float(found[k, b, q, n]) == pytest.approx(
                loop_cost(predictions, targets, k, b, q, n), rel=1e-4, abs=1e-5
            )


def test_matching_is_the_cheapest_of_all_assignments() -> None:
    predictions, targets = drawn(1, [3, 2], q=4)
    chosen = match(predictions, targets, S)
    for k, (b, count) in itertools.product(range(3), enumerate(targets.counts)):
        price = {
            order: sum(loop_cost(predictions, targets, k, b, q, n) for n, q in enumerate(order))
            for order in itertools.permutations(range(4), count)
        }
        best = min(price, key=lambda order: price[order])
        assert [int((chosen[k, b] == n).nonzero()) for n in range(count)] == list(best)
        assert int((chosen[k, b] >= 0).sum()) == count


def loop_terms(
    predictions: Predictions, targets: Targets, chosen: Tensor, k: int, b: int
) -> tuple[float, float, float]:
    by_class = l1 = by_giou = 0.0
    for q in range(chosen.shape[-1]):
        n = int(chosen[k, b, q])
        for t in range(predictions.logits_KBQT.shape[-1]):
            if predictions.valid_BT[b, t]:
                wanted = float(targets.tokens_BNT[b, n, t]) if n >= 0 else 0.0
                by_class += loop_focal(float(predictions.logits_KBQT[k, b, q, t]), wanted)
        if n >= 0:
            mine, true = predictions.boxes_KBQ4[k, b, q].tolist(), targets.boxes_BN4[b, n].tolist()
            l1 += sum(abs(x - y) for x, y in zip(mine, true, strict=True))
            by_giou += 1 - loop_giou(mine, true)
    return by_class, l1, by_giou


def test_sums_of_each_set_and_image_equal_loops() -> None:
    predictions, targets = drawn(2, [3, 0, 2])
    chosen = match(predictions, targets, S)
    terms = set_terms(predictions, chosen, targets, S)
    for k, b in itertools.product(range(3), range(3)):
        mine = [float(term[k, b]) for term in terms]
        assert mine == pytest.approx(loop_terms(predictions, targets, chosen, k, b), rel=1e-4, abs=1e-5)


def test_total_is_the_weighted_sum_over_layers_encoder_and_denoising() -> None:
    predictions, targets = drawn(3, [3, 2])
    boxes = [targets.boxes_BN4[b, :n].numpy() for b, n in enumerate(targets.counts)]
    noise = denoising.build(boxes, [(1,), (2,)], 7, DenoisingSettings(groups=2))
    assert noise is not None
    denoised, _ = drawn(4, [3, 2], k=2, q=noise.boxes_BD4.shape[1])
    loss = criterion(predictions, denoised, noise, targets, S, positives=5.0)
    expected = 0.0
    for b in range(2):
        terms = [loop_terms(predictions, targets, match(predictions, targets, S), k, b) for k in range(3)]
        chosen = noise.target_BD.expand(2, -1, -1)
        real = int(noise.real_BD[b].sum())
        noisy = [loop_terms(denoised, targets, chosen[:, :, :real], k, b) for k in range(2)]
        for weight, index in ((1, 0), (5, 1), (2, 2)):
            expected += weight * (sum(t[index] for t in terms) + sum(t[index] for t in noisy) / 2)
    assert float(loss.total) == pytest.approx(expected / 5, rel=1e-4)
    assert float(loss.total) == pytest.approx(
        sum(float(v) for n, v in loss.parts.items() if n.startswith("loss/")), rel=1e-5
    )


def test_loss_of_an_image_does_not_change_with_its_neighbours() -> None:
    predictions, targets = drawn(5, [4, 0, 1])
    together = criterion(predictions, None, None, targets, S, positives=1.0).per_image_B
    for row in range(3):
        alone = criterion(*(cut(predictions, targets, row)[0], None, None), cut(predictions, targets, row)[1], S, 1.0)
        assert float(alone.per_image_B) == pytest.approx(float(together[row]), rel=1e-5)


def test_a_batch_without_boxes_has_a_finite_loss_that_reaches_every_output() -> None:
    predictions, targets = drawn(6, [0, 0])
    logits = predictions.logits_KBQT.requires_grad_()
    boxes = predictions.boxes_KBQ4.requires_grad_()
    loss = criterion(Predictions(logits, boxes, predictions.valid_BT), None, None, targets, S, positives=1.0)
    loss.total.backward()
    assert math.isfinite(float(loss.total))
    assert float(loss.total) > 0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert boxes.grad is not None
    assert float(boxes.grad.abs().max()) == 0.0


def test_padded_tokens_and_boxes_get_no_gradient() -> None:
    predictions, targets = drawn(7, [2, 3])
    logits = predictions.logits_KBQT.requires_grad_()
    criterion(
        Predictions(logits, predictions.boxes_KBQ4, predictions.valid_BT), None, None, targets, S, 5.0
    ).total.backward()
    assert logits.grad is not None
    assert float(logits.grad[:, 0, :, -2:].abs().max()) == 0.0
    assert np.isfinite(logits.grad.numpy()).all()
