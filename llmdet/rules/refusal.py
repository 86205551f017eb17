"""Answers that are not captions: refusals, apologies, the prompt said back, talk about the caption itself."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import ClassVar

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost
from llmdet.rules.outcome import Drop, Kept, Retry
from llmdet.rules.refusal_words import ECHO, MARKERS, META, PLACEHOLDER, REFUSAL, worth_reading
from llmdet.rules.sentences import split_with_mask

# What a sign or a person in the picture is said to say is no word to the reader.
_SAID = re.compile(r"\b(?:says?|saying|reads?|reading|words?|written|labell?ed|titled|called|named|asks?|tells?)\b")


@dataclass(frozen=True, kw_only=True)
class RejectRefusal:
    """Take out captions that refuse, apologise, say the prompt back, or talk about themselves.

    Quotations are not read, nor what a sign is said to say: "Sorry, we are closed" on a door stays.
    """

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    prompts: tuple[str, ...] = ()  # texts whose sentences count as an echo
    echo_words: int = 6  # shortest sentence of a prompt that counts
    about_itself: bool = True

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        text = caption.text
        if any(mark in text for mark in "<[{:#") and (marker := MARKERS.search(text)):
            return lost(caption, "prompt_echo", marker[0].strip())
        if len(text) < 60 and PLACEHOLDER.fullmatch(text):
            return lost(caption, "refusal", text)
        for sentence, masked in split_with_mask(text):
            if reason := self._reason(masked[:600].lower().replace("\u2019", "'")):
                return lost(caption, reason, sentence[:80])
        return caption

    def _reason(self, sentence: str) -> str:
        refusal, echo, meta = worth_reading(sentence)
        if refusal:
            bare = sentence.strip(" .!()")
            if (found := REFUSAL.search(bare)) and not _SAID.search(bare, 0, found.start()):
                return "refusal"
        if (echo and ECHO.match(sentence)) or (
            self.prompts and sentence in _sentences_of(self.prompts, self.echo_words)
        ):
            return "prompt_echo"
        return "about_itself" if meta and self.about_itself and META.search(sentence) else ""


@functools.lru_cache(maxsize=16)
def _sentences_of(prompts: tuple[str, ...], words: int) -> frozenset[str]:
    return frozenset(
        masked.lower()
        for prompt in prompts
        for sentence, masked in split_with_mask(prompt)
        if len(sentence.split()) >= words
    )
