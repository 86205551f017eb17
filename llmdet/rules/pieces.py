"""Pieces of a sentence between commas: what hangs on what, and the fact that a hedged piece still holds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmdet.rules.clauses import (
    ARTICLES,
    BE,
    DETERMINERS,
    PREPOSITIONS,
    VERBS,
    closed,
    complete,
    starts_with_verb,
    verb_at,
)
from llmdet.rules.hedge_words import ADVERBS, PARTICIPLES, find_hedge
from llmdet.rules.sentences import mask_quotes

UNSURE = rf"(?:{ADVERBS}|{PARTICIPLES})\b"
_SUBORDINATE = re.compile(r"\s*(?:although|though|while|whereas|because|since|if|as|when|whether|given|unless)\b", re.I)
HANGING = re.compile(
    r"\s*(?:(?:and|or|but|which|who|whose|where|that|with|while|though|although|because|since|as|so|also|most|very|"
    rf"suggested|indicated|implied|expected|supposed|what|if|\w+ing)\b|{UNSURE})",
    re.I,
)
_UNSURE_ONLY = re.compile(rf"{PARTICIPLES}|(?:\w+ )?(?:{ADVERBS})|as (?:if|though)", re.I)
_CONNECTOR = re.compile(r",? (?:and|or|but|while|as|because|which|who|whose|that|where|though|although|so|with)(?= )")
# "in front of what looks like a barn", "of what could be lemonade"
_WHAT = re.compile(
    rf"(?:,? (?:looking|gazing|staring|pointing))?(?: (?:in front|next|on top|close|out|up))?"
    rf"(?: (?:{'|'.join(sorted(PREPOSITIONS))}))+ what $",
    re.I,
)
_RELATIVE = re.compile(r" (?:who|which|that|with)(?= )")
_NEW_CLAUSE = re.compile(
    r",? (?:and|but|while) "
    r"(?=(?:a|an|the|one|another|two|three|four|several|some|many|there|its|his|her|their|it|he|she|they) )"
)
CLAUSE_START = re.compile(r"\s*(?:and|but|while|so) (?:a|an|the|there|it|he|she|they)\b|\s*and one \w+s\b", re.I)
# Whoever is meant went with the main clause.
UNNAMED = re.compile(r"(?:it|he|she|they|his|her|its|their)\b", re.I)
# A guess joined to what is known: "a large dog or maybe a wolf".
_OR_MAYBE = re.compile(rf",? (?:and|or) (?:{ADVERBS})$", re.I)
_PRONOUN = re.compile(r" (?:they|it|he|she|that|who|which) $", re.I)
_PARENTHETIC = re.compile(r"\s*(?:i|we|one|it) (?:would |may |might |could )?\w+\s*$", re.I)
_AND_DOES = re.compile(r" and (\w+s|are|have) (\w+)")


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands between two separators: its words, the same with quotations masked, the separator before it."""

    text: str
    hidden: str
    mark: str

    @property
    def first(self) -> str:
        """The first word in lower case."""
        return first_word(self.text)


def first_word(text: str) -> str:
    """The first word in lower case, "" for none."""
    words = text.split(None, 1)
    return words[0].lower() if words else ""


def cut(separator: re.Pattern[str], body: str, masked: str) -> list[Piece]:
    """The pieces between separators."""
    pieces, start, before = [], 0, ""
    for mark in separator.finditer(masked, 0, len(body)):
        pieces.append(Piece(body[start : mark.start()], masked[start : mark.start()], before))
        start, before = mark.end(), mark[0]
    pieces.append(Piece(body[start:], masked[start : len(body)], before))
    return pieces


def hangs(piece: Piece, at: int) -> bool:
    """Whether a piece hangs on another one, so that the sentence stands without it."""
    first = piece.first
    if not first:
        return True
    if at == 0:  # an opening phrase: "Possibly waiting for a bus, a man stands."
        if _SUBORDINATE.match(piece.text):
            return True
        return (first in PREPOSITIONS or bool(HANGING.match(piece.text))) and not verb_at(piece.text)
    if _PARENTHETIC.match(piece.text):  # "The roof, it seems, has been repaired"
        return True
    if first in VERBS:  # "Two men, one in red, are playing": the verb of the first piece
        return False
    # A comma splice hangs too: "A van is parked outside, it may be for rent."
    return (
        bool(CLAUSE_START.match(piece.text) or HANGING.match(piece.text))
        or first in PREPOSITIONS
        or not verb_at(piece.text)
    )


