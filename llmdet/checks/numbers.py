"""Numbers that stand apart from the noun that they are of: "The dogs are four in number", "Count the dogs: four".

A number is of the only things that its sentence counts, unless something speaks against it: what stands before it
("about four"), behind it ("two are asleep", "four years") or around it (a noun of its own).
"""

from __future__ import annotations

import re

from llmdet.checks.reading import NUMBERS, Noun, Reading
from llmdet.checks.things import is_thing, nouns_of, tokens_of
from llmdet.nouns import is_invariant

GROUPS = {
    "pair": 2, "duo": 2, "twosome": 2, "trio": 3, "threesome": 3, "triplet": 3, "quartet": 4, "foursome": 4,
    "quintet": 5, "fivesome": 5, "sextet": 6, "septet": 7, "octet": 8, "nonet": 9, "dozen": 12,
}  # fmt: skip
# Numbers that are no exact ones, or are of something else.
ABOUT = frozenset(
    "about around approximately nearly almost over under least most than roughly to or some every per".split()
)
_ARRIVE = re.compile(r"(?:arriv|stand|stood|end|settl|sit|sat|put|remain|stop|peak)\w*$")
_REACH = re.compile(
    r"(?:amount|com|came|add|sum|get|got|up|run|ran|equal|totall?|increas|bring|correspond|limited)\w*$"
)
# What a number counts where it has no noun, or one of these: "four individuals", "a group of four".
_COUNTERS = frozenset(
    "individual specimen example member item object thing element unit instance copy exemplar animal vehicle creature "
    "total number group set line row cluster bunch collection trio pair quartet quintet count figure tally sum answer "
    "result".split()
)
_NUMBER = rf"(?:\d{{1,2}}|{'|'.join(NUMBERS)})"
# What may follow a number that is of all things: the end, "in all", "of them", "visible"; but no verb and no adjective.
_ALL = re.compile(
    r"\s*(?:(?:of\s+(?:them|these|those|which)\b\s*(?:all\b)?|strong|more\s+or\s+less|separate|different)\s*)?"
    r"(?:[\"'\u201d]?\s*[-\u2013\u2014.,;:!?)\]]|$|\n|"
    r"(?:in|on|within|inside)\s+(?:number|total|all|sum|view|the|this|that|our|my|here|one)\b|"
    r"(?:altogether|together|overall|total|all\s+told|to\s+be|here|there|exactly|precisely|right|no|visible|shown|seen|"
    r"present|pictured|before|for|by|if|when|as|and|all|is|was|it|at\s+(?:once|that|least|a\s+time))\b|"
    r"(?:are|were|can\s+be|could\s+be)\s+(?:visible|shown|seen|here|there|in\s+(?:view|all|total|number|the|this)|present|"
    r"pictured|found|spotted|counted|on\s+(?:view|display|show)|what|how|it)\b)",
    re.I,
)
_ITS_NOUN = re.compile(r"\s*(?:are|were|of\s+(?:the|these|those|which)\s+are)\s+$", re.I)
_TIMES = re.compile(
    r"\s(?:appear|occur|show\s+up|turn\s+up|feature|(?:are|can\s+be)\s+(?:seen|shown|found))\s+(?:exactly\s+)?"
    rf"(?P<times>{_NUMBER})\s+times\b",
    re.I,
)
# "4x dogs", "4 x dogs", "All four of the dogs", up to the name
_BEFORE = re.compile(
    rf"(?:(?<!\S)\(?(?P<x>\d{{1,2}})\s?(?:[x\u00d7]|\))|\b(?:all|the)\s+(?P<all>{_NUMBER})\s+of\s+(?:the|these|those))\s+"
    r"(?:(?:pair|piece)s\s+of\s+)?$",
    re.I,
)
# "Dogs x4", "- Dogs: 4" at the end of a line
_LABEL = re.compile(
    rf"\s*(?:[x\u00d7]\s?(?P<x>\d{{1,2}})\b|(?::\**|=|[-\u2013\u2014])\s*(?P<end>{_NUMBER})\s*(?=[.;,]?\s*(?:\n|$)|[.;]\s))",
    re.I,
)
_LONGEST = 100  # words of a sentence that is searched: keeps endless ones linear
_SHORT = 20  # words of a further sentence that still speaks of the things before it


def beside(reading: Reading, noun: Noun) -> int | None:
    """A number that stands beside a plural in a form of its own: "4x dogs", "Dogs x4", "Dogs: 4"."""
    if not _several(noun):
        return None
    before = _BEFORE.search(reading.text[max(0, noun.span[0] - 50) : noun.span[0]])
    matches = (before, _LABEL.match(reading.text, noun.whole[1]), _TIMES.match(reading.text, noun.whole[1]))
    said = [number for match in matches if match for number in match.groups() if number]
    return next((value(number) or None for number in said), None)


