"""Prompts and phrase spans: from characters of a text to tokens of the model.

The model scores tokens, not classes. A phrase is found by its character spans, so a target can be any part of any
text: a class name among others, or the third "dog" of a sentence.
"""

# B prompts   T tokens   N phrases

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from llmdet.detection_text import split_names as split_names
from llmdet.errors import SettingError
from llmdet.record import Span

Spans = tuple[Span, ...]  # of one phrase; usually one


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and the character spans of each of its phrases."""

    text: str
    phrases: tuple[Spans, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as tokens: ids (T,), and for each phrase which tokens are its own, (N, T) bool.

    `lost` are the numbers of the phrases of which no token is left, because the text is longer than the model reads.
    Their rows in `tokens` are empty; a caller must drop what belongs to them, and never train it as background.
    """

    ids: NDArray[np.int64]
    tokens: NDArray[np.bool_]
    lost: tuple[int, ...]


def from_names(names: Sequence[str]) -> Prompt:
    """`["dog", "red cup"]` to the text `dog. red cup.`; one phrase for each name, in that order.

    Raises SettingError for a name without a letter or digit: it would have no token.
    """
    text, phrases = "", []
    for name in names:
        clean = " ".join(name.split())
        if not any(char.isalnum() for char in clean):
            raise SettingError(f"a name to look for needs a letter or digit; got {name!r} in {list(names)[:8]}")
        start = len(text)
        text += lower(clean) + ". "
        phrases.append(((start, start + len(clean)),))
    return Prompt(text.rstrip(), tuple(phrases))


def from_text(text: str, phrases: Sequence[Spans]) -> Prompt:
    """A text with phrases in it, lower-cased and closed by a dot as the model needs it; offsets stay valid."""
    closed = lower(text).rstrip()
    return Prompt(closed if closed.endswith(".") else closed + ".", tuple(phrases))


def lower(text: str) -> str:
    """Lower case of the same length: the few letters whose lower case is longer stay as they are."""
    folded = text.lower()
    if len(folded) == len(text):
        return folded
    return "".join(char.lower() if len(char.lower()) == 1 else char for char in text)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, limit: int) -> Encoded:
    """Tokens of a prompt, at most `limit` with [CLS] and [SEP]. A longer text ends at its last whole phrase."""
    answer = tokenizer(prompt.text, return_offsets_mapping=True, add_special_tokens=True, verbose=False)
    ids = np.array(answer["input_ids"], dtype=np.int64)
    offsets = np.array(answer["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    if len(ids) > limit:
        ids, offsets = _shorten(tokenizer, ids, offsets, limit)
    tokens = positive_map(offsets, prompt.phrases)
    lost = np.flatnonzero(~_complete(tokens, offsets, prompt.phrases))
    tokens[lost] = False
    return Encoded(ids, tokens, tuple(int(number) for number in lost))


def positive_map(offsets: NDArray[np.int64], phrases: Sequence[Spans]) -> NDArray[np.bool_]:
    """Which tokens share a character with each phrase, (N, T). Tokens of no width ([CLS], [SEP]) belong to none."""
    tokens = np.zeros((len(phrases), len(offsets)), dtype=bool)
    begin, end = offsets[:, 0], offsets[:, 1]
    for row, spans in zip(tokens, phrases, strict=True):
        for start, stop in spans:
            row |= (begin < stop) & (end > start) & (end > begin)
    return tokens


def _complete(tokens: NDArray[np.bool_], offsets: NDArray[np.int64], phrases: Sequence[Spans]) -> NDArray[np.bool_]:
    """Phrases that have a token and do not reach past the last token that is left."""
    reach = int(offsets[:, 1].max(initial=0))
    inside = np.array([all(stop <= reach for _, stop in spans) for spans in phrases], dtype=bool)
    return np.asarray(tokens.any(axis=1) & inside)


def _shorten(
    tokenizer: PreTrainedTokenizerBase, ids: NDArray[np.int64], offsets: NDArray[np.int64], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut after the last dot that fits, so that the tokens before it still form whole segments."""
    dots = np.flatnonzero(ids[: limit - 1] == tokenizer.convert_tokens_to_ids("."))
    cut = int(dots[-1]) + 1 if len(dots) else limit - 1
    return np.append(ids[:cut], ids[-1]), np.concatenate([offsets[:cut], [[0, 0]]])
