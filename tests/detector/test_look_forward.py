"""Boxes from layer to layer, and which of them learn from which loss: plain formulas in float64 (DINO, section 3.5)."""

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detector import checkpoint, text
from detector.config import tiny_config
from detector.data import pad_ids
from detector.model import OpenDetector, Outputs

LAYERS = 3
QUERIES = (0, 7, 29)


@cache
def model() -> OpenDetector:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = tiny_config(len(checkpoint.tiny_tokenizer()))
    config.decoder_layers = LAYERS
    net = OpenDetector(config).double().eval()
    for head in net.bbox_embed:  # they start at zero
        nn.init.normal_(head.get_parameter("layers.2.weight"), std=0.5)
    return net


def passed() -> tuple[Outputs, list[Tensor], list[Tensor]]:
    """One pass, the states (B, Q, C) behind each decoder layer, and the boxes (B, Q, 4) that each begins with."""
    net, states, starts = model(), [], []

    def note(module: nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> None:
        states.append(out[0])
        starts.append(kwargs["reference_points"][:, :, 0])  # of the first level; nothing is padded here

    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in net.model.decoder.layers]
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prompts = [text.from_names(["red square", "dog"]), text.from_names(["cat"])]
    ids = [text.encode(checkpoint.tiny_tokenizer(), prompt, 256).ids for prompt in prompts]
    out = net(pixels, torch.ones(2, 64, 64, dtype=torch.long), *pad_ids(ids))
    for hook in hooks:
        hook.remove()
    return out, states, starts


def moved(head: int, state: list[float]) -> list[float]:
    """What a box head of three layers adds to the logits of a box, one number at a time."""
    values = state
    for layer in range(3):
        weight = model().get_parameter(f"bbox_embed.{head}.layers.{layer}.weight").tolist()
        bias = model().get_parameter(f"bbox_embed.{head}.layers.{layer}.bias").tolist()
        values = [sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        values = [max(value, 0.0) for value in values] if layer < 2 else values
    return values


def normed(state: list[float]) -> list[float]:
    norm = model().model.decoder.layer_norm
    mean = sum(state) / len(state)
    spread = math.sqrt(sum((value - mean) ** 2 for value in state) / len(state) + norm.eps)
    scale, shift = norm.weight.tolist(), norm.bias.tolist()
    return [(value - mean) / spread * a + b for value, a, b in zip(state, scale, shift, strict=True)]


def refined(box: list[float], move: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-(math.log(x / (1 - x)) + by))) for x, by in zip(box, move, strict=True)]


@pytest.mark.parametrize("query", QUERIES)
@torch.no_grad()
def test_each_layer_moves_the_box_of_the_one_before_and_says_its_own_from_normed_states(query: int) -> None:
    out, states, starts = passed()
    for image in range(2):
        box = starts[0][image, query].tolist()
        for layer in range(LAYERS):
            state = states[layer][image, query].tolist()
            assert starts[layer][image, query].tolist() == pytest.approx(box, abs=1e-9)
            said = refined(box, moved(layer, normed(state)))
            assert out.matched.boxes_KBQ4[layer, image, query].tolist() == pytest.approx(said, abs=1e-9)
            box = refined(box, moved(layer, state))


def gradient_of(head: int, boxes: Tensor) -> Tensor:
    """Of the sum of boxes, at the last bias of a head, (4,)."""
    bias = model().get_parameter(f"bbox_embed.{head}.layers.2.bias")
    found = torch.autograd.grad(boxes.sum(), bias, retain_graph=True, allow_unused=True)[0]
    return torch.zeros(4, dtype=torch.float64) if found is None else found


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_box_teaches_its_own_layer_and_the_one_before_and_no_other(layer: int) -> None:
    """A logit is the sum of what was added to it, so both heads have the slope of the sigmoid as their gradient."""
    boxes = passed()[0].matched.boxes_KBQ4[layer]
    slope = [sum(float(x) * (1 - float(x)) for x in boxes.detach()[..., side].flatten()) for side in range(4)]
    for head in range(LAYERS):
        expected = slope if head in (layer, layer - 1) else [0.0] * 4
        assert gradient_of(head, boxes).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
