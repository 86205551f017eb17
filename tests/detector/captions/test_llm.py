"""Language models: read from folders, frozen, and recomputed to save memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

from detector.captions import llm
from detector.captions.heads import CaptionHeads
from detector.captions.llm import LanguageModel
from detector.captions.packing import IGNORED, Rows
from llmdet.errors import FormatError, MissingError, SettingError
from tests.detector.captions.example_llm import WORDS, config, features, heads, match, qwen, settings, tokenizer


def test_the_language_model_inside_a_llava_is_taken(tmp_path: Path) -> None:
    text = qwen()
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    whole = LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(vision_config=vision, text_config=text.config, tie_word_embeddings=True)
    )
    whole.model.language_model.load_state_dict(text.model.state_dict())
    whole.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    made = llm.read(str(tmp_path), torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    rows = CaptionHeads(made, config(), settings(looks="off", lora_rank=0)).region_rows(["A dog."])
    hidden = made(made.embed(rows.ids_RL), rows)
    assert torch.allclose(made.head(hidden), text(input_ids=rows.ids_RL).logits, atol=1e-5)
    assert not hasattr(made.body, "vision_tower")
    assert made.embed(ids).shape == (1, 4, 32)


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    qwen().save_pretrained(tmp_path)
    with pytest.raises(MissingError, match=r"has no tokenizer beside it: put its tokenizer\.json") as raised:
        llm.read(str(tmp_path), torch.float32)
    assert "\n" not in str(raised.value)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no language model can be read from"):
        llm.read(str(tmp_path / "nowhere"), torch.float32)
    qwen().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(FormatError, match="holds no whole causal language model"):
        llm.read(str(tmp_path), torch.float32)


def gpt2() -> llm.LanguageModel:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer()), n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    )
    return llm.LanguageModel(model, tokenizer())


def test_other_causal_models_work_without_looks() -> None:
    made = CaptionHeads(gpt2(), config(), settings(looks="off")).double()
    losses = made(features(), match(), WORDS)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(float(value) > 0 for value in losses.values())
    assert any("lora_A" in name for name in made.trained())
    with pytest.raises(SettingError, match=r"GPT2Block is none: set captions\.looks to off"):
        CaptionHeads(gpt2(), config(), settings())


def kept(made: CaptionHeads) -> tuple[int, float]:
    """Bytes that the forward pass keeps for the backward pass, each storage once, and the loss."""
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {one.untyped_storage().data_ptr() for one in made.parameters()}
    alive: list[Any] = []
    seen = features()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: alive.append(x) or note(x), lambda x: x):
        total = torch.stack(list(made(seen, match(), WORDS).values())).sum()
    size = sum(count for place, count in sizes.items() if place not in weights)
    total.backward()
    assert seen.states_BQC.grad is not None
    return size, float(seen.states_BQC.grad.abs().sum())


def test_recomputing_saves_memory_and_changes_no_gradient() -> None:
    """Also in evaluation mode, in which transformers' own switch does nothing."""
    large, gradient = kept(heads(recompute=False))
    small, same = kept(heads(recompute=True))
    assert small < 0.35 * large
    assert same == pytest.approx(gradient, rel=1e-12)


def test_the_loss_and_its_gradient_are_those_of_cross_entropy_with_all_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "CHUNK", 3)
    model = LanguageModel(qwen(), tokenizer()).double()
    hidden = torch.randn(2, 6, model.hidden_size, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[3, IGNORED, 5, 7, IGNORED, 2], [IGNORED, 1, 1, 4, 9, IGNORED]])
    weights = torch.tensor([[2, 1, 1, 3, 1, 1], [1, 1, 2, 1, 1, 1]])
    rows = Rows(targets, targets, targets, targets, weights, targets[:0], alone=True)
    ours = model.loss(hidden, rows)
    entropy = F.cross_entropy(model.head(hidden).mT, targets, reduction="none", ignore_index=IGNORED)
    theirs = (entropy * weights).sum()
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss * 0.5, hidden)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)
    with torch.inference_mode():
        torch.testing.assert_close(model.loss(hidden, rows), theirs)
