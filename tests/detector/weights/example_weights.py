"""A small MM-Grounding-DINO with a Swin backbone, and random weights under mmdet's names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, MMGroundingDinoConfig, SwinConfig

from detector import checkpoint
from detector.config import quickstart_model
from detector.sizes import SIZES, config_of
from detector.weights import mmdet


def small_config() -> MMGroundingDinoConfig:
    """All parts of the real ones, each as small as it goes; as many tokens as the tokenizer of this package has."""
    config = config_of(SIZES["swin-t"], len(checkpoint.tiny_tokenizer()), queries=20)
    config.backbone_config = SwinConfig(
        image_size=64, window_size=4, embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2],
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config.text_config = small_bert(config.text_config.vocab_size)
    config.d_model, config.encoder_layers, config.decoder_layers = 32, 1, 3
    config.encoder_ffn_dim = config.decoder_ffn_dim = 64
    config.encoder_attention_heads = config.decoder_attention_heads = 4
    return config


def small_bert(vocabulary: int = 30522) -> BertConfig:
    return BertConfig(
        vocab_size=vocabulary, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64
    )


def names(config: MMGroundingDinoConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes that mmdet has for a configuration."""
    ours = {name: torch.zeros((), dtype=torch.uint8).expand(shape) for name, shape in mmdet.shapes(config).items()}
    return {name: tuple(tensor.shape) for name, tensor in mmdet.to_mmdet(ours, {}, config).items()}


def random_state(config: MMGroundingDinoConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of mmdet; the indices of windows are what they must be."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in names(config).items():
        if dtype == torch.uint8:
            state[name] = torch.randint(256, shape, generator=g, dtype=dtype)
        else:
            state[name] = torch.randn(shape, generator=g, dtype=dtype) * 0.05
        if name.endswith("relative_position_index"):
            state[name] = window_index(int(shape[0] ** 0.5))
    return state


def window_index(side: int) -> Tensor:
    """By loops: row of the bias table for each pair of pixels of a window."""
    places = [(y, x) for y in range(side) for x in range(side)]
    return torch.tensor(
        [[(y - v + side - 1) * (2 * side - 1) + (x - u + side - 1) for v, u in places] for y, x in places]
    )


def language_side(seed: int = 1) -> dict[str, Tensor]:
    """A few of the tensors that LLMDet adds, of the shapes of its names but small; two of the LLM are one."""
    g = torch.Generator().manual_seed(seed)
    shapes = {
        "image_seperate.weight": (1, 8),
        "connector.mlp.0.weight": (8, 32),
        "region_connector.pos_proj.bias": (8,),
        "ref_point_head.layers.0.weight": (32, 64),
        "lmm.model.layers.0.self_attn.q_proj.lora_A.weight": (2, 8),
        mmdet.POSITION_IDS: (1, 512),
    }
    state = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    words = torch.randn(16, 8, generator=g).half()
    return state | {"lmm.model.embed_tokens.weight": words, "lmm.lm_head.weight": words}


def like(folder: Path) -> Path:
    """A model folder of the small configuration, with random weights of its own."""
    parts = checkpoint.start(quickstart_model(), seed=0)
    model = type(parts.model)(small_config())
    checkpoint.write_model(folder, checkpoint.Parts(model, parts.tokenizer, parts.pixels))
    return folder