def apart(reading: Reading, noun: Noun) -> int | None:
    """The one number that the sentence of a plural noun, or the next one, says without a noun."""
    tokens = tokens_of(reading, noun.sentence)
    if not _several(noun) or len(tokens) > _LONGEST or _of_some(reading, noun) or _rivals(reading, noun):
        return None
    said = _numbers(reading, tokens, noun)
    if (
        not said
        and noun.sentence
        and reading.words[tokens.start - 1] == ":"
        and not nouns_of(reading, noun.sentence - 1)
    ):
        said = _numbers(reading, tokens_of(reading, noun.sentence - 1), noun)  # "I see four of them: dogs"
    following = noun.sentence + 1
    while not said and tokens.stop < len(reading.words) and following <= noun.sentence + 2:
        tokens = tokens_of(reading, following)
        if len(tokens) > _SHORT or any(other.meant or _other(other) for other in nouns_of(reading, following)):
            break
        said, following = _numbers(reading, tokens, noun), following + 1
    return said.pop() if len(said) == 1 else None


def _several(noun: Noun) -> bool:
    """Whether a noun can be of several things."""
    return noun.plural or (noun.determiner not in ("a", "an", "this") and is_invariant(noun.words[-1]))


def value(word: str) -> int:
    """The number that a word says, 0 for none: "four", "4", "four-strong"."""
    word = word.lower().removesuffix("-strong")
    return int(word) if word.isdecimal() and len(word) < 3 else NUMBERS.get(word, 0)


def _of_some(reading: Reading, noun: Noun) -> bool:
    """Whether the sentence is about some of the things: "Of the dogs, two"."""
    before = reading.words[noun.tokens[0] - 1] if noun.tokens[0] else ""
    opens = noun.tokens[0] == tokens_of(reading, noun.sentence).start + 1
    return before == "among" or (before == "of" and opens and bool(noun.determiner))


def _rivals(reading: Reading, noun: Noun) -> bool:
    """Whether another noun of the sentence can be what is counted."""
    return any(o is not noun and o.meant and o.plural and o.number is None for o in nouns_of(reading, noun.sentence))


def _other(noun: Noun) -> bool:
    """Whether a noun is of another thing, and not only of how the things before it are counted."""
    return is_thing(noun) and not any(value(word) for word in noun.words) and noun.words[-1] not in _COUNTERS


def _numbers(reading: Reading, tokens: range, noun: Noun) -> set[int]:
    """The different numbers among some tokens that can be of a noun."""
    found = {number for at in tokens if (number := _said(reading, at)) > 1 and _counts(reading, at, noun)}
    if any(reading.words[at] == "one" and _partial(reading, at) for at in tokens):
        found.add(1)
    return found


def _said(reading: Reading, at: int) -> int:
    word = reading.words[at]
    if word in GROUPS and reading.words[at - 1] in ("a", "the"):
        return GROUPS[word]
    return value(word)


def _partial(reading: Reading, at: int) -> bool:
    """Whether "one" is one of several: "one sleeps, two play"."""
    before = reading.words[at - 1] if at else ""
    return reading.words[at + 1 : at + 2] == ("of",) and before not in ("every", "each", "any", "only", "just")


def _counts(reading: Reading, at: int, noun: Noun) -> bool:
    """Whether a number, which is not the noun's own, can be of the noun."""
    words, first = reading.words, noun.tokens[0]
    own = next((o for o in reading.nouns_from(max(0, at - 3), 4) if o.tokens[0] <= at < o.tokens[1]), None)
    if own is noun or (own and not _is_counter(own, words[at])):
        return False
    before, earlier = words[at - 1] if at else "", words[at - 2] if at > 1 else ""
    if before == "at":
        return bool(_ARRIVE.match(earlier)) and bool(_ALL.match(reading.text, reading.tokens[at].span[1]))
    if (
        before in ABOUT
        and not (before == "to" and _REACH.match(earlier))
        and not (before == "about" and earlier == "all")
    ):
        return False
    if before in ("not", "n't") or (before, earlier) in (("than", "rather"), ("of", "instead"), ("than", "more")):
        return False
    end = reading.tokens[at].span[1]
    if at < first and _ITS_NOUN.fullmatch(reading.text, end, noun.whole[0]):
        return True  # "of everything here, four are dogs"
    return before == "all" or bool(_ALL.match(reading.text, end)) or words[at].endswith("-strong")


def _is_counter(noun: Noun, word: str) -> bool:
    """Whether a noun phrase with a number only counts: "a group of four", "four individuals", "exactly four"."""
    head = noun.words[-1]
    return head == word or head in GROUPS or head in _COUNTERS or head.removesuffix("s") in _COUNTERS
