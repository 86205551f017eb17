"""What learns, and in which group."""

from dataclasses import replace

import pytest
from transformers import SwinConfig

from detector import checkpoint
from detector.checkpoint import Parts
from detector.config import CaptionSettings, TrainSettings
from detector.model import OpenDetector
from detector.optimizers import build_optimizer, freeze
from tests.detector.example_run import MODEL


@pytest.fixture(scope="module")
def swin() -> Parts:
    """The tiny detector on a Swin, which has drop path."""
    parts = checkpoint.start(MODEL, 0)
    config = parts.model.config
    config.backbone_config = SwinConfig(
        embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4, out_features=["stage1", "stage2"]
    )
    return replace(parts, model=OpenDetector(config))


def fresh(parts: Parts) -> Parts:
    parts.model.requires_grad_(True).train()
    return parts


def test_backbones_are_slow_and_everything_is_in_one_group(swin: Parts) -> None:
    optimizer = build_optimizer(fresh(swin), TrainSettings(slow_rate=0.1))
    names = {id(weight): name for name, weight in swin.named_parameters().items()}
    groups = {group["factor"]: {names[id(weight)] for weight in group["params"]} for group in optimizer.param_groups}
    assert groups.keys() == {1.0, 0.1}
    assert groups[0.1] | groups[1.0] == set(names.values())
    assert {name.split(".")[1] for name in groups[0.1]} == {"backbone", "text_backbone"}  # BERT is slow too
    assert not any("backbone" in name for name in groups[1.0])
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}  # of norms and biases too, as upstream


def test_norms_and_biases_can_be_spared_the_decay(swin: Parts) -> None:
    optimizer = build_optimizer(fresh(swin), TrainSettings(decay="matrices", weight_decay=0.05))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.05, 0.0}
    for group in optimizer.param_groups:
        assert all((weight.ndim > 1) == (group["weight_decay"] > 0) for weight in group["params"])


def test_frozen_parts_are_quiet_or_as_noisy_as_llmdets(swin: Parts) -> None:
    freeze(fresh(swin), TrainSettings(freeze=("backbone", "neck")))
    frozen = {name for name, weight in swin.model.named_parameters() if not weight.requires_grad}
    assert frozen
    assert frozen == {
        name
        for name, _ in swin.model.named_parameters()
        if name.startswith(("model.backbone.", "model.input_proj_vision."))
    }
    noisy = [module for module in swin.model.modules() if type(module).__name__ == "SwinDropPath"]
    assert noisy
    assert not any(module.training for module in noisy)
    assert swin.model.model.text_backbone.training
    freeze(fresh(swin), TrainSettings(freeze=("backbone", "neck"), frozen_noise=True))
    assert all(module.training for module in noisy)


def test_nothing_of_the_detector_learns_while_captions_are_aligned(swin: Parts) -> None:
    freeze(fresh(swin), TrainSettings(captions=CaptionSettings(stage="align")))
    assert not any(weight.requires_grad for weight in swin.model.parameters())
    assert not any(module.training for module in swin.model.modules())
