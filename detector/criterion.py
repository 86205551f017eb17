"""The training loss: one-to-one matching, focal loss over tokens, L1 and GIoU over boxes.

Replaces the loss of transformers' model, which mixes up prompts of a batch and leaves the encoder's heads without a
gradient. Every decoder layer, the encoder's proposals and the denoising queries are supervised. The loss of an
image depends on that image alone; only the division by the number of boxes joins the images of a batch.
"""

# K prediction sets (decoder layers, then encoder)   B images   Q queries   N boxes   T text tokens

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from detector.config import CriterionSettings
from detector.denoising import Denoising


@dataclass(frozen=True, slots=True)
class Targets:
    """True boxes of a batch, padded: `boxes_BN4` cxcywh in 0..1, `tokens_BNT` 0 or 1, `counts` of each image."""

    boxes_BN4: Tensor
    tokens_BNT: Tensor
    counts: tuple[int, ...]

    def to(self, device: torch.device) -> Targets:
        return Targets(self.boxes_BN4.to(device), self.tokens_BNT.to(device), self.counts)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Logits (K, B, Q, T) and boxes (K, B, Q, 4) of K sets; `valid_BT` is False for padding tokens."""

    logits_KBQT: Tensor
    boxes_KBQ4: Tensor
    valid_BT: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """`total` to differentiate, its `parts` by name (detached), and the undivided loss of each image, (B,).

    `match_BQ` is the box that each ordinary query of the last decoder layer was matched to, or -1.
    """

    total: Tensor
    parts: dict[str, Tensor]
    per_image_B: Tensor
    match_BQ: Tensor

    def plus(self, others: Mapping[str, Tensor]) -> Loss:
        """The loss with further terms, divided already."""
        total = torch.stack([self.total, *(other.to(self.total.dtype) for other in others.values())]).sum()
        parts = self.parts | {name: other.detach() for name, other in others.items()}
        return replace(self, total=total, parts=parts)


# Three numbers for each set and image: class, L1, GIoU, unweighted and undivided.
Terms = tuple[Tensor, Tensor, Tensor]


def criterion(
    matched: Predictions,
    denoised: Predictions | None,
    noise: Denoising | None,
    targets: Targets,
    settings: CriterionSettings,
    positives: float,
) -> Loss:
    """The loss of a batch. `positives` is the number of boxes to divide by: the mean over all processes, at least 1."""
    target_KBQ = match(matched, targets, settings)
    terms = set_terms(matched, target_KBQ, targets, settings)
    parts = {
        "decoder": _weigh([term[-2] for term in terms], settings),
        "encoder": _weigh([t[-1] for t in terms], settings),
    }
    if len(matched.logits_KBQT) > 2:
        parts["auxiliary"] = _weigh([term[:-2].sum(0) for term in terms], settings)
    if denoised is not None and noise is not None:
        noisy = set_terms(denoised, noise.target_BD.expand(len(denoised.logits_KBQT), -1, -1), targets, settings, noise)
        parts["denoising"] = _weigh([term.sum(0) / noise.groups for term in noisy], settings)
    per_image_B = torch.stack(list(parts.values())).sum(0)
    names = {f"loss/{name}": part.detach().sum() / positives for name, part in parts.items()}
    kinds = ("class", "l1", "giou")
    names |= {f"last/{kind}": term[-2].detach().sum() / positives for kind, term in zip(kinds, terms, strict=True)}
    return Loss(per_image_B.sum() / positives, names, per_image_B, target_KBQ[-2])


def set_terms(
    predictions: Predictions,
    target_KBQ: Tensor,
    targets: Targets,
    settings: CriterionSettings,
    noise: Denoising | None = None,
) -> Terms:
    """Class, L1 and GIoU sums of each set and image, (K, B) each.

    `target_KBQ` is the number of the box that each query shall find, or -1 for none.
    """
    positive = target_KBQ >= 0
    k, b, q = positive.nonzero(as_tuple=True)
    n = target_KBQ[k, b, q]
    wanted_KBQT = torch.zeros_like(predictions.logits_KBQT)
    wanted_KBQT[k, b, q] = targets.tokens_BNT[b, n].to(wanted_KBQT.dtype)
    counted = predictions.valid_BT[None, :, None, :].expand_as(wanted_KBQT)
    if noise is not None:
        counted = counted & noise.real_BD[None, :, :, None]
    focal_KB = focal(predictions.logits_KBQT, wanted_KBQT, counted, settings).sum((-1, -2))
    found, true = predictions.boxes_KBQ4[k, b, q], targets.boxes_BN4[b, n]
    place = k * positive.shape[1] + b
    l1_KB = _sum_by(place, (found - true).abs().sum(-1), focal_KB)
    giou_KB = _sum_by(place, 1 - giou(corners(found), corners(true)), focal_KB)
    return focal_KB, l1_KB, giou_KB


def match(predictions: Predictions, targets: Targets, settings: CriterionSettings) -> Tensor:
    """Hungarian matching of every set and image: the box of each query, or -1, (K, B, Q)."""
    cost_KBQN = costs(predictions, targets, settings).cpu().numpy()
    chosen = np.full(cost_KBQN.shape[:3], -1, dtype=np.int64)
    for k in range(len(cost_KBQN)):
        for b, count in enumerate(targets.counts):
            if count:
                query, box = linear_sum_assignment(cost_KBQN[k, b, :, :count])
                chosen[k, b, query] = box
    return torch.from_numpy(chosen).to(predictions.boxes_KBQ4.device)


@torch.no_grad()
def costs(predictions: Predictions, targets: Targets, settings: CriterionSettings) -> Tensor:
    """Cost of giving a box to a query, (K, B, Q, N): weighted focal difference, L1 and negative GIoU."""
    valid = predictions.valid_BT[None, :, None, :]
    p = torch.where(valid, predictions.logits_KBQT.float(), 0.0).sigmoid()
    hit = -(p + 1e-12).log() * settings.alpha * (1 - p) ** settings.gamma * valid
    miss = -(1 - p + 1e-12).log() * (1 - settings.alpha) * p**settings.gamma * valid
    tokens_BTN = targets.tokens_BNT.transpose(1, 2).to(p.dtype)
    by_class = (hit - miss) @ tokens_BTN + miss.sum(-1, keepdim=True)
    boxes, true = predictions.boxes_KBQ4.float()[..., None, :], targets.boxes_BN4[None, :, None]
    by_l1 = (boxes - true).abs().sum(-1)
    by_giou = -giou(corners(boxes), corners(true))
    cost = settings.class_cost * by_class + settings.l1_cost * by_l1 + settings.giou_cost * by_giou
    return torch.nan_to_num(cost, nan=1e8, posinf=1e8, neginf=-1e8)


def focal(logits: Tensor, wanted: Tensor, counted: Tensor, settings: CriterionSettings) -> Tensor:
    """Sigmoid focal loss of every element (arXiv 1708.02002, equation 5); 0 where not counted, for -inf too."""
    x = torch.where(counted, logits.float(), 0.0)
    p = x.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(x, wanted, reduction="none")
    wrong = p + wanted - 2 * p * wanted
    alpha = (1 - settings.alpha) + wanted * (2 * settings.alpha - 1)
    return alpha * wrong**settings.gamma * entropy * counted


def corners(boxes: Tensor) -> Tensor:
    """cxcywh to xyxy, any leading shape."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630) of xyxy boxes, element by element; shapes broadcast."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    return inner / union.clamp(min=1e-7) - (hull - union) / hull.clamp(min=1e-7)


