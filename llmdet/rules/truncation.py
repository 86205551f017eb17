"""Captions that stop in the middle."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import orjson

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost, with_text
from llmdet.rules.outcome import Drop, Kept, Retry
from llmdet.rules.sentences import split_sentences

_CLOSERS = " \"'\u201d\u2019)]"
_ENDS = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f")


@dataclass(frozen=True, kw_only=True)
class RequireEnd:
    """Take out image captions that do not end with a sentence, or cut them to their last whole one.

    Region captions are phrases and people often write no full stop, so that only a language model's image captions are
    judged by default. An answer that used all of the sampling's `max_tokens` gets a reason of its own.
    """

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    repair_share: float = 0.6  # of the words that must be in whole sentences to keep those; above 1: never repair
    only_lmm: bool = True

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge, ("image",))

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        if self.only_lmm and caption.provenance.origin != "lmm":
            return caption
        if caption.text.rstrip(_CLOSERS).endswith(_ENDS):
            return caption
        *whole, cut = split_sentences(caption.text) or ("",)
        kept = " ".join(whole)
        if kept and len(kept.split()) >= self.repair_share * len(caption.text.split()):
            return with_text(caption, kept)
        reason = "answer_cut" if _at_limit(caption) else "no_sentence_end"
        return lost(caption, reason, f"ends with {cut[-60:]!r}")


def _at_limit(caption: Caption) -> bool:
    limit = _max_tokens(caption.provenance.sampling)
    return limit is not None and caption.answer_tokens is not None and caption.answer_tokens >= limit


@functools.lru_cache(maxsize=256)
def _max_tokens(sampling: str) -> int | None:
    try:
        value = orjson.loads(sampling).get("max_tokens") if sampling else None
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, int) else None
