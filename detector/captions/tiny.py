"""A very small language model for small worlds: made from the captions of the records, in seconds, on a CPU.

It learns how the records talk, from their text alone; then it is frozen, and what it cannot guess from the words before
it must come from the detector's features.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from detector.captions.packing import IGNORED
from detector.captions.scripts import END, IMAGE_PROMPT, REGION_PROMPT, START, Piece, Script
from llmdet.errors import MissingError

PAD = "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySettings:
    """Size and fitting of the model."""

    layers: int = 2
    hidden: int = 128
    vocabulary: int = 1024
    steps: int = 150
    batch: int = 12  # texts of a step, half of them of images
    rounds: int = 4  # through the texts of images, at most: a few texts are soon known
    learning_rate: float = 3e-3
    seed: int = 0


def write(
    folder: Path, images: Sequence[str], regions: Sequence[str], settings: TinySettings | None = None
) -> list[float]:
    """Fit a model to texts of images and of regions and write its folder; returns the losses.

    The folder opens in plain transformers, and appears whole or not at all. Raises MissingError where there is no text.
    """
    chosen = settings or TinySettings()
    if not images and not regions:
        raise MissingError("captions.llm: tiny is made from captions, and the records have none: run caption and merge")
    tokenizer = make_tokenizer([*images, *regions], chosen.vocabulary)
    torch.manual_seed(chosen.seed)
    model = Qwen2ForCausalLM(_config(len(tokenizer), chosen))
    losses = _fit(model, tokenizer, images, regions, chosen)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed
        shutil.rmtree(left)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return losses


def make_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level pairs learned from texts and the questions, with the markers of a chat."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, IMAGE_PROMPT, REGION_PROMPT, "system user assistant"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def _config(vocabulary: int, settings: TinySettings) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * settings.hidden,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


def _fit(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    images: Sequence[str],
    regions: Sequence[str],
    settings: TinySettings,
) -> list[float]:
    """Next-token training on whole scripts, without an image in them; the losses."""
    scripts = (Script(tokenizer, IMAGE_PROMPT, "upstream"), Script(tokenizer, REGION_PROMPT, "upstream"))
    kinds = [(script, texts) for script, texts in zip(scripts, (images, regions), strict=True) if texts]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
    read = settings.batch / len(kinds)  # texts of images in a step
    steps = min(settings.steps, math.ceil(settings.rounds * len(kinds[0][1]) / read))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps + 1)
    rng = np.random.default_rng(settings.seed)
    losses = []
    for _ in range(steps):
        pieces = []
        for number in range(settings.batch):
            script, texts = kinds[number % len(kinds)]
            text = texts[int(rng.integers(len(texts)))]
            pieces.append(script.before + script.after + script.answer(text))
        ids, labels = _padded(pieces)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def _padded(pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
    """Ids and labels, padded on the right, where causal attention does not see it."""
    length = max(len(piece) for piece in pieces)
    ids = torch.zeros(len(pieces), length, dtype=torch.long)
    labels = torch.full((len(pieces), length), IGNORED)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece)] = torch.tensor(piece.ids)
        labels[row, : len(piece)] = torch.where(torch.tensor(piece.wanted), torch.tensor(piece.ids), IGNORED)
    return ids, labels
