"""Repetition loops: what a language model says when it cannot stop."""

from __future__ import annotations

import operator
import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost, with_text
from llmdet.rules.outcome import Drop, Kept, Retry
from llmdet.rules.sentences import mask_quotes, split_sentences

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_STUTTER = re.compile(r"(\S)\1{15,}")


@dataclass(frozen=True, kw_only=True)
class RejectRepetition:
    """Take out captions that loop; a single repeated sentence is only said once."""

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    max_phrase: int = 20  # words of the longest phrase that is looked for
    times: int = 3  # in a row that make a loop of a phrase of three words or more; one more for two, two for one
    sentence_times: int = 3  # the same sentence anywhere
    min_distinct: float = 0.5  # share of different runs of four words, in captions of `distinct_words` or more
    distinct_words: int = 60

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        text = mask_quotes(caption.text)  # a sign may well say it three times
        if stutter := _STUTTER.search(caption.text):
            return lost(caption, "repetition", f"{stutter[1]!r} {len(stutter[0])} times")
        words = [word.lower() for word in _WORD.findall(text)]
        if loop := self._loop(words):
            return lost(caption, "repetition", loop)
        return self._sentences(caption)

    def _loop(self, words: list[str]) -> str:
        """The first phrase that is said too often in a row, or runs of words that are mostly the same."""
        # Whatever its size, a loop holds some run of three words `times` times: most captions end here.
        if len(words) < 2 + min(self.times, 3):
            return ""
        threes = Counter(zip(words, words[1:], words[2:], strict=False))
        if max(threes.values()) < min(self.times, 3):
            return ""
        for size in range(1, min(self.max_phrase, len(words) // 2) + 1):
            needed = self.times + max(0, 3 - size)
            if end := _run(words, size, size * (needed - 1)):
                return f"{' '.join(words[end - size : end])!r} {needed} times in a row"
        if len(words) >= self.distinct_words:
            runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
            share = len(set(runs)) / len(runs)
            if share < self.min_distinct:
                return f"{share:.0%} of the runs of four words are different"
        return ""

    def _sentences(self, caption: Caption) -> Caption | Drop | Retry:
        sentences = split_sentences(caption.text)
        if len(sentences) < 2:
            return caption
        seen: dict[str, int] = {}
        kept = []
        for sentence in sentences:
            key = " ".join(_WORD.findall(sentence.lower()))
            seen[key] = seen.get(key, 0) + 1
            if seen[key] == 1 or not key:
                kept.append(sentence)
            if key and seen[key] >= self.sentence_times:
                return lost(caption, "repetition", f"a sentence {self.sentence_times} times: {sentence[:80]!r}")
        if len(kept) == len(sentences):
            return caption
        return with_text(caption, " ".join(kept))


def _run(words: list[str], size: int, needed: int) -> int:
    """The end of the first stretch of `needed` words that each equal the word `size` before; 0 for none."""
    same = bytes(map(operator.eq, words[size:], words))  # one byte a word: found at the speed of C
    at = same.find(b"\x01" * needed)
    return at + needed + size if at >= 0 else 0
