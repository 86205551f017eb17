"""Tiny image-text-to-text models with random weights: what they say is noise, how they work is real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from llmdet.prompts import PROMPTS
from llmdet.prompts.example import EXAMPLE

Kind = Literal["qwen2_vl", "qwen2_5_vl"]

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_WORDS = (
    "A man in a red jacket stands on the left of the picture, beside a small dog on the grass.",
    '[{"id":1,"caption":"a dog running over green grass"},{"id":2,"caption":"a red car"}]',
)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_vlm(folder: Path, kind: Kind = "qwen2_vl", seed: int = 0) -> Path:
    """A folder that transformers and vLLM load as a Qwen-VL model of 64 channels and two layers."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL}
    torch.manual_seed(seed)
    model = _model(kind, len(tokenizer), ids)
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.generation_config.pad_token_id = ids["<|endoftext|>"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sides = {"min_pixels": 28 * 28, "max_pixels": 1280 * 28 * 28}
    shared = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2, "processor_class": "Qwen2VLProcessor"}
    size = {"size": {"shortest_edge": sides["min_pixels"], "longest_edge": sides["max_pixels"]}}
    image = {**shared, **sides, **size, "image_processor_type": "Qwen2VLImageProcessor"}
    video = {**shared, **size, "video_processor_type": "Qwen2VLVideoProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    return folder


def _tokenizer() -> Any:
    """Bytes, so that all can be written, and the words of our prompts, so that these are as short as elsewhere."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, initial_alphabet=alphabet, show_progress=False)
    words = [ask.text for kind in PROMPTS.values() for ask in kind().render(EXAMPLE)]
    bare.train_from_iterator([*_WORDS, *words], trainer)
    bare.add_special_tokens(list(_SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(_SPECIAL[1:]),
        chat_template=_TEMPLATE,
        model_max_length=32768,
    )


def _model(kind: Kind, words: int, ids: dict[str, int]) -> Any:
    import transformers

    text = {
        "vocab_size": words,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "tie_word_embeddings": False,
    }
    common = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if kind == "qwen2_vl":
        vision = {**common, "embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2}
        config: Any = transformers.Qwen2VLConfig
        build: Any = transformers.Qwen2VLForConditionalGeneration
    else:
        vision = {**common, "hidden_size": 64, "out_hidden_size": 64, "intermediate_size": 128, "window_size": 56}
        vision["fullatt_block_indexes"] = [1]
        config, build = transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration
    tokens = {
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
    }
    return build(config(text_config=text, vision_config=vision, tie_word_embeddings=False, **tokens))
