"""The published sizes, beside what transformers' own conversion of mmdet's weights says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

from detector import checkpoint
from detector.config import ModelSettings
from detector.sizes import SIZES, config_of
from tests.detector.weights.example_weights import small_config

# From get_mm_grounding_dino_config of transformers' convert_mm_grounding_dino_to_hf.py, and the millions of parameters
# of image backbones as their papers have them.
OFFICIAL = {
    "swin-t": (224, 7, 96, [2, 2, 6, 2], [3, 6, 12, 24], ["stage2", "stage3", "stage4"], 4, 27.5),
    "swin-b": (384, 12, 128, [2, 2, 18, 2], [4, 8, 16, 32], ["stage2", "stage3", "stage4"], 4, 86.9),
    "swin-l": (384, 12, 192, [2, 2, 18, 2], [6, 12, 24, 48], ["stage1", "stage2", "stage3", "stage4"], 5, 195.2),
}
RECIPE = {
    "num_queries": 900, "d_model": 256, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "encoder_n_points": 4,
    "decoder_n_points": 4, "max_text_len": 256, "positional_embedding_temperature": 20, "dropout": 0.0,
    "fusion_dropout": 0.1, "fusion_droppath": 0.0, "class_cost": 2.0, "bbox_cost": 5.0, "giou_cost": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_sizes_are_the_official_ones(name: str) -> None:
    config = config_of(SIZES[name])
    swin = config.backbone_config
    found = (
        swin.image_size, swin.window_size, swin.embed_dim, swin.depths, swin.num_heads, swin.out_features,
        config.num_feature_levels,
    )  # fmt: skip
    assert found == OFFICIAL[name][:-1]
    assert {key: getattr(config, key) for key in RECIPE} == RECIPE
    assert (config.text_config.vocab_size, config.text_config.hidden_size) == (30522, 768)
    with torch.device("meta"):
        model = MMGroundingDinoForObjectDetection(config)
    weights = sum(one.numel() for one in model.model.backbone.parameters()) / 1e6
    assert weights == pytest.approx(OFFICIAL[name][-1], abs=0.4)
    assert len(model.model.input_proj_vision) == OFFICIAL[name][-2]


def test_large_images_are_for_the_large_size() -> None:
    sides = {name: (size.short_side, size.long_side) for name, size in SIZES.items()}
    assert sides == {"swin-t": (800, 1333), "swin-b": (800, 1333), "swin-l": (1000, 1560)}
    assert {name: size.drop_path for name, size in SIZES.items()} == {"swin-t": 0.2, "swin-b": 0.3, "swin-l": 0.2}


# What the published folders and transformers' defaults have, and what nobody would train with.
PUBLISHED = {
    "dropout": 0.1, "fusion_droppath": 0.1, "fusion_dropout": 0.0, "attention_dropout": 0.3, "activation_dropout": 0.3,
    "text_enhancer_dropout": 0.3,
}  # fmt: skip


def folder_of(config: MMGroundingDinoConfig, folder: Path) -> str:
    """A model folder with dropout of its own."""
    for name, value in PUBLISHED.items():
        setattr(config, name, value)
    for name, value in {
        "hidden_dropout_prob": 0.3,
        "attention_probs_dropout_prob": 0.3,
        "drop_path_rate": 0.05,
    }.items():
        setattr(config.backbone_config, name, value)
    parts = checkpoint.start(ModelSettings(), seed=0)
    checkpoint.write_model(folder, checkpoint.Parts(type(parts.model)(config), parts.tokenizer, parts.pixels))
    return str(folder)


def dropped(model: nn.Module) -> dict[str, set[float]]:
    """The shares that the modules of a model really drop, by upstream's kind of module."""
    found: dict[str, set[float]] = {}
    for module in model.modules():
        share = getattr(module, "drop_prob", getattr(module, "p", getattr(module, "dropout", None)))
        if isinstance(share, float):
            kind = next(one for one in type(module).__mro__ if not one.__module__.startswith("detector."))
            found.setdefault(kind.__name__.removeprefix("MMGroundingDino"), set()).add(round(share, 3))
    return found


def test_a_published_folder_is_trained_with_the_dropout_of_the_recipe(tmp_path: Path) -> None:
    """As far as it has Swin's published widths and depths; what is behind them may be small here."""
    config = small_config()
    config.backbone_config = config_of(SIZES["swin-t"]).backbone_config
    name = folder_of(config, tmp_path)
    found = dropped(checkpoint.start(ModelSettings(start=name), seed=0).model)
    assert found["SwinDropPath"] == {round(0.2 * layer / 11, 3) for layer in range(1, 12)}
    assert found["BiMultiHeadAttention"] == {0.1}
    assert "DropPath" not in found
    assert {kind: found[kind] for kind in ("TextEnhancerLayer", "DeformableLayer", "DecoderLayer")} == {
        "TextEnhancerLayer": {0.0}, "DeformableLayer": {0.0}, "DecoderLayer": {0.0},
    }  # fmt: skip
    assert found["Dropout"] == {0.0, 0.1}  # of attention and Swin, and of BERT
    assert dropped(checkpoint.read(name).model)["DecoderLayer"] == {0.1}  # to look with, the folder is as it is


def test_a_folder_of_another_shape_keeps_its_own_dropout(tmp_path: Path) -> None:
    found = dropped(checkpoint.start(ModelSettings(start=folder_of(small_config(), tmp_path)), seed=0).model)
    assert found["DecoderLayer"] == {0.1}
    assert found["BiMultiHeadAttention"] == {0.0}


@pytest.mark.slow
@torch.no_grad()
def test_a_fresh_swin_t_answers_as_plain_transformers_does() -> None:
    parts = checkpoint.start(ModelSettings(start="swin-t"), seed=0)
    model = parts.model.eval()
    assert (parts.pixels.short_side, parts.pixels.long_side) == (800, 1333)
    for head in model.bbox_embed:  # box heads start at zero; give every layer something to add
        torch.nn.init.normal_(head.layers[-1].weight, std=0.05)
    plain = MMGroundingDinoForObjectDetection(model.config).eval()
    plain.load_state_dict(model.state_dict())
    g = torch.Generator().manual_seed(0)
    pixels, mask = torch.randn(1, 3, 192, 256, generator=g), torch.ones(1, 192, 256, dtype=torch.long)
    pixels[:, :, :, 224:], mask[:, :, 224:] = 0, 0
    words = parts.tokenizer(["red square. blue star. dog."], return_tensors="pt")
    ids, attention = words["input_ids"], words["attention_mask"]
    expected = plain(pixel_values=pixels, pixel_mask=mask, input_ids=ids, attention_mask=attention)
    found = model(pixels, mask, ids, attention)
    assert torch.allclose(found.boxes_BQ4, expected.pred_boxes, atol=1e-5)
    assert torch.allclose(found.logits_BQT, expected.logits[..., : ids.shape[1]], atol=1e-5)
