"""Captions that stop in the middle."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import ClassVar

import orjson

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost, with_text
from llmdet.rules.outcome import Drop, Kept, Retry
from llmdet.rules.sentences import split_sentences

_CLOSERS = " \"'\u201d\u2019)]"
_ENDS = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f")
# No phrase ends with one of these, and no sentence with the first few, whatever stands behind them.
_CUT = re.compile(
    r"(?:^|[\s(])(?:an?|the|and|or|of|with|his|its|their|is|are|while|which|whose|where|such as|as well as|because)$|"
    r"[,;:(\u2014-]$"
)
_NO_STOP = re.compile("")
_CUT_AND_STOPPED = re.compile(r"\s(?:an?|the|and|or|of|with|its|their)\.$|[,;]\.$")


@dataclass(frozen=True, kw_only=True)
class RequireEnd:
    """Take out captions that stop in the middle, or cut image captions to their last whole sentence.

    An image caption has to end with a sentence. Region captions are phrases, and lose only what ends with a word that
    asks for more ("a man holding a"). People often write no full stop, so that only a language model's captions are
    judged by default. An answer that used all of the sampling's `max_tokens` gets a reason of its own.
    """

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    repair_share: float = 0.6  # of the words that must be in whole sentences to keep those; above 1: never repair
    only_lmm: bool = True

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        if self.only_lmm and caption.provenance.origin != "lmm":
            return caption
        text = caption.text.rstrip(_CLOSERS)
        cut_off = _CUT_AND_STOPPED if text.endswith(_ENDS) else _CUT if level == "region" else _NO_STOP
        if not cut_off.search(text[-12:]):
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
