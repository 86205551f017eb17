"""The words by which a text guesses, or says that something is not there; and where they mean something else."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

ADVERBS = (
    r"possibly|probably|probable|maybe|perhaps|presumably|apparently|(?:un)?likely|potentially|conceivably|supposedly|"
    r"seemingly|evidently|surely|undoubtedly|doubtless(?:ly)?|arguably|ostensibly|allegedly|purportedly|"
    r"almost certainly|in all likelihood|no doubt|without (?:a )?doubt"
)
PARTICIPLES = (
    r"(?:suggest|speculat|assum|guess|suppos|seem|indicat|hint|imply|inferr|expect|resembl|presum)ing|"
    r"judging (?:by|from)|reminiscent of|akin to|"
    r"(?:believed|thought|presumed|assumed|supposed|expected|said|rumou?red|likely|unlikely) to"
)
_FINITE = (
    r"(?:suggest|seem|expect)(?:s|ed)?|guess(?:e[sd])?|hint(?:s|ed)?(?= (?:at|that|to)\b)|infer(?:s|red)?|"
    r"(?:speculate|assume|suppose|indicate|resemble|presume)[sd]?|speculation|impl(?:y|ies|ied)"
)
_PLACE = (
    r"in|on|at|behind|beside|near|next|between|above|below|under|through|within|along|across|throughout|over|out|"
    r"against|around|inside|outside|among|beneath|beyond|from|again|twice|once|here|as|to (?:the|his|her|its|their)"
)
_THINKING = r"think|believe|guess|assume|suppose|imagine|suspect|presume|infer|deduce|conclude|wonder|surmise"
_TELL = r"tell|say|determine|know|judge|discern|make out|identify|be (?:sure|certain)"
_HEDGE = re.compile(
    rf"(?:(?:(?:most|very|quite) )?(?:{ADVERBS})|{PARTICIPLES}|{_FINITE}|"
    rf"appear(?:s|ed|ing)?(?= \w)(?! (?:{_PLACE})\b)|(?<=\bit )appears?|"
    r"(?:look|sound|feel)(?:s|ed|ing)? (?:like(?!-)|as (?:if|though)|to be)|as (?:if|though)|"
    r"tends? (?:not )?to (?!(?:a|an|the|his|her|their|its|\w*[^s]s)\b)|"
    r"(?:might|could)(?![-\w])|(?-i:may)(?![-\w])|must (?:be|have)|"
    r"would (?:be|have|suggest|seem|appear|indicate|imply)|"
    rf"(?:i|we|one|you)(?:'d| can| could| may| might| would)? (?:(?:only|safely|almost) )?(?:(?:{_THINKING})s?|say)|"
    r"i'm (?:guessing|assuming)|can (?:only )?be (?:assumed|inferred|guessed|presumed|imagined|deduced|concluded)|"
    r"unclear|uncertain|not clear|unknown (?:if|whether|what|who)|anyone's guess|chances are|(?:is|it's) possible|"
    rf"(?:hard|difficult|impossible) to (?:{_TELL})|(?:give|giving|gives)(?: off)? (?:the|an) impression|"
    r"(?:by|from) the looks? of it)\b",
    re.IGNORECASE,
)
# Names of signs: "no parking", "no dogs sign".
_SIGNS = (
    r"(?:parking|smoking|swimming|fishing|diving|stopping|standing|waiting|loading|dumping|cycling|camping|hunting|"
    r"trespassing|littering|passing|turning|skateboarding|biking|feeding|entry|exit|through|left|right|u-turn|"
    r"vacancy|limit)\b|(?:[\w-]+ ){1,2}(?:signs?|zones?|symbols?|areas?)\b"
)
_NO = rf"(?![-.\w])(?! (?:{_SIGNS}))(?! ?\d)(?! (?:fewer|less|more|later|larger|smaller|wider|taller) than\b)"
_NEGATION = re.compile(
    rf"\bno{_NO}|\bnot(?![-\w])(?! (?:only|just|merely|far|long)\b)|n['\u2019]t\b|\bcannot\b|"
    r"\bnothing(?! but)\b|\b(?:nobody|none|neither|nor|never)\b",
    re.IGNORECASE,
)
_QUOTING = re.compile(
    r"\b(?:reads?|reading|says?|saying|words?|spells?|written|labell?ed|titled|named|called):? ?$", re.I
)
# "a supposedly heavy trophy": an adverb of its adjective, not of the sentence.
_OF_ADJECTIVE = re.compile(r"\b(?:a|an|the|his|her|its|their|two|three|some|several) $", re.I)
# What shows something by being read: "the clock indicates ten past four".
_READ = re.compile(
    r"\b(?:sign|arrow|clock|watch|gauge|needle|dial|hand|meter|\w+meter|plaque|label|display|board|\w+board|screen|marker|vane|signal|lamp|thermostat|"
    r"marking|pointer|compass|scale|timer|text|lettering|legend|map|badge|plate|line|sticker|light|symbol|icon|bar)s?"
    r"(?: [\w'-]+){0,4} $",
    re.I,
)
# "a guess-who game", not "guess - it is ..."
_COMPOUND = re.compile(r"-\w")
# What is exact enough to be believed with "that".
_DIAL = re.compile(
    r"\b(?:\w*board|clock|watch|gauge|needle|dial|meter|\w+meter|display|screen|timer)s?(?: [\w'-]+){0,3} $", re.I
)
_STANCE = re.compile(
    r"assum\w+ (?:an? |the |his |her |their )?(?:[\w-]+ ){0,2}(?:pose|position|stance|role|shape|form)s?\b"
)

# One of these words is in every hedge: a set lookup is many times faster than the patterns.
_STEMS = "suggest speculat assum guess suppos seem indicat hint expect look sound feel resembl presum appear infer"
_TRIGGERS = frozenset(
    "possibly probably probable maybe perhaps presumably apparently likely unlikely potentially conceivably supposedly "
    "seemingly evidently surely undoubtedly doubtless doubtlessly arguably ostensibly allegedly purportedly certainly "
    "likelihood doubt implying imply implies implied inferring inferred judging reminiscent akin believed thought said "
    "rumored rumoured tend tends might may could would must if though unclear uncertain clear unknown chances possible "
    "hard difficult impossible impression speculation looks think thinks believe believes imagine imagines imagined "
    "suspect suspects deduce conclude concluded wonder surmise can cannot no not nothing nobody none neither nor "
    "never t".split()
) | {stem + end for stem in _STEMS.split() for end in ("", "e", "s", "es", "ed", "d", "ing")}
# What the expression of hedges can begin with, so that it is only tried there.
_STARTS = _TRIGGERS | frozenset(
    "most very quite almost in without as is it i we one you give gives giving anyone by from".split()
)
_WORDS = re.compile(r"[^\W_]+")


def may_hedge(words: Iterable[str]) -> bool:
    """Whether one of these lower-case words stands in some hedge or negation; "n't" is the word "t"."""
    return not _TRIGGERS.isdisjoint(words)


@functools.lru_cache(maxsize=64)  # the same pieces are asked about while a sentence is taken apart
def find_hedge(piece: str, keep_negations: bool) -> re.Match[str] | None:
    """The first hedge of a piece, or negation unless those are kept; quotations are masked already."""
    lower = piece.lower()
    if _TRIGGERS.isdisjoint(_WORDS.findall(lower)):
        return None
    end = 0
    for word in _WORDS.finditer(lower if len(lower) == len(piece) else piece):
        if word.start() < end or word[0] not in _STARTS:
            continue
        if found := _HEDGE.match(piece, word.start()):
            end = found.end()
            if not _means_other(piece, found):
                return found
    if keep_negations:
        return None
    for found in _NEGATION.finditer(piece):
        if not _is_name(piece, found) and not _QUOTING.search(piece, max(0, found.start() - 12), found.start()):
            return found
    return None


def _means_other(piece: str, found: re.Match[str]) -> bool:
    """Whether the words of a hedge are a name, what a sign says, or something that can be seen."""
    word, start = found[0].lower(), found.start()
    if _COMPOUND.match(piece, found.end()):
        return True
    if _QUOTING.search(piece, max(0, start - 12), start) or _is_name(piece, found):
        return True
    if word in ("seemingly", "supposedly", "apparently", "ostensibly", "likely", "unlikely"):
        return bool(_OF_ADJECTIVE.search(piece, max(0, start - 9), start))
    if word.startswith("indicat"):
        read = _DIAL if piece.startswith(" that", found.end()) else _READ
        return bool(read.search(piece, max(0, start - 60), start))
    if word == "guessing":
        return piece.startswith(" game", found.end())
    return word.startswith("assum") and bool(_STANCE.match(piece.lower(), start))


def _is_name(piece: str, found: re.Match[str]) -> bool:
    """Whether a capital in the middle says that the word is a name or stands on something: "a GUESS logo"."""
    first = found[0][0]
    return first.isupper() and first != "I" and not piece.isupper() and bool(piece[: found.start()].strip())
