"""The cheaper parts against those of transformers that they stand for: the same results and the same gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MMGroundingDinoConfig
from transformers.models.mm_grounding_dino import modeling_mm_grounding_dino as upstream

from detector import attention

SHAPES = [(4, 6), (2, 3)]
CELLS = sum(height * width for height, width in SHAPES)
TOKENS = 5


@pytest.fixture(autouse=True)
def float64() -> object:
    """Everything here in float64, so that what is equal is equal to 1e-10."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def compare(module: nn.Module, run: Callable[[nn.Module], Tensor], inputs: list[Tensor]) -> None:
    """Run upstream's module, then the quickened one; results and gradients of inputs and weights are the same."""
    before = _gradients(module, run, inputs)
    kind = type(module)
    attention.quicken(module)
    assert any(type(one).__module__ == attention.__name__ for one in module.modules())
    assert isinstance(module, kind)
    for old, new in zip(before, _gradients(module, run, inputs), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-10)


def _gradients(module: nn.Module, run: Callable[[nn.Module], Tensor], inputs: list[Tensor]) -> list[Tensor]:
    out = run(module)
    real = out.isfinite()  # scores are -inf on padding
    assert bool((out[real] != 0).any())
    weights = torch.linspace(-1, 1, int(real.sum()))
    wanted = [*inputs, *module.parameters()]
    return [out.detach(), *torch.autograd.grad((out[real] * weights).sum(), wanted, materialize_grads=True)]


def config() -> MMGroundingDinoConfig:
    return MMGroundingDinoConfig(
        d_model=32, encoder_ffn_dim=48, encoder_attention_heads=4, decoder_attention_heads=4, num_feature_levels=2
    )


@pytest.mark.parametrize("training", [False, True])
def test_fusion_equals_upstreams_with_padding_and_with_dropout(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(shares: Tensor, p: float, training: bool) -> Tensor:  # by value, so that both drop the same
        return shares * (shares > p) if training else shares

    monkeypatch.setattr(F, "dropout", drop)
    settings = config()
    settings.fusion_dropout = 0.15
    cells = torch.randn(2, CELLS, 32, requires_grad=True)
    tokens = torch.randn(2, TOKENS, 32, requires_grad=True)
    no_cell, no_token = torch.zeros(2, CELLS, dtype=torch.bool), torch.zeros(2, TOKENS, dtype=torch.bool)
    no_cell[1, 10:], no_token[0, 3:] = True, True

    def run(module: nn.Module) -> Tensor:
        (of_cells, _), (of_tokens, _) = module(cells, tokens, no_cell, no_token)
        return torch.cat([of_cells.flatten(), of_tokens.flatten()])

    compare(upstream.MMGroundingDinoBiMultiHeadAttention(settings).train(training), run, [cells, tokens])


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_upstreams(masked: bool) -> None:
    queries, tokens = torch.randn(2, 7, 32, requires_grad=True), torch.randn(2, TOKENS, 32, requires_grad=True)
    mask = torch.zeros(2, 1, 7, TOKENS)
    mask[0, 0, :, 3:] = -1e9
    module = upstream.MMGroundingDinoMultiheadAttention(config(), num_attention_heads=4)

    def run(module: nn.Module) -> Tensor:
        out: Tensor = module(queries, tokens, tokens, attention_mask=mask if masked else None)[0]
        return out

    compare(module, run, [queries, tokens])


@pytest.mark.parametrize("coordinates", [2, 4])
def test_sampling_equals_upstreams_inside_at_the_border_and_far_outside(coordinates: int) -> None:
    queries, cells = torch.randn(2, 9, 32, requires_grad=True), torch.randn(2, CELLS, 32, requires_grad=True)
    places = torch.rand(2, 9, 2, coordinates)
    places[0, 0, :, :2], places[1, 1, :, :2], places[1, 2, :, :2] = 0.0, 1.0, 40.0
    module = upstream.MMGroundingDinoMultiscaleDeformableAttention(config(), num_heads=4, n_points=3)
    nn.init.normal_(module.sampling_offsets.weight, std=0.5)
    shapes = torch.tensor(SHAPES)

    def run(module: nn.Module) -> Tensor:
        out: Tensor = module(
            queries, torch.arange(CELLS).expand(2, -1) != 3, encoder_hidden_states=cells, reference_points=places,
            spatial_shapes=shapes, spatial_shapes_list=SHAPES, level_start_index=torch.tensor([0, 24]),
        )[0]  # fmt: skip
        return out

    compare(module, run, [queries, cells])


def test_scores_equal_the_first_of_upstreams_256() -> None:
    queries, tokens = torch.randn(2, 7, 32, requires_grad=True), torch.randn(2, TOKENS, 32, requires_grad=True)
    real = torch.arange(TOKENS) < torch.tensor([[5], [3]])
    module = upstream.MMGroundingDinoContrastiveEmbedding(config())

    def run(module: nn.Module) -> Tensor:
        out: Tensor = module(queries, tokens, real)
        return out[..., :TOKENS]

    compare(module, run, [queries, tokens])
    assert module(queries, tokens, real).shape == (2, 7, TOKENS)


def test_few_queries_find_what_upstreams_attention_finds() -> None:
    queries, cells = torch.randn(2, 3, 32), torch.randn(2, CELLS, 32, requires_grad=True)
    real, places = torch.arange(CELLS).expand(2, -1) % 7 != 3, torch.rand(2, 3, 2, 4)
    module = upstream.MMGroundingDinoMultiscaleDeformableAttention(config(), num_heads=4, n_points=3)
    nn.init.normal_(module.sampling_offsets.weight, std=0.5)
    theirs = module(
        queries, real, encoder_hidden_states=cells, reference_points=places, spatial_shapes=torch.tensor(SHAPES),
        spatial_shapes_list=SHAPES, level_start_index=torch.tensor([0, 24]),
    )[0]  # fmt: skip
    few = attention.FewQueries(config(), 4, 3)
    few.load_state_dict(module.state_dict())
    attention.quicken(few)
    ours = few(queries, places, cells, real, SHAPES)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    wanted = zip([cells, *few.parameters()], [cells, *module.parameters()], strict=True)
    for mine, other in wanted:
        gradients = [
            torch.autograd.grad(out.sin().sum(), one, retain_graph=True)[0]
            for out, one in ((ours, mine), (theirs, other))
        ]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
