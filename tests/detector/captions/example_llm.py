"""Very small language models and made-up features of a detector, for tests of the caption losses."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from transformers import MMGroundingDinoConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from detector.captions.heads import CaptionHeads
from detector.captions.llm import LanguageModel
from detector.captions.tiny import make_tokenizer
from detector.config import CaptionSettings
from detector.model import Features
from detector.words import Words

TEXTS = ["Young man.", "Red car.", "A red car stands at the stop near a tree.", "A dog."]
SHAPES = ((12, 16), (6, 8), (3, 4))
WORDS = (
    Words("A red car stands.", ("Young man.", None, "Red car."), (0, 0)),
    Words(None, ("A dog.",), (0, 1)),
    Words("A dog near a tree.", (), (0, 2)),
)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(TEXTS, 320)


def qwen(layers: int = 3, hidden: int = 32) -> Qwen2ForCausalLM:
    """Random weights, large enough that every token matters."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer()), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=64, tie_word_embeddings=True, initializer_range=0.2,
            bos_token_id=None, eos_token_id=2, pad_token_id=0,
        )
    )  # fmt: skip
    return model.eval()


def config(channels: int = 32) -> MMGroundingDinoConfig:
    return MMGroundingDinoConfig(d_model=channels, num_feature_levels=len(SHAPES))


def settings(**changes: Any) -> CaptionSettings:
    small: dict[str, Any] = {"levels": (-1, -2), "grids": (2, 3), "lora_rank": 4, "lora_alpha": 8.0, "look_layers": 2}
    small["region_tokens"] = 100  # the small vocabulary spells
    return replace(CaptionSettings(**small), **changes)


def heads(**changes: Any) -> CaptionHeads:
    """In float64; LoRA and looks start as they do in training."""
    made = settings(**changes)
    torch.manual_seed(1)
    llm = LanguageModel(qwen(), tokenizer(), made.recompute)
    return CaptionHeads(llm, config(), made).double().train()


def shake(module: torch.nn.Module) -> None:
    """Random values where training would start from zero."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name or ".look.up." in name:
                parameter.normal_(0, 0.3)


def features(images: int = 3, queries: int = 5, channels: int = 32) -> Features:
    """Leaves with a gradient; the second image is half as wide as the canvas."""
    g = torch.Generator().manual_seed(3)
    cells = sum(height * width for height, width in SHAPES)
    real = torch.ones(images, cells, dtype=torch.bool)
    ratios = torch.ones(images, len(SHAPES), 2, dtype=torch.float64)
    if images > 1:
        ratios[1, :, 0] = 0.5
        real[1] = torch.cat([(torch.arange(w) < w / 2).repeat(h) for h, w in SHAPES])
    sizes = ((cells, channels), (queries, channels), (queries, 4))
    memory, states, boxes = (torch.randn(images, *size, generator=g, dtype=torch.float64) for size in sizes)
    boxes = boxes.sigmoid()
    for leaf in (memory, states, boxes):
        leaf.requires_grad_()
    return Features(memory, real, SHAPES, ratios, states, boxes)


def match() -> torch.Tensor:
    """Query 4 has box 0 of the first image, query 0 box 1, query 2 box 2; query 3 the only box of the second."""
    return torch.tensor([[1, -1, 2, -1, 0], [-1, -1, -1, 0, -1], [-1] * 5])
