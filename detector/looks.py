"""One image, one prompt: what a detector sees of each phrase, for batches in which every image has its own prompt.

`find` is the same for one text that all images are asked for: phrases of a sentence, a referring expression, any spans.
"""

# B images   Q queries   T text tokens   P phrases of a prompt

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerBase

from detector import text
from detector.data import pad_ids
from detector.metrics.refcoco import Protocol, spatial_bias
from detector.model import Features
from detector.pixels import pad_pixels
from detector.predict import Detections, Detector, phrase_scores
from llmdet.errors import SettingError
from llmdet.questions import Question
from llmdet.record import Span


@dataclass(frozen=True, slots=True)
class Look:
    """A prompt as tokens: ids (T,), whose tokens belong to which phrase (P, T), and the callers' numbers of phrases."""

    ids: NDArray[np.int64]
    tokens: NDArray[np.bool_]
    phrases: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the queries of one look found: scores (Q, P), and boxes (Q, 4) xyxy in pixels of the image.

    `features` is what the detector saw of this image, where `look` was asked to keep it.
    """

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    features: Features | None = None


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
    return model.parts.pixels.size(*size)


@torch.inference_mode()
def look(model: Detector, images: Sequence[Image.Image], looks: Sequence[Look], *, keep: bool = False) -> list[Seen]:
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
        seen.append(Seen(scores, xyxy, outputs.features.of_image(row) if keep else None))
    return seen


def find(
    model: Detector,
    images: Sequence[Image.Image],
    question: Question,
    *,
    top_k: int = 300,
    threshold: float = 0.0,
    batch_size: int = 8,
    names_per_prompt: int | None = None,
    protocol: Protocol = "llmdet",
    keep: bool = False,
) -> list[Detections]:
    """Boxes of each image for what a question names, best first; those of names are `Detector.detect`'s.

    A box may come once for each phrase; the best `top_k` (box, phrase) pairs of an image stay, no suppression.
    A referring expression means one thing, and `protocol` says how its boxes are ranked: `llmdet` by the score of its
    subject, with what its words of place add; `mm_grounding_dino` by the best of all its tokens. Scores stay
    probabilities either way. `keep` keeps the features that `Detector.say` needs. Raises SettingError where no prompt
    can hold a phrase.
    """
    if question.mode == "detection":
        return model.detect(
            images,
            question.phrases,
            top_k=top_k,
            threshold=threshold,
            batch_size=batch_size,
            names_per_prompt=names_per_prompt,
            keep=keep,
        )
    best_token = question.mode == "referring" and protocol == "mm_grounding_dino"
    looks = _looks(model, question, best_token)
    ranks = question.mode == "referring" and protocol == "llmdet"
    found: dict[int, Detections] = {}
    for rows in _of_one_size(images, batch_size):
        parts = [look(model, [images[row] for row in rows], [one] * len(rows), keep=keep) for one in looks]
        for number, row in enumerate(rows):
            answers = [(part[number], one.phrases) for part, one in zip(parts, looks, strict=True)]
            if best_token:
                answers = [(replace(seen, scores=seen.scores.max(1, keepdims=True)), (0,)) for seen, _ in answers]
            bias_of = question.text.lower() if ranks else ""
            found[row] = _best(answers, question.phrases, images[row].size, top_k, bias_of).above(threshold)
    return [found[row] for row in range(len(images))]


def _looks(model: Detector, question: Question, best_token: bool) -> list[Look]:
    """The prompts of a question that is a text; with `best_token` each token of the expression is a phrase."""
    spans: Sequence[Sequence[Span]] = question.spans
    if best_token:
        start = question.text.index(question.phrases[0])
        spans = [[(start, start + len(question.phrases[0]))]]
    limit = int(model.parts.model.config.max_text_len)
    looks = looks_for_spans(model.parts.tokenizer, question.text, spans, limit)
    held = {number for one in looks for number in one.phrases}
    for number, phrase in enumerate(question.phrases):
        if number not in held:
            raise SettingError(f"the phrase {phrase[:80]!r} alone exceeds {limit} tokens, or has none")
    if best_token:
        return [Look(one.ids, np.diag(one.tokens[0])[one.tokens[0]], (0,) * int(one.tokens[0].sum())) for one in looks]
    return looks


def _of_one_size(images: Sequence[Image.Image], batch_size: int) -> Iterator[list[int]]:
    """Numbers of images of one size: padding would leak into a smaller one through the convolutions."""
    order = sorted(range(len(images)), key=lambda row: images[row].size)
    for _, group in groupby(order, lambda row: images[row].size):
        rows = list(group)
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def _best(
    answers: Sequence[tuple[Seen, tuple[int, ...]]],
    names: tuple[str, ...],
    size: tuple[int, int],
    top_k: int,
    expression: str,
) -> Detections:
    """The best (query, phrase) pairs of one image; words of place in `expression` count in their order."""
    boxes = np.concatenate([seen.boxes.repeat(len(numbers), axis=0) for seen, numbers in answers])
    scores = np.concatenate([seen.scores.reshape(-1) for seen, _ in answers])
    labels = np.concatenate([np.tile(np.array(numbers, np.int64), len(seen.boxes)) for seen, numbers in answers])
    queries = np.concatenate(
        [
            np.stack([np.full(seen.scores.size, prompt), np.arange(len(seen.boxes)).repeat(len(numbers))], axis=1)
            for prompt, (seen, numbers) in enumerate(answers)
        ]
    )
    ranks = scores + spatial_bias(expression, boxes, *size)
    order = np.argsort(-ranks, kind="stable")[:top_k]
    features = tuple(seen.features for seen, _ in answers if seen.features is not None)
    return Detections(boxes[order], scores[order], labels[order], names, queries[order], features)
