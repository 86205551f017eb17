"""Captions that are too short to be worth keeping or too long to be true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost
from llmdet.rules.outcome import Drop, Kept, Retry


@dataclass(frozen=True, kw_only=True)
class LimitLength:
    """Take out captions longer than any answer can be, before other rules spend time on them."""

    max_chars: int = 20_000

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        if len(caption.text) <= self.max_chars:
            return caption
        return lost(caption, "caption_long", f"{len(caption.text)} characters")


@dataclass(frozen=True, kw_only=True)
class RequireLength:
    """Send image captions under `min_tokens` back to the engine, as LLMDet did once for captions under 100 tokens.

    Tokens are the engine's own count where no rule has changed the answer, else words times `tokens_per_word`.
    """

    after: ClassVar[tuple[str, ...]] = ("CleanDebris", "RemoveSpeculation", "RejectRepetition", "RequireEnd")
    min_tokens: int = 100
    tokens_per_word: float = 1.3
    only_lmm: bool = True
    retries: int = 1  # attempts (0, 1, ...) below this number are asked again
    afterwards: Literal["keep", "drop"] = "keep"  # what becomes of a caption that is still short

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge, ("image",))

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        lmm = caption.provenance.origin == "lmm"
        if self.only_lmm and not lmm:
            return caption
        tokens = self.tokens(caption)
        if tokens >= self.min_tokens:
            return caption
        detail = f"{tokens} tokens"
        if lmm and caption.attempt < self.retries:
            return Retry("caption_short", detail)
        return caption if self.afterwards == "keep" else Drop("caption_short", detail)

    def tokens(self, caption: Caption) -> int:
        if caption.answer_tokens is not None and caption.raw in ("", caption.text):
            return caption.answer_tokens
        # A hair less than the product, so that 1.3 * 10 counts as 13 and not as 14.
        return math.ceil(len(caption.text.split()) * self.tokens_per_word - 1e-9)
