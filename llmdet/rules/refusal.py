"""Answers that are not captions: refusals, apologies, the prompt said back, talk about the caption itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost
from llmdet.rules.outcome import Drop, Kept, Retry
from llmdet.rules.sentences import mask_quotes, split_sentences

_I = r"(?:(?:unfortunately|however|but|as such|so),? )?i"
_UNABLE = (
    rf"{_I} (?:can ?not|can't|am (?:not able|unable|sorry|afraid)|'m|won't|will not|could not|couldn't|must decline|"
    r"do(?: not|n't) (?:have|see|know)|was unable|apologi[sz]e)"
)
_REFUSAL = re.compile(
    rf"(?:{_UNABLE}\b|i'm (?:(?:really|very|so) )?(?:sorry|unable|not able|afraid|an? |just an? )|"
    r"(?:my )?(?:sincere )?apologies\b|sorry\b[,.!]|sorry (?:but|for|about|to|that)\b|we apologi[sz]e|"
    r"as an? (?:ai|artificial|language model|large language|text-based|assistant)\b|"
    r"i am (?:just )?an? (?:ai|artificial|language|large language|assistant|text)\b|"
    r"it(?:'s| is) (?:not possible|impossible|difficult) (?:for me )?to\b|"
    r"(?:the|this|your|no) (?:image|picture|photo) (?:was |has been |is |could |cannot |can't |did )?"
    r"(?:not |n't )?(?:been )?(?:be )?(?:provided|displayed|loaded|attached|accessible|uploaded|available|load)\b|"
    r"please (?:provide|upload|share|note that i|try|attach)\b|"
    r"there is no (?:image|picture) (?:provided|attached|to)\b)",
)
_ECHO = re.compile(
    r"(?:please )?(?:describe|provide|write|generate|give|list|do not|don't|avoid|focus on|make sure|ensure|"
    r"you are an?|your task|answer with|respond with|use only)\b(?=.*\b"
    r"(?:image|picture|photo|description|caption|sentence|words?|details?|region|box|assistant|speculate|guess)\b)",
)
_MARKERS = re.compile(r"<image>|<\|?im_start|\[/?INST\]|<<SYS>>|^ ?(?:USER|ASSISTANT|SYSTEM|Human|Assistant): ", re.M)
_META = re.compile(
    r"\b(?:the|this|above|given|provided|following) (?:(?:image|provided|given|original|above) )?"
    r"(?:caption|description|prompt|bounding box(?:es)?|annotations?|instructions?)"
    r" (?:is|are|was|were|does|do|describes?|provides?|mentions?|focus(?:es)?|highlights?|captures?|says? that|gives?|"
    r"aims?|includes?|above|has|should)\b"
)


@dataclass(frozen=True, kw_only=True)
class RejectRefusal:
    """Take out captions that refuse, apologise, say the prompt back, or talk about themselves.

    Only the beginnings of sentences are read, outside quotation marks: a sign that says "Sorry, we are closed" stays.
    """

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    prompts: tuple[str, ...] = ()  # texts whose sentences count as an echo
    echo_words: int = 6  # shortest sentence of a prompt that counts
    about_itself: bool = True

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        if marker := _MARKERS.search(caption.text):
            return lost(caption, "prompt_echo", marker[0].strip())
        for sentence in split_sentences(caption.text):
            start = sentence[:600].lower().replace("\u2019", "'")
            if reason := self._reason(mask_quotes(start)):
                return lost(caption, reason, sentence[:80])
        return caption

    def _reason(self, sentence: str) -> str:
        if _REFUSAL.match(sentence):
            return "refusal"
        if _ECHO.match(sentence) or sentence in self._prompt_sentences():
            return "prompt_echo"
        return "about_itself" if self.about_itself and _META.search(sentence) else ""

    def _prompt_sentences(self) -> frozenset[str]:
        return frozenset(
            sentence.lower()
            for prompt in self.prompts
            for sentence in split_sentences(prompt)
            if len(sentence.split()) >= self.echo_words
        )
