"""Speculation out of captions: what a model guesses about a picture is not in the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, with_text
from llmdet.rules.hedges import remove_hedges
from llmdet.rules.outcome import Drop, Kept

# LLMDet's remover (its dataset class, option clean_caption): words, and what it takes for prepositions.
_VERBS = (
    "suggest suggests suggesting suggested speculate speculates speculating speculated assume assumes assuming assumed "
    "guess guesses guessing guessed suppose supposes supposing supposed appear appears appearing appeared "
    "seem seems seeming seemed indicate indicates indicating indicated hint hints hinting hinted "
    "imply implies implying implied infer infers inferring inferred expect expects expecting expected"
).split()
_PHRASES = ["assuming that", "tends to", "tends not to", "seems to", "looks like", "sounds like", "appears to"]
KEYWORDS = ["possibly", "probable", "probably", "maybe", "perhaps", *_VERBS, *_PHRASES, " no ", " not "]
PREPOSITIONS = frozenset(
    "in on at by with about against between into through during before after above below to from up down for of under "
    "over as".split()
)
_ANY = re.compile("|".join(map(re.escape, KEYWORDS)))
_WHOLE = re.compile(rf"\b(?:{'|'.join(map(re.escape, KEYWORDS))})\b")
_AFTER_STOP = re.compile(r"(?<=\.)\s+")


@dataclass(frozen=True, kw_only=True)
class RemoveSpeculation:
    """Take speculative clauses out of captions.

    `upstream` does exactly what LLMDet does when it loads its data, for comparable data: it also drops sentences that
    are left starting with a preposition and does not see capitalised words. `default` takes out the clause and keeps
    the facts beside it, leaves quoted text alone and drops a sentence that would be left broken.
    """

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris", "RejectRefusal")
    mode: Literal["default", "upstream"] = "default"
    keep_negations: bool = False  # `default` only: "There are no people." stays

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop:
        if self.mode == "default":
            return with_text(caption, remove_hedges(caption.text, self.keep_negations))
        # Upstream cleans the caption of the image only, and keeps the old one when nothing is left.
        return caption if level == "region" else with_text(caption, remove_as_upstream(caption.text) or caption.text)


def remove_as_upstream(text: str) -> str:
    """The text as LLMDet's remover leaves it; empty where nothing is left."""
    return " ".join(kept for sentence in _AFTER_STOP.split(text) if (kept := _sentence(sentence)) is not None)


def _sentence(sentence: str) -> str | None:
    if not _ANY.search(sentence):
        return sentence.strip()
    left = _without_clauses(sentence).strip()
    if not left.endswith("."):
        left += "."
    if left == "." or left.split()[0].lower() in PREPOSITIONS:
        return None
    return left


def _without_clauses(sentence: str) -> str:
    """The pieces between commas that hold no keyword.

    A piece with one takes the comma before it along, unless an earlier piece took it, and always the one after it. The
    same as substituting `,?[^,]*KEYWORD[^,]*,?`, which needs quadratic time.
    """
    left: list[str] = []
    comma_is_gone = True
    for piece in sentence.split(","):
        if _WHOLE.search(piece):
            comma_is_gone = True
            continue
        left.append(piece if comma_is_gone else "," + piece)
        comma_is_gone = False
    return "".join(left)
