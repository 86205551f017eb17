"""One image, one prompt: what a detector sees of each phrase, for batches in which every image has its own prompt."""

# B images   Q queries   T text tokens   P phrases of a prompt

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerBase
from transformers.image_transforms import get_size_with_aspect_ratio

from detector import text
from detector.data import pad_ids
from detector.pixels import pad_pixels
from detector.predict import Detector, phrase_scores
from llmdet.record import Span


@dataclass(frozen=True, slots=True)
class Look:
    """A prompt as tokens: ids (T,), whose tokens belong to which phrase (P, T), and the callers' numbers of phrases."""

    ids: NDArray[np.int64]
    tokens: NDArray[np.bool_]
    phrases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the queries of one look found: scores (Q, P), and boxes (Q, 4) xyxy in pixels of the image."""

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]


def looks_for_names(
    tokenizer: PreTrainedTokenizerBase, names: Sequence[str], limit: int, most: int | None = None
) -> list[Look]:
    """Prompts `dog. red cup.` of as many names as fit, or at most `most`. A name that fits alone into none has none."""
    looks: list[Look] = []
    start = 0
    while start < len(names):
        stop = min(start + (most or len(names)), len(names))
        encoded = text.encode(tokenizer, text.from_names(names[start:stop]), limit)
        if encoded.lost:
            stop = start + min(encoded.lost)
            if stop == start:
                start += 1
                continue
            encoded = text.encode(tokenizer, text.from_names(names[start:stop]), limit)
        looks.append(Look(encoded.ids, encoded.tokens, tuple(range(start, stop))))
        start = stop
    return looks


def looks_for_spans(
    tokenizer: PreTrainedTokenizerBase, words: str, phrases: Sequence[Sequence[Span]], limit: int
) -> list[Look]:
    """The text itself as prompt, in pieces that end with a sentence where it is longer than the model reads.

    `phrases[i]` are the spans of phrase i; those that stand in one piece count as one phrase there.
    """
    open_ = sorted((span, number) for number, spans in enumerate(phrases) for span in spans)
    looks: list[Look] = []
    start = 0
    while open_:
        moved = [((a - start, b - start),) for (a, b), _ in open_]
        encoded = text.encode(tokenizer, text.from_text(words[start:], moved), limit)
        lost = set(encoded.lost)
        held = [number for row, (_, number) in enumerate(open_) if row not in lost]
        if held:
            rows = {number: np.zeros(len(encoded.ids), dtype=bool) for number in sorted(held)}
            for row, (_, number) in enumerate(open_):
                if row not in lost:
                    rows[number] |= encoded.tokens[row]
            looks.append(Look(encoded.ids, np.stack(list(rows.values())), tuple(rows)))
        open_ = [mention for row, mention in enumerate(open_) if row in lost]
        if open_:
            first = open_[0][0][0]
            if not held and start == first:
                open_ = open_[1:]  # no prompt can hold it
            else:
                after_dot = words.rfind(".", start, first) + 1
                start = after_dot if after_dot > start else first
    return looks


def model_size(model: Detector, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width at which the model sees an image of (width, height)."""
    pixels = model.parts.pixels
    height, width = get_size_with_aspect_ratio((size[1], size[0]), pixels.short_side, pixels.long_side)
    return int(height), int(width)


@torch.inference_mode()
def look(model: Detector, images: Sequence[Image.Image], looks: Sequence[Look]) -> list[Seen]:
    """One pass over images that have a prompt each.

    Prompts of other lengths and images of other sizes are padded, which changes scores a little.
    """
    net, pixels = model.parts.model, model.parts.pixels
    pixel_values, pixel_mask = pad_pixels([pixels(image) for image in images])
    inputs = (pixel_values, pixel_mask, *pad_ids([one.ids for one in looks]))
    outputs = net(*(part.to(net.device) for part in inputs))
    seen = []
    for row, (image, one) in enumerate(zip(images, looks, strict=True)):
        logits_BQT = outputs.logits_BQT[row : row + 1, :, : len(one.ids)]
        scores = phrase_scores(logits_BQT, one.tokens)[0].double().cpu().numpy()
        boxes = outputs.boxes_BQ4[row].double().cpu().numpy()
        half = boxes[:, 2:] / 2
        xyxy = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).clip(0, 1) * (image.size * 2)
        seen.append(Seen(scores, xyxy))
    return seen
