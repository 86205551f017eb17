"""Captions read out of a detector: what the language model says of an image and of boxes, word after likeliest word.

Questions, features and places are those of training. A text ends where the model ends it, or at the length that
training cut texts to. Sequences of one kind are equally long, so that a batch of them needs no padding.
"""

# R rows   L tokens of a row   H channels   N image tokens of all rows

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from detector.captions.connectors import Glance
from detector.captions.heads import CaptionHeads
from detector.captions.llm import LanguageModel
from detector.captions.packing import Rows, Tail, pack
from detector.captions.scripts import Script
from detector.model import Features

BATCH = 32  # boxes that are described at once


def say_image(heads: CaptionHeads, features: Features) -> str:
    """The caption of a single image; empty where the heads did not learn to describe images."""
    if not heads.settings.image_weight:
        return ""
    tokens = heads.image_tokens(features, 0)
    rows = _asked(heads.image_script, len(tokens), 1).to(tokens.device)
    return _said(heads, heads.image_script, tokens, rows, heads.settings.image_tokens)[0]


def say_boxes(heads: CaptionHeads, features: Sequence[Features], queries: Sequence[Sequence[int]]) -> list[str]:
    """A caption for each box of a single image, given as its prompt and its query there; `features` are by prompt.

    A query is asked once, however many boxes came from it. Texts are empty where the heads did not learn regions.
    """
    if heads.region_connector is None or not heads.settings.region_weight:
        return [""] * len(queries)
    said: dict[tuple[int, int], str] = {}
    for prompt, seen in enumerate(features):
        own = sorted({query for number, query in queries if number == prompt})
        for start in range(0, len(own), BATCH):
            batch = own[start : start + BATCH]
            texts = _say_queries(heads, seen, batch)
            said |= {(prompt, query): text for query, text in zip(batch, texts, strict=True)}
    return [said[prompt, query] for prompt, query in queries]


def _say_queries(heads: CaptionHeads, features: Features, queries: Sequence[int]) -> list[str]:
    query_N = torch.tensor(queries, device=features.memory_BSC.device)
    rows = _asked(heads.region_script, 1, len(queries)).to(query_N.device)
    tokens, glance = heads.region_tokens(features, torch.zeros_like(query_N), query_N, rows)
    return _said(heads, heads.region_script, tokens, rows, heads.settings.region_tokens, glance)


def _asked(script: Script, images: int, count: int) -> Rows:
    """Rows that end where the answer begins, one for each sequence."""
    return pack(script.before, [Tail(images, script.after + script.opening)] * count, row_tokens=0)


def _said(
    heads: CaptionHeads, script: Script, tokens_NH: Tensor, rows: Rows, length: int, glance: Glance | None = None
) -> list[str]:
    """Texts that go on from rows; `length` is that of a whole sequence in training."""
    most = max(length - rows.ids_RL.shape[1], 1)
    answers = greedy(heads.llm, heads.embed(tokens_NH, rows), script.ends, most, glance)
    return [str(script.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in answers]


@torch.inference_mode()
def greedy(
    llm: LanguageModel, embeds_RLH: Tensor, ends: Collection[int], most: int, glance: Glance | None = None
) -> list[list[int]]:
    """The likeliest next token, at most `most` times, until a row says one of `ends`, which is left out."""
    past = DynamicCache(config=llm.body.config)
    answers: list[list[int]] = [[] for _ in embeds_RLH]
    going = set(range(len(answers)))
    count, length = embeds_RLH.shape[:2]
    positions = torch.arange(length, device=embeds_RLH.device).expand(count, -1)
    for place in range(length, length + most):
        ids = llm.next_scores(embeds_RLH, positions, past, glance).argmax(-1)
        going -= {row for row, token in enumerate(ids.tolist()) if token in ends}
        for row in going:
            answers[row].append(int(ids[row]))
        if not going:
            break
        # Rows that ended run on unheard. What region tokens saw of the image is in the cache from here on.
        embeds_RLH, positions, glance = llm.embed(ids[:, None]), positions.new_full((count, 1), place), None
    return answers
