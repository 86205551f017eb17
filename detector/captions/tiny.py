"""A very small language model for small worlds: made from the captions of the records, in seconds, on a CPU.

It learns how the records talk, and to read what stands in the image's place, as the language model of a LLaVA has
before LLMDet begins. It never sees a pixel: in the cell of a thing stands the mean of the embeddings of its name. Then
it is frozen, and the detector's features must come to stand there instead.
"""

# P texts of a step   L tokens   H channels

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
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from detector.captions.packing import IGNORED
from detector.captions.scripts import END, IMAGE_PROMPT, REGION_PROMPT, START, Piece, Script
from llmdet.errors import MissingError

PAD = "<|endoftext|>"
CELLS = 8  # along a side of the grid that stands for an image


@dataclass(frozen=True, slots=True)
class Thing:
    """A name and its place in the image, 0 to 1 from the left and from the top."""

    name: str
    x: float = 0.5
    y: float = 0.5


@dataclass(frozen=True, slots=True)
class Told:
    """A text, and the things that it speaks of."""

    text: str
    things: tuple[Thing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySettings:
    """Size and fitting of the model."""

    layers: int = 2
    hidden: int = 128
    vocabulary: int = 1024
    steps: int = 400  # reading comes late, after talking
    batch: int = 6  # texts of a step, half of them of images
    rounds: int = 4  # through the texts of images, at most: a few texts are soon known
    learning_rate: float = 3e-3
    seed: int = 0


def write(
    folder: Path, images: Sequence[Told], regions: Sequence[Told], settings: TinySettings | None = None
) -> list[float]:
    """Fit a model to texts of images and of regions (each of one thing) and write its folder; returns the losses.

    The folder opens in plain transformers, and appears whole or not at all. Raises MissingError where there is no text.
    """
    chosen = settings or TinySettings()
    if not images and not regions:
        raise MissingError("captions.llm: tiny is made from captions, and the records have none: run caption and merge")
    tokenizer = make_tokenizer([told.text for told in (*images, *regions)], chosen.vocabulary)
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
        intermediate_size=settings.hidden,
        initializer_range=settings.hidden**-0.5,  # from 0.02, made for wide models, it takes twice as long to read
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


def _fit(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    images: Sequence[Told],
    regions: Sequence[Told],
    settings: TinySettings,
) -> list[float]:
    """Next-token training on whole scripts; the losses."""
    kinds = [
        (Asked(tokenizer, prompt, cells), texts)
        for prompt, cells, texts in ((IMAGE_PROMPT, CELLS, images), (REGION_PROMPT, 1, regions))
        if texts
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
    read = settings.batch / len(kinds)  # texts of images in a step
    steps = min(settings.steps, math.ceil(settings.rounds * len(kinds[0][1]) / read))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps + 1)
    rng = np.random.default_rng(settings.seed)
    losses = []
    for _ in range(steps):
        pieces: list[Piece] = []
        seen: list[tuple[int, int, list[int]]] = []
        for number in range(settings.batch):
            asked, texts = kinds[number % len(kinds)]
            told = texts[int(rng.integers(len(texts)))]
            pieces.append(asked.piece(told.text))
            seen += [(number, *one) for one in asked.seen(told.things)]
        ids, labels = _padded(pieces)
        loss = model(inputs_embeds=_embed(model, ids, seen), labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


class Asked:
    """One question with a square grid of cells in the image's place."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, prompt: str, cells: int) -> None:
        self.tokenizer, self.cells = tokenizer, cells
        self.script = Script(tokenizer, prompt, "upstream")

    def piece(self, text: str) -> Piece:
        """Question and answer; a cell is one token."""
        count = self.cells**2
        grid = Piece((0,) * count, (False,) * count)
        return self.script.before + grid + self.script.after + self.script.answer(text)

    def seen(self, things: Sequence[Thing]) -> list[tuple[int, list[int]]]:
        """The column of each thing's cell, and the tokens of its name."""
        places = np.array([(one.y, one.x) for one in things]).reshape(-1, 2)
        cells = np.clip((places * self.cells).astype(int), 0, self.cells - 1)  # a box may reach out of its image
        columns = len(self.script.before) + cells @ (self.cells, 1)
        # Behind a space, as inside a sentence: copying a token is what is learned first.
        names = [self.tokenizer(f" {one.name}", add_special_tokens=False)["input_ids"] for one in things]
        return list(zip(columns.tolist(), names, strict=True))


def _embed(model: Qwen2ForCausalLM, ids_PL: Tensor, seen: Sequence[tuple[int, int, list[int]]]) -> Tensor:
    """Embeddings (P, L, H), in a cell the mean over the tokens of the name of a thing, the last one there."""
    table = model.get_input_embeddings()
    embeds = table(ids_PL)
    for row, column, name in seen:
        embeds[row, column] = table(torch.tensor(name)).mean(0)
    return embeds


def _padded(pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
    """Ids and labels, padded on the right, where causal attention does not see it."""
    length = max(len(piece) for piece in pieces)
    ids = torch.zeros(len(pieces), length, dtype=torch.long)
    labels = torch.full((len(pieces), length), IGNORED)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece)] = torch.tensor(piece.ids)
        labels[row, : len(piece)] = torch.where(torch.tensor(piece.wanted), torch.tensor(piece.ids), IGNORED)
    return ids, labels