def shorten(piece: Piece, at: int, keep_negations: bool, opens: bool, phrase: bool) -> str:
    """The piece itself, the part of it that holds no hedge and stands alone, or nothing.

    `opens`: a subject alone may stay ("A dog that looks old, ..., stands").
    """
    text, hidden = piece.text, piece.hidden
    for _ in range(4):
        hedge = find_hedge(hidden, keep_negations)
        if hedge is None:
            return text
        now = Piece(text, hidden, piece.mark)
        new = "" if hangs(now, at) and not (at == 0 and phrase) else _fact(now, hedge, opens and at == 0, phrase)
        if not new and (guess := _OR_MAYBE.search(hidden, 0, hedge.end())) and closed(text[: guess.start()]):
            new = "" if verb_at(hidden, guess.end(), joined=True) else text[: guess.start()]
        if not new and at and (rest := _clause_after(now, hedge)):
            new = rest
        if not new:
            return ""
        text, hidden = new, mask_quotes(new)
    return ""


def _clause_after(piece: Piece, hedge: re.Match[str]) -> str:
    """The clause that begins after the hedge, with its "and"."""
    rest = _NEW_CLAUSE.search(piece.hidden, hedge.end())
    return piece.text[rest.start() :] if rest and complete(piece.text[rest.end() :]) else ""


def _fact(piece: Piece, hedge: re.Match[str], subject: bool, phrase: bool) -> str:
    """The clause before the hedge or the one after it."""
    text, hidden = piece.text, piece.hidden
    lead = " " * (len(text) - len(text.lstrip()))
    rest = _NEW_CLAUSE.search(hidden, hedge.end())
    after = text[rest.end() :] if rest and complete(text[rest.end() :]) else ""
    for end in reversed(_cuts(hidden, hedge)[-8:]):
        before = text[:end].rstrip()
        last = _last_clause(before)
        whole = complete(before) and (last == 0 or verb_at(before, last))
        if whole or (phrase and closed(before)):
            return f"{before} and {after}" if after else before
    relative = next(iter(reversed(list(_RELATIVE.finditer(hidden, 0, hedge.start())))), None)
    verb = verb_at(hidden, hedge.end()) if relative else 0
    near = relative and len(hidden[relative.end() : hedge.start()].split()) < 3
    if relative and near and verb and not _PRONOUN.search(hidden, 0, verb) and not verb_at(text[: relative.start()]):
        return f"{text[: relative.start()]} {text[verb:]}"
    if relative and subject and not verb and not verb_at(text[: relative.start()]):
        return text[: relative.start()]
    if after and not UNNAMED.match(after):
        return lead + after
    return _other_predicate(piece, hedge)


def _other_predicate(piece: Piece, hedge: re.Match[str]) -> str:
    """The subject with what else it does: "The man does not look up and holds a cup" to "The man holds a cup"."""
    verb = verb_at(piece.hidden)
    subject = piece.text[:verb].rstrip()
    if starts_with_verb(piece.text):  # whose subject is the piece before
        subject = ""
    elif not 0 < verb <= hedge.end() or piece.first not in DETERMINERS or find_hedge(subject, False):
        return ""
    for found in _AND_DOES.finditer(piece.hidden, hedge.end()):
        if found[1].lower() in VERBS and (
            found[1].lower() in BE or found[2].lower() in ARTICLES or found[2][-3:] == "ing"
        ):
            return f"{subject} {piece.text[found.start(1) :]}"
    return ""


def _cuts(hidden: str, hedge: re.Match[str]) -> list[int]:
    """Where the text before a hedge could end."""
    cuts = [
        found.start()
        for found in _CONNECTOR.finditer(hidden, 0, hedge.start())
        if found[0].strip(", ") not in ("and", "or", "but") or _begins_clause(hidden, found.end(), hedge.start())
    ]
    if _UNSURE_ONLY.fullmatch(hedge[0]) or hedge[0].lower() == "not":
        cuts.append(hedge.start())
    what = _WHAT.search(hidden, max(0, hedge.start() - 60), hedge.start())
    if what and not hidden[: what.start()].endswith("ing"):  # "is wearing what seems": the object is lost
        cuts.append(what.start())
    return cuts


def _last_clause(text: str) -> int:
    """Where the clause after the last "and a ..." begins; 0 where there is only one."""
    found = list(_NEW_CLAUSE.finditer(text))
    return found[-1].end() if found else 0


def _begins_clause(hidden: str, start: int, hedge: int) -> bool:
    """Whether "and" opens a clause that the hedge belongs to, rather than joining two words ("a red and white hat")."""
    between = hidden[start : min(hedge, start + 20)].split()
    return not between or between[0].lower() == "what" or between[0].lower() in DETERMINERS | VERBS
