"""mmdet's names and ours: every weight is accounted for, both ways, to the bit."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor, nn
from transformers.models.swin.modeling_swin import SwinPatchMerging

from detector.model import OpenDetector
from detector.sizes import SIZES, config_of
from detector.weights import mmdet
from llmdet.errors import FormatError
from tests.detector.weights.example_weights import (
    language_side,
    names,
    random_state,
    small_bert,
    small_config,
    window_index,
)

# sha256 of sorted lines "name [shape]" of the state_dict of mmdet 3.3's GroundingDINO, built from its own Swin-T
# configuration and that with the B and L values, each with a BERT of one layer (tests/consumers asks mmdet again).
OF_MMDET = {
    "swin-t": (732, "1a114bab760627f012fd780a1e2812ac610b761aecc9e936462995502111b856"),
    "swin-b": (900, "0c6308715d4b3911db37d4bf5ddc29ba3f222d30ad9669d54e60cab064901981"),
    "swin-l": (906, "da7a345c64569c01953bb48a439b3b70fc8c374b3aa80b56de1c9f3ccce0cd39"),
}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert set(first) == set(second)
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(
    "size", ["swin-t", *(pytest.param(size, marks=pytest.mark.slow) for size in ("swin-b", "swin-l"))]
)
def test_names_and_shapes_are_those_of_mmdet(size: str) -> None:
    config = config_of(SIZES[size])
    config.text_config = small_bert()
    lines = sorted(f"{name} {list(shape)}" for name, shape in names(config).items())
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()) == OF_MMDET[size]


def test_small_weights_go_to_ours_and_come_back_to_the_bit() -> None:
    config = small_config()
    state = random_state(config) | language_side()
    converted = mmdet.from_mmdet(state, config)
    OpenDetector(config).load_state_dict(converted.weights)  # strict: not one too few, not one too many
    assert set(converted.extra) == {*language_side(), mmdet.LABELS}
    equal(mmdet.to_mmdet(converted.weights, converted.extra, config), state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "dtype"), [("swin-t", torch.float32), ("swin-b", torch.uint8), ("swin-l", torch.uint8)]
)
def test_published_sizes_go_to_ours_and_come_back_to_the_bit(size: str, dtype: torch.dtype) -> None:
    state = random_state(config_of(SIZES[size]), dtype)
    config = mmdet.config_for(state)
    assert config.to_dict() == config_of(SIZES[size]).to_dict()
    converted = mmdet.from_mmdet(state, config)
    equal(mmdet.to_mmdet(converted.weights, converted.extra, config), state)


def test_merged_patches_give_the_same_as_mmdets_unfold() -> None:
    """mmdet: torch.nn.Unfold, norm, reduction (mmcv's PatchMerging)."""
    torch.manual_seed(0)
    image = torch.randn(1, 6, 4, 8)
    norm, reduction = nn.LayerNorm(24), nn.Linear(24, 12, bias=False)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = reduction(norm(nn.Unfold(2, stride=2)(image).transpose(1, 2)))
    order = mmdet.merge_order(24)
    merging = SwinPatchMerging(6)
    merging.load_state_dict(
        {
            "norm.weight": norm.weight[order],
            "norm.bias": norm.bias[order],
            "reduction.weight": reduction.weight[:, order],
        }
    )
    assert torch.allclose(merging(image.flatten(2).transpose(1, 2), (4, 8)), expected, atol=1e-5)


def test_query_key_and_value_are_thirds_in_this_order() -> None:
    config = small_config()
    state = random_state(config)
    ours = mmdet.from_mmdet(state, config).weights
    window = "backbone.stages.1.blocks.0.attn.w_msa.qkv.weight"
    place = "model.backbone.conv_encoder.model.swin.encoder.layers.1.blocks.0.attention"
    for row, name in enumerate("qkv"):
        assert torch.equal(ours[f"{place}.{name}_proj.weight"], state[window][16 * row : 16 * (row + 1)])
    for row, name in enumerate(("query", "key", "value")):
        third = state["decoder.layers.2.cross_attn_text.attn.in_proj_bias"][32 * row : 32 * (row + 1)]
        assert torch.equal(ours[f"model.decoder.layers.2.encoder_attn_text.{name}.bias"], third)


def test_heads_levels_and_norms_are_where_transformers_has_them() -> None:
    config = small_config()
    state = random_state(config)
    ours = mmdet.from_mmdet(state, config).weights
    same = {
        "bbox_head.reg_branches.1.4.bias": ("bbox_embed.1.layers.2.bias", "model.decoder.bbox_embed.1.layers.2.bias"),
        "bbox_head.reg_branches.3.2.bias": ("model.encoder_output_bbox_embed.layers.1.bias",),
        "backbone.norm2.weight": ("model.backbone.conv_encoder.model.hidden_states_norms.stage3.weight",),
        "neck.extra_convs.0.gn.bias": ("model.input_proj_vision.3.1.bias",),
        "encoder.fusion_layers.0.attn.values_l_proj.weight": (
            "model.encoder.layers.0.fusion_layer.attn.values_text_proj.weight",
        ),
        "decoder.layers.0.norms.1.weight": ("model.decoder.layers.0.encoder_attn_text_layer_norm.weight",),
        "level_embed": ("model.level_embed",),
    }  # fmt: skip
    for theirs, places in same.items():
        for place in places:
            assert torch.equal(ours[place], state[theirs]), place
    assert ours["class_embed.2.bias"] == state["bbox_head.cls_branches.2.bias"][0]
    assert ours["model.encoder_output_class_embed.bias"] == state["bbox_head.cls_branches.3.bias"][0]


def test_the_index_of_windows_is_the_one_by_loops() -> None:
    config = small_config()
    assert torch.equal(mmdet.window_index(config), window_index(4))
    state = random_state(config)
    state["backbone.stages.0.blocks.0.attn.w_msa.relative_position_index"] += 1
    with pytest.raises(FormatError, match=r"stages\.0.*is not the index of windows of 4"):
        mmdet.from_mmdet(state, config)


def test_a_name_too_few_too_many_or_of_another_shape_is_named() -> None:
    config = small_config()
    state = random_state(config)
    with pytest.raises(FormatError, match=r"lacks encoder\.layers\.0\.norms\.1\.bias$"):
        mmdet.from_mmdet({name: one for name, one in state.items() if name != "encoder.layers.0.norms.1.bias"}, config)
    with pytest.raises(FormatError, match=r"has no place for mask_head\.weight$"):
        mmdet.from_mmdet(state | {"mask_head.weight": torch.zeros(1)}, config)
    with pytest.raises(FormatError, match=r"in another shape model\.level_embed$"):
        mmdet.from_mmdet(state | {"level_embed": torch.zeros(5, 32)}, config)
    ours = mmdet.from_mmdet(state, config).weights
    with pytest.raises(FormatError, match=r"lacks model\.level_embed$"):
        mmdet.to_mmdet({name: one for name, one in ours.items() if name != "model.level_embed"}, {}, config)
    with pytest.raises(FormatError, match="should be the same weights"):
        mmdet.to_mmdet(ours | {"class_embed.1.bias": torch.tensor(5.0)}, {}, config)


def test_weights_of_other_models_are_told_apart() -> None:
    with pytest.raises(FormatError, match=r"no weights of mmdet's MM-Grounding-DINO: backbone\.patch_embed"):
        mmdet.config_for({"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)})
    with pytest.raises(FormatError, match=r"a Swin of 8 channels is none of the published sizes \(96 \(swin-t\), 128"):
        mmdet.config_for(random_state(small_config()))
    config = small_config()
    config.backbone_config = small_bert()
    with pytest.raises(FormatError, match="the image backbone is a bert"):
        mmdet.swin_of(config)


def test_export_without_denoising_labels_draws_them_the_same_each_time() -> None:
    config = small_config()
    ours = mmdet.from_mmdet(random_state(config), config).weights
    first, second = (mmdet.to_mmdet(ours, {}, config)[mmdet.LABELS] for _ in range(2))
    assert first.shape == (256, 32)
    assert torch.equal(first, second)
    assert 0.9 < float(first.std()) < 1.1
