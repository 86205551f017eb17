"""The text that a sample is shown with: negatives drawn anew, and texts that are longer than the model reads.

The model reads a few hundred tokens. Of a longer text it sees some pieces (sentences, names), others in each epoch, and
only the boxes whose phrases these hold: a box that loses its phrase takes no part, and is never trained as background.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from detector.text import lower
from llmdet.record import Record, Region, Span

SPECIAL = 2  # [CLS] and [SEP]
_PIECE = re.compile(r"[^.?]*(?:[.?]+\s*|$)")
_LONG = 48  # tokens from which on a piece is divided at blanks, where the text is too long


@dataclass(frozen=True, slots=True)
class Prompts:
    """Makes a record's text fit for one draw. `names` are those of each source, for negatives that are drawn."""

    tokenizer: PreTrainedTokenizerBase
    limit: int  # tokens with [CLS] and [SEP]
    names: Mapping[str, pa.Array] | None = None  # None: negatives stay as the text has them
    negatives: int = 85

    def __call__(self, record: Record, rng: np.random.Generator) -> Record:
        """The record with the text of this draw. Regions whose phrase has no room are not in it any more."""
        if self.names is not None and record.kind == "detection":
            record = self._with_negatives(record, self.names.get(record.source), rng)
        if len(record.text) + 1 + SPECIAL <= self.limit:  # no token is shorter than a letter
            return record
        tokens = token_starts(self.tokenizer, record.text)
        return record if len(tokens) + SPECIAL <= self.limit else shorten(record, tokens, self.limit - SPECIAL, rng)

    def _with_negatives(self, record: Record, names: pa.Array | None, rng: np.random.Generator) -> Record:
        """Names of the record's boxes, with others of the source among them, as MM-Grounding-DINO draws them."""
        own = list(dict.fromkeys(phrase for region in record.regions for phrase in region.phrases))
        drawn = [name for name in _draw(names, self.negatives, rng) if name.lower() not in {o.lower() for o in own}]
        room = self.limit - SPECIAL - sum(map(self._length, own))
        absent: list[str] = []
        for name in drawn:
            room -= self._length(name)
            if room < 0:
                break
            absent.append(name)
        text, spans = _joined([(own + absent)[i] for i in rng.permutation(len(own) + len(absent))])
        regions = tuple(replace(one, spans=tuple(spans[phrase] for phrase in one.phrases)) for one in record.regions)
        return replace(record, text=text, regions=regions, negatives=tuple(sorted(spans[name] for name in absent)))

    def _length(self, name: str) -> int:
        return len(token_starts(self.tokenizer, f"{name}. "))


def token_starts(tokenizer: PreTrainedTokenizerBase, text: str) -> NDArray[np.int64]:
    """Where the tokens of a text begin, in characters, without [CLS] and [SEP]."""
    closed = lower(text).rstrip()
    closed = closed if closed.endswith(".") else closed + "."  # as the model will read it
    answer = tokenizer(closed, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    return np.array(answer["offset_mapping"], dtype=np.int64).reshape(-1, 2)[:, 0]


def shorten(record: Record, tokens: NDArray[np.int64], room: int, rng: np.random.Generator) -> Record:
    """The record with as many pieces of its text as `room` tokens hold: those with phrases of boxes before others.

    `tokens` is where the tokens of the text begin. Spans of pieces that were left out are gone, and regions without
    any span.
    """
    named = [span for region in record.regions if region.boxes for span in region.spans]
    whole = [span for region in record.regions for span in region.spans]
    pieces = _pieces(record.text, tokens, [*whole, *record.negatives])
    lengths = [_tokens_in(tokens, piece) + 1 for piece in pieces]  # a dot may have to be added
    order = sorted(rng.permutation(len(pieces)).tolist(), key=lambda n: not _holds_any(pieces[n], named))
    kept = []
    for number in order:
        if lengths[number] <= room:
            room -= lengths[number]
            kept.append(number)
    return _only(record, [pieces[number] for number in sorted(kept)])


def _draw(names: pa.Array | None, most: int, rng: np.random.Generator) -> list[str]:
    """Names of a source: `most` half of the time, otherwise anything from one to that."""
    most = min(most, len(names) if names is not None else 0)
    if not most or names is None:
        return []
    count = most if rng.random() < 0.5 else int(rng.integers(1, most + 1))
    return [str(name) for name in names.take(pa.array(rng.choice(len(names), count, replace=False))).to_pylist()]


def _joined(names: Iterable[str]) -> tuple[str, dict[str, Span]]:
    text, spans = "", {}
    for name in names:
        spans[name] = (len(text), len(text) + len(name))
        text += f"{name}. "
    return text, spans


def _pieces(text: str, tokens: NDArray[np.int64], spans: Sequence[Span]) -> list[Span]:
    """Sentences and names of a text, the long ones cut at blanks; no span is cut through."""
    cuts = {found.end() for found in _PIECE.finditer(text) if found.group()} | {len(text)}
    found: list[Span] = []
    start = 0
    for end in sorted(cuts - _inside(spans)):
        found += _divided(text, (start, end), tokens, spans)
        start = end
    return found


def _divided(text: str, piece: Span, tokens: NDArray[np.int64], spans: Sequence[Span]) -> list[Span]:
    if _tokens_in(tokens, piece) <= _LONG:
        return [piece]
    start, end = piece
    blanks = sorted({match.end() for match in re.compile(r"\s").finditer(text, start, end)} - _inside(spans))
    found = []
    for number, blank in enumerate(blanks):
        following = blanks[number + 1] if number + 1 < len(blanks) else end
        if _tokens_in(tokens, (start, following)) > _LONG:
            found.append((start, blank))
            start = blank
    return [*found, (start, end)]


def _inside(spans: Sequence[Span]) -> set[int]:
    return {place for start, end in spans for place in range(start + 1, end)}


def _tokens_in(tokens: NDArray[np.int64], piece: Span) -> int:
    low, high = np.searchsorted(tokens, piece)
    return int(high - low)


def _holds_any(piece: Span, spans: Sequence[Span]) -> bool:
    return any(piece[0] <= start and end <= piece[1] for start, end in spans)


def _only(record: Record, pieces: Sequence[Span]) -> Record:
    """The record with some pieces of its text, in their order."""
    text = ""
    begins: list[tuple[Span, int]] = []
    for number, (start, end) in enumerate(pieces):
        begins.append(((start, end), len(text) - start))
        text += record.text[start:end]
        neighbour = number + 1 < len(pieces) and pieces[number + 1][0] == end
        if not neighbour and not text.rstrip().endswith((".", "?")):
            text = f"{text.rstrip()}. "

    def moved(span: Span) -> Span | None:
        shifts = (shift for piece, shift in begins if _holds_any(piece, [span]))
        shift = next(shifts, None)
        return None if shift is None else (span[0] + shift, span[1] + shift)

    regions = tuple(one for region in record.regions if (one := _kept(region, list(map(moved, region.spans)))))
    negatives = tuple(span for old in record.negatives if (span := moved(old)))
    return replace(record, text=text, regions=regions, negatives=negatives)


def _kept(region: Region, spans: Sequence[Span | None]) -> Region | None:
    """A region with the spans that are left, None where none is."""
    left = [(phrase, span) for phrase, span in zip(region.phrases, spans, strict=True) if span]
    if not left:
        return None
    return replace(region, phrases=tuple(phrase for phrase, _ in left), spans=tuple(span for _, span in left))