def pad_targets(boxes: Sequence[NDArray[np.float32]], tokens: Sequence[NDArray[np.bool_]], width: int) -> Targets:
    """Boxes and token maps of several images as one padded whole; `width` is the number of tokens of the batch."""
    most = max((len(b) for b in boxes), default=0)
    boxes_BN4 = torch.full((len(boxes), most, 4), 0.5)
    tokens_BNT = torch.zeros(len(boxes), most, width)
    for row, (box, token) in enumerate(zip(boxes, tokens, strict=True)):
        boxes_BN4[row, : len(box)] = torch.from_numpy(box)
        tokens_BNT[row, : len(box), : token.shape[1]] = torch.from_numpy(token).float()
    return Targets(boxes_BN4, tokens_BNT, tuple(len(b) for b in boxes))


def _sum_by(place: Tensor, values: Tensor, like_KB: Tensor) -> Tensor:
    """Sums of values that share a place (set and image), shaped (K, B)."""
    flat = torch.zeros(like_KB.numel(), dtype=values.dtype, device=values.device)
    return flat.index_add(0, place, values).view_as(like_KB)


def _weigh(terms: Sequence[Tensor], settings: CriterionSettings) -> Tensor:
    weights = (settings.class_weight, settings.l1_weight, settings.giou_weight)
    return torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum(0)
