"""What learns, and how fast: frozen parts, and AdamW's groups of parameters."""

from __future__ import annotations

import torch
from torch import nn

from detector.checkpoint import Parts
from detector.config import Frozen, TrainSettings

# Names of the weights of each part begin so. `backbone` is the one of images; the neck brings its levels to one width.
PARTS: dict[Frozen, str] = {
    "backbone": "model.backbone.",
    "neck": "model.input_proj_vision.",
    "text_backbone": "model.text_backbone.",
}
SLOW = (PARTS["backbone"], PARTS["text_backbone"])


def freeze(parts: Parts, settings: TrainSettings) -> None:
    """Freeze the parts that the settings name; unless `frozen_noise`, they run without dropout and drop path too.

    While captions are aligned to it, all of the detector is frozen and quiet.
    """
    model = parts.model
    if settings.captions and settings.captions.stage == "align":
        model.requires_grad_(False).eval()
        return
    for part in settings.freeze:
        module = model.get_submodule(PARTS[part].rstrip("."))
        module.requires_grad_(False).train(settings.frozen_noise)


def build_optimizer(parts: Parts, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with a slower rate for the image backbone and the text encoder, and one of their own for captions."""
    rate = settings.captions.rate if settings.captions else 1.0
    factors = {"usual": 1.0, "slow": settings.slow_rate, "captions": rate}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for kind in factors:
        for decays in (True, False):
            groups[kind, decays] = []
    for name, weight in parts.named_parameters().items():
        if weight.requires_grad:
            kind = "captions" if name.startswith("captions.") else "slow" if name.startswith(SLOW) else "usual"
            groups[kind, settings.decay == "all" or weight.ndim > 1].append(weight)
    return torch.optim.AdamW(
        [
            {"params": weights, "factor": factors[kind], "weight_decay": settings.weight_decay if decays else 0.0}
            for (kind, decays), weights in groups.items()
            if weights
        ],
        lr=settings.learning_rate,
        betas=settings.betas,
        fused=True,
    )
