"""Repetition loops: what a language model says when it cannot stop."""

from __future__ import annotations

import operator
import re
from collections import Counter
from dataclasses import dataclass
from itertools import compress
from typing import ClassVar

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost, with_text
from llmdet.rules.outcome import Drop, Kept, Retry
from llmdet.rules.sentences import mask_quotes, split_sentences

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_STUTTER = re.compile(r"(\S{1,8}?)\1{7,}")
_SMALL_START = re.compile(r"[.!?] [a-z]")
_BEFORE_SMALL = re.compile(r"(?<=[.!?]) (?=[a-z])")
_NUMBER = re.compile(
    r"\b(?:\d+(?:st|nd|rd|th)?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|first|second|third|fourth|"
    r"fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|next|last|another)\b"
)
_JOINING = frozenset(("and", "or"))
_MARKS = " .!?,;:\"'\u201c\u201d()"
_FORM_WORDS = 16  # longer sentences are not compared word by word
_LONG_TOKEN = 24  # characters: no word, but "hahaha..."


@dataclass(frozen=True, kw_only=True)
class RejectRepetition:
    """Take out captions that loop; a single repeated sentence is only said once."""

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    max_phrase: int = 24  # words of the longest phrase that is looked for
    times: int = 3  # in a row that make a loop of a phrase of three words or more; one more for one or two
    long_phrase: int = 6  # words of a phrase that may not even follow itself once
    sentence_times: int = 3  # the same sentence anywhere; twice as often where only numbers differ
    min_distinct: float = 0.5  # share of different runs of four words, in captions of `distinct_words` or more
    distinct_words: int = 60

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        tokens = caption.text.split()
        if max(map(len, tokens), default=0) >= _LONG_TOKEN and (stutter := _stutter(tokens)):
            return lost(caption, "repetition", stutter)
        said_once = self._sentences(caption)
        if not isinstance(said_once, Caption):
            return said_once
        # A sign may well say it three times.
        if loop := self._loop(_WORD.findall(mask_quotes(said_once.text).lower())):
            return lost(caption, "repetition", loop)
        if not any(map(str.isalnum, tokens[-1])) and tokens[-4:] == tokens[-1:] * 4:
            return lost(caption, "repetition", f"{tokens[-1]!r} 4 times in a row")
        return said_once

    def _loop(self, words: list[str]) -> str:
        """The first phrase that is said too often in a row, or runs of words that are mostly the same."""
        distances = self._distances(words)
        for size in distances:
            long = size >= self.long_phrase
            needed = 2 if long else self.times + (size < 3)
            # The word that joins the rounds ("and a kite", "and a kite") may be missing after the last.
            slack = 1 if 3 < size < self.long_phrase or size > 2 * self.long_phrase else 0
            if end := _run(words, size, size * (needed - 1) - slack):
                return f"{' '.join(words[end - size : end])!r} {needed} times in a row"
        if distances and (found := self._list_loop([word for word in words if word not in _JOINING])):
            return found
        if len(words) >= self.distinct_words:
            runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
            share = len(set(runs)) / len(runs)
            if share < self.min_distinct:
                return f"{share:.0%} of the runs of four words are different"
        return ""

    def _list_loop(self, words: list[str]) -> str:
        """The first phrase that is listed too often, with "and" or not: "a chair, a chair, a chair, and a chair"."""
        for size in self._distances(words):
            needed = self.times + (size < 3)
            if end := _run(words, size, size * (needed - 1)):
                return f"{' '.join(words[end - size : end])!r} {needed} times in a list"
        return ""

    def _distances(self, words: list[str]) -> list[int]:
        """How far apart the same three words stand, where they do so twice or more; a loop's size is among them.

        Most captions have none, so that the words need not be compared.
        """
        threes = list(zip(words, words[1:], words[2:], strict=False))
        if len(set(threes)) == len(threes):
            return []
        last: dict[tuple[str, str, str], int] = {}
        found: dict[int, int] = {}
        for place, three in enumerate(threes):
            before = last.get(three)
            if before is not None and place - before <= self.max_phrase:
                found[place - before] = found.get(place - before, 0) + 1
            last[three] = place
        return sorted(size for size, times in found.items() if times > 1 or size == 1)

    def _sentences(self, caption: Caption) -> Caption | Drop | Retry:
        sentences = split_sentences(caption.text)
        if _SMALL_START.search(caption.text):
            # Where a model loops, it may forget capitals; "e.g." and "approx." make short pieces that are not counted.
            sentences = tuple([piece for sentence in sentences for piece in _BEFORE_SMALL.split(sentence)])
        keys = [sentence.lower().strip(_MARKS) for sentence in sentences]
        few = len(keys) < 2 * self.sentence_times
        counted = [bool(key) and (few or " " in key) for key in keys]
        if most := _too_often(list(compress(keys, counted)), self.sentence_times):
            return lost(caption, "repetition", f"a sentence {self.sentence_times} times: {most[:80]!r}")
        if caption.provenance.origin == "lmm" and (form := _form(keys, 2 * self.sentence_times)):
            return lost(caption, "repetition", f"{2 * self.sentence_times} sentences like {form[:80]!r}")
        if len(set(keys)) == len(keys):
            return caption
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        kept = [
            sentence
            for place, (sentence, key) in enumerate(zip(sentences, keys, strict=True))
            if not counted[place] or first[key] == place
        ]
        return caption if len(kept) == len(sentences) else with_text(caption, " ".join(kept))


def _too_often(keys: list[str], times: int) -> str:
    """A sentence that is there so many times, or twice as many with other numbers ("The first man is tall.")."""
    if _may_hold(keys, times):
        most, count = Counter(keys).most_common(1)[0]
        if count >= times:
            return most
    if not _may_hold([key[-8:] for key in keys], 2 * times):
        return ""
    most, count = Counter([_NUMBER.sub("#", key) for key in keys]).most_common(1)[0]
    return most if count >= 2 * times else ""


def _may_hold(keys: list[str], times: int) -> bool:
    """Whether one of them may be there so many times: told from how many are different, which is quick."""
    return len(keys) - len(set(keys)) >= times - 1


def _form(keys: list[str], times: int) -> str:
    """A form that so many sentences fill with another word each: "there is a * on the shelf"."""
    # They begin or end alike, which few captions do: only those are taken apart.
    if not (_may_hold([key[:6] for key in keys], times) or _may_hold([key[-6:] for key in keys], times)):
        return ""
    forms: Counter[str] = Counter()
    for words in {tuple(key.split()) for key in keys}:
        if 3 < len(words) <= _FORM_WORDS:
            forms.update(" ".join((*words[:at], "*", *words[at + 1 :])) for at in range(len(words)))
    form, count = forms.most_common(1)[0] if forms else ("", 0)
    return form if count >= times else ""


def _stutter(tokens: list[str]) -> str:
    """What a token without spaces repeats: "ha" in "hahaha..."."""
    for token in tokens:
        if len(token) >= _LONG_TOKEN and (found := _STUTTER.search(token)) and len(found[0]) >= _LONG_TOKEN // 2:
            return f"{found[1]!r} {len(found[0]) // len(found[1])} times"
    return ""


def _run(words: list[str], size: int, needed: int) -> int:
    """The end of the first stretch of `needed` words that each equal the word `size` before; 0 for none."""
    same = bytes(map(operator.eq, words[size:], words))  # one byte a word: found at the speed of C
    at = same.find(b"\x01" * needed)
    return at + needed + size if at >= 0 else 0
