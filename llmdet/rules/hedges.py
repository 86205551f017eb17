"""Hedged clauses out of English sentences, the facts beside them kept.

A sentence is read as segments between semicolons, colons and dashes, and a segment as pieces between commas. A piece
with a hedge ("possibly", "seems to", "suggesting") goes whole where it hangs on another piece; where it is the main
clause, the fact before or after the hedge is kept if it stands as a clause; else the segment goes. Quoted text is not
read. Linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmdet.rules.clauses import (
    DETERMINERS,
    PREPOSITIONS,
    VERBS,
    closed,
    complete,
    starts_with_verb,
    verb_at,
)
from llmdet.rules.hedge_words import ADVERBS, find_hedge, may_hedge
from llmdet.rules.pieces import CLAUSE_START, HANGING, UNSURE, Piece, cut, first_word, hangs, shorten
from llmdet.rules.sentences import mask_quotes, split_with_mask, words_of

_STOPS = " .!?\u2026"
_COMMA = re.compile(r"(?<!\d),|,(?!\d)")
_STRONG = re.compile(r";|:(?= )| - | ?\u2014 ?| \u2013 |--")
_ASIDE = re.compile(r"\s?\([^()]{0,300}\)")
_UNSURE_START = re.compile(rf"\s*{UNSURE}", re.I)
_UNSURE_VERB = re.compile(rf"\s*{UNSURE}(?: \w+ly)? \w+ing\b|\s*(?:suggest|indicat|imply|hint)ing\b", re.I)
_EXAMPLES = re.compile(r"\s*(?:such as|including|like|especially|particularly|e\.g\.|or)\b", re.I)
_CONJOINED = re.compile(rf"(?:,? (?:and|or)|^(?:and|or)) (?:{ADVERBS}) $", re.I)
_HE = re.compile(r"(?:it|he|she|they)\b", re.I)  # whoever that is went with the main clause
_ADVERB = rf"(?:(?:most|very|quite) )?(?:{ADVERBS})"
_IT_SEEMS = (
    r"(?:it|i|we|one) (?:(?:would|might|may) )?(?:seems?|appears?|think|believe|guess|suppose|assume|imagine|suspect)"
)
# Between commas or at the end: "The roof, presumably, has been mended".
_COMMENT = re.compile(rf", (?:({_ADVERB})|{_IT_SEEMS})(?:(?=,)|($))", re.I)
# What opens a sentence and makes a guess of its main clause.
_OPENING_COMMENT = re.compile(
    rf"\s*(?:{_ADVERB}|{_IT_SEEMS}|if (?:i|we|one) (?:had|were) to \w+|"
    r"(?:judging (?:by|from)|(?:by|from) the looks? of) [^,]+),",
    re.I,
)
_AND = re.compile(r"\s*(?:(?:and|or|but|while) )?")
_ASIDE_START = re.compile(r"\s*(?:\w+(?:ed|ing)|who|which|whose|with|such as|both|each)\b", re.I)
_LEADING = re.compile(r"^(?:and|but|while|or|so) ", re.I)
_PARTICIPIAL = re.compile(r"\w+ing\b|\b(?:his|her|its|their) ", re.I)
_AND_GUESS = re.compile(rf",? and (?:{ADVERBS})\b", re.I)
_JOINS = re.compile(r" and\b")
_ALTHOUGH = re.compile(r"\s*(?:and |but )?(?:although|though|while|since|because|if|when|despite)\b", re.I)
_REASON = re.compile(
    r"\s*(as|because|since|but) (he|she|it|they) (?=(?:is|are|has|have|wears?|holds?|carr(?:y|ies))\b)", re.I
)
_MANY = frozenset("two three four five six several some many both these those".split())
_PLURAL_VERB = re.compile(r"(?:are|were|have|seem|appear|look)\b")
_SINGULAR = re.compile(r"(?:is|has|was|does|\w+[^s]s)\b")
_SEEN = {"a": "is", "an": "is", "one": "is", "another": "is", "two": "are", "three": "are", "several": "are"}
_LOOKS = re.compile(r"(?:seem|appear|look|sound)", re.IGNORECASE)


def remove_hedges(text: str, keep_negations: bool = False) -> str:
    """The text without hedged clauses; sentences without a hedge stay as they are."""
    if not may_hedge(words_of(text)):
        return text
    kept, changed = [], False
    for sentence, masked in split_with_mask(text):
        left = _clean(sentence, masked, keep_negations)
        changed = changed or left != sentence
        kept.append(left)
    return " ".join(sentence for sentence in kept if sentence) if changed else text


def _clean(sentence: str, masked: str, keep_negations: bool) -> str:
    if find_hedge(masked, keep_negations) is None:
        return sentence
    sentence, masked = _without_asides(sentence, masked, keep_negations)
    if find_hedge(masked, keep_negations) is None:
        return sentence
    body = sentence.rstrip(_STOPS)
    stop = sentence[len(body) :].strip()
    if "?" in stop:
        return ""
    # A phrase has no verb of its own to lose: "black dog that seems to sleep" leaves "black dog".
    phrase = not stop or not verb_at(masked, joined=bool(_JOINS.search(masked)))
    left = _join_segments(cut(_STRONG, body, masked), phrase, keep_negations)
    left = _LEADING.sub("", left)
    if not left or not closed(left):
        return ""
    if not phrase and not verb_at(left, joined=" and " in left) and not left.lower().startswith("there "):
        return ""
    return (left[:1].upper() if sentence[:1].isupper() else left[:1]) + left[1:] + _stop_after(left, stop)


def _stop_after(left: str, stop: str) -> str:
    """The stop of the sentence, unless an abbreviation or an ellipsis brought its own."""
    return "" if left.endswith((".", "\u2026")) and stop == "." else stop


def _without_asides(sentence: str, masked: str, keep_negations: bool) -> tuple[str, str]:
    """The sentence and its mask without hedged parentheses."""
    spans = [aside.span() for aside in _ASIDE.finditer(masked) if find_hedge(aside[0], keep_negations)]
    if not spans:
        return sentence, masked
    starts, ends = [0, *[end for _, end in spans]], [*[start for start, _ in spans], len(masked)]
    kept = list(zip(starts, ends, strict=True))
    return "".join(sentence[a:b] for a, b in kept), "".join(masked[a:b] for a, b in kept)


def _join_segments(segments: list[Piece], phrase: bool, keep_negations: bool) -> str:
    """The segments that are left; behind a lost first one only whole clauses stay."""
    parts: list[str] = []
    gap = False
    for segment in segments:
        new = _clean_segment(_with_comments(segment), phrase, keep_negations).strip()
        if not new or (gap and not parts and (phrase or not complete(new))):
            gap = True
            continue
        if not parts:
            parts.append(new)
        elif gap and (
            first_word(new) in ("and", "or", "but") or first_word(new) in PREPOSITIONS or starts_with_verb(new)
        ):
            parts += [" ", new]
        else:
            parts += [f"{segment.mark} " if segment.mark in (";", ":") else segment.mark, new]
        gap = False
    return "".join(parts)


def _with_comments(segment: Piece) -> Piece:
    """The segment with comments between commas as an adverb of what they are about.

    That is what follows where the words before ask for more ("and, it seems, ...") or its verb follows ("The man,
    presumably, is a chef"), and at the end what stands before ("Two men are fishing, apparently"). "The roof, it seems,
    has been mended" only loses its comment.
    """
    hidden = segment.hidden
    opening = _OPENING_COMMENT.match(hidden)
    changes = [(0, opening.end(), "Perhaps")] if opening else []
    for found in _COMMENT.finditer(hidden):
        start, end = found.span()
        if found[1] and found[2] is not None:  # at the end
            piece = _AND.match(hidden, hidden.rfind(",", 0, start) + 1)
            changes += [(piece.end(), piece.end(), "perhaps "), (start, end, "")] if piece else []
        elif not closed(hidden[max(0, start - 20) : start]) or (
            found[1] and starts_with_verb(hidden[end + 1 : end + 40])
        ):
            changes.append((start, end + 1, " perhaps"))
    return Piece(_changed(segment.text, changes), _changed(hidden, changes), segment.mark) if changes else segment


def _changed(text: str, changes: list[tuple[int, int, str]]) -> str:
    """The text with other words at some places, which are in order; a place inside the one before does not count."""
    parts, last = [], 0
    for start, end, words in changes:
        if start >= last:
            parts += [text[last:start], words]
            last = end
    return "".join([*parts, text[last:]])


def _clean_segment(segment: Piece, phrase: bool, keep_negations: bool) -> str:
    hedge = find_hedge(segment.hidden, keep_negations)
    if hedge is None:
        return segment.text
    if joined := _without_conjunct(segment, hedge):
        return _clean_segment(Piece(joined, mask_quotes(joined), segment.mark), phrase, keep_negations)
    pieces = cut(_COMMA, segment.text, segment.hidden)
    # A subject may stay alone before a verb of its own, or in a phrase.
    opens = phrase or any(starts_with_verb(piece.text) for piece in pieces[1:])
    left = [shorten(piece, at, keep_negations, opens, phrase) for at, piece in enumerate(pieces)]
    if phrase and not left[0]:
        return ""
    without = set(_drop_subjects(pieces, left))
    lost_main = any(
        new == "" and at not in without and not hangs(piece, at)
        for at, (piece, new) in enumerate(zip(pieces, left, strict=True))
    )
    _drop_lists(pieces, left)
    _drop_tails(pieces, left)
    dangling = _drop_dangling(pieces, left)
    return _rescue(pieces, left, keep_negations) if lost_main and not phrase else _join(pieces, left, dangling)


def _without_conjunct(segment: Piece, hedge: re.Match[str]) -> str:
    """A subject without its guessed part ("A man, a woman and perhaps a child walk"); empty where there is none."""
    found = _CONJOINED.search(segment.hidden, 0, hedge.end() + 1)
    if not found or verb_at(segment.hidden[: found.start()]):
        return ""
    verb = verb_at(segment.hidden, hedge.end(), joined=True)
    if not verb or _COMMA.search(segment.hidden, hedge.end(), verb):
        return ""
    subject = segment.text[: found.start()]
    before, comma, last = subject.rpartition(", ")
    if comma:
        return f"{before} and {last} {segment.text[verb:]}"
    # One alone would need another form of the verb, unless the guess was inside: "A plate with ham and perhaps egg is".
    one = first_word(subject) in ("a", "an", "one") and _SINGULAR.match(segment.hidden, verb)
    return f"{subject} {segment.text[verb:]}" if one else ""


def _drop_subjects(pieces: list[Piece], left: list[str]) -> Iterator[int]:
    """Take out the subject of a lost verb in a clause that hangs: "while the catcher, in red, seems to wait"."""
    for at, new in enumerate(left):
        if new or not starts_with_verb(pieces[at].text):
            continue
        for start in range(at - 1, max(0, at - 6), -1):
            if verb_at(pieces[start].text):
                break
            if CLAUSE_START.match(pieces[start].text):
                left[start : at + 1] = [""] * (at + 1 - start)
                yield at
                break


def _drop_lists(pieces: list[Piece], left: list[str]) -> None:
    """Take out what a lost piece listed: "possibly ending in dirt, noise, or smells"."""
    for at, new in enumerate(left):
        if not new and at + 1 < len(left) and _EXAMPLES.match(pieces[at + 1].text):
            left[at + 1] = ""
        if new or at == 0 or not _UNSURE_START.match(pieces[at].text):
            continue
        for end in range(at + 1, min(at + 12, len(left))):
            words = pieces[end].text.lower().split()
            if not words or words[0] in DETERMINERS or words[0] in PREPOSITIONS:
                break
            if words[0] in ("and", "or"):
                own = words[0] == "and" and len(words) > 1 and (words[1] in DETERMINERS or words[1] in VERBS)
                if not own:
                    left[at + 1 : end + 1] = [""] * (end - at)
                break
            if verb_at(pieces[end].text):
                break


def _drop_tails(pieces: list[Piece], left: list[str]) -> None:
    """Take out what went on listing things of a lost end: "and seems to wear a coat, hat and scarf"."""
    for at in range(1, len(left)):
        short = left[at - 1] and pieces[at - 1].text.startswith(left[at - 1]) and left[at - 1] != pieces[at - 1].text
        piece = pieces[at]
        of_lost = short or (not left[at - 1] and _UNSURE_VERB.match(pieces[at - 1].text))
        if of_lost and piece.first in ("which", "who", "whose", "where"):
            left[at] = ""
        if short and left[at] and not (piece.first in VERBS | PREPOSITIONS | DETERMINERS or HANGING.match(piece.text)):
            left[at] = ""


def _drop_dangling(pieces: list[Piece], left: list[str]) -> frozenset[int]:
    """Take out an "and" whose clause is lost: "rows of chairs and, at the front, what looks like a pulpit".

    Returns the places that ended so.
    """
    ended = set()
    for at in range(len(left) - 2, -1, -1):
        words = left[at].rsplit(None, 1)
        if len(words) < 2 or words[1].lower() not in ("and", "or", "but", "with", "while"):
            continue
        lost = next((end for end in range(at + 1, min(at + 4, len(left))) if not left[end]), 0)
        if lost and all(pieces[end].first in PREPOSITIONS for end in range(at + 1, lost)):
            left[at : lost + 1] = [words[0], *[""] * (lost - at)]
            ended.add(at)
    return frozenset(ended)


def _join(pieces: list[Piece], left: list[str], dangling: frozenset[int] = frozenset()) -> str:
    """The pieces that are left, with the commas that still part something. `dangling`: they have lost their "and"."""
    joined = _Joined()
    for at, (piece, new) in enumerate(zip(pieces, left, strict=True)):
        if not new.strip():
            joined.lose(piece)
            continue
        joined.add(piece, new)
        if at in dangling or (piece.text.startswith(new) and bool(_AND_GUESS.match(piece.hidden, len(new)))):
            joined.gap = joined.conjunction = True
    return joined.text()


@dataclass(slots=True)
class _Joined:
    """What of a sentence stands so far."""

    parts: list[str] = field(default_factory=list)  # separator, piece, separator, piece ...
    gap: bool = False  # a piece was lost since the last one that stands
    conjunction: bool = False  # the "and" of a list was lost
    items: int = 0  # bare nouns of a list that stand before the next piece
    aside: bool = False  # what stands between a subject and its verb has a comma before it

    def lose(self, piece: Piece) -> None:
        """A piece is lost."""
        self.gap = True
        self.conjunction = self.conjunction or (piece.first in ("and", "or") and not verb_at(piece.hidden))

    def add(self, piece: Piece, new: str) -> None:
        """A piece stands, as `new`."""
        word, plain = piece.first, not verb_at(new)
        if self.conjunction and self.items >= 2 and (not plain or word in VERBS) and word not in DETERMINERS:
            _join_last(self.parts)
        close = self.gap and self._hugs(word, plain)
        close = close or new.startswith(",") or first_word(new) == "and" != word
        self.parts += [" " if close else f"{piece.mark} ", new.strip(" ,")]
        item = plain and word not in PREPOSITIONS and not _PARTICIPIAL.search(new)
        self.items = self.items + 1 if item else int(not plain or bool(_EXAMPLES.match(new)))
        self.aside = len(self.parts) > 2 and plain and (self.aside or bool(_ASIDE_START.match(new)))
        self.gap = False

    def _hugs(self, word: str, plain: bool) -> bool:
        """Whether a piece with this first word goes on, without a comma, from what stood before the gap."""
        if word in PREPOSITIONS and not (word == "with" and len(self.parts) > 2):
            return True
        if (word in VERBS and not self.aside) or (word in ("and", "or") and plain):
            return True
        # "An old, perhaps homeless, man": two words are no noun phrase yet.
        return len(self.parts) == 2 and self.parts[1].count(" ") < 2 and word not in DETERMINERS

    def text(self) -> str:
        """The sentence."""
        if self.conjunction and self.gap and self.items >= 2:
            _join_last(self.parts)
        return "".join(self.parts[1:])


def _join_last(parts: list[str]) -> None:
    """ "A man, a woman" to "A man and a woman", once the last item of a list is gone."""
    if len(parts) > 2 and parts[-2] == ", " and not parts[-1].lower().startswith(("and ", "or ")):
        parts[-2] = " and "


def _rescue(pieces: list[Piece], left: list[str], keep_negations: bool) -> str:
    """What stands alone when a main clause is lost: the others, or a place with who is there."""
    whole: list[str] = []
    for at, (piece, new) in enumerate(zip(pieces, left, strict=True)):
        if at + 1 < len(left) and not left[at + 1] and _ALTHOUGH.match(new):
            continue  # what it was said of is lost
        clause = _reason_of(pieces[0], new) or re.sub(r"^(?:,? ?and|but|while|so|where|as|because) ", "", new.strip())
        stands = first_word(clause) in DETERMINERS and complete(clause) and not (not left[0] and _HE.match(clause))
        if stands or (whole and new and piece.first not in VERBS and hangs(piece, 1)):
            whole.append(clause if stands else new.strip())
    clauses = [clause for clause in whole if complete(clause)]
    if len(clauses) > 1 and clauses == whole:
        return " and ".join([", ".join(whole[:-1]), whole[-1]])
    return ", ".join(whole) if whole else _place_and_subject(pieces, keep_negations)


def _reason_of(lost: Piece, piece: str) -> str:
    """The reason for a guess, as a fact of its subject: "The woman could be a nurse, as she is in blue scrubs".

    "The man is not wearing a helmet, but he has a cap" gives "The man has a cap"; empty where there is none.
    """
    reason = _REASON.match(piece)
    verb = verb_at(lost.hidden)
    subject = lost.text[:verb].strip()
    if not reason or not 1 < len(subject.split()) < 9 or first_word(subject) not in DETERMINERS or not closed(subject):
        return ""
    plural = first_word(subject) in _MANY or bool(_PLURAL_VERB.match(lost.hidden, verb))
    told = find_hedge(lost.hidden, False)
    same = (reason[2].lower() == "they") == plural and (reason[2].lower() in ("he", "she") or reason[1] != "but")
    return f"{subject} {piece[reason.end() :]}" if same and told and told.start() <= verb + 12 else ""


def _place_and_subject(pieces: list[Piece], keep_negations: bool) -> str:
    """ "On the left, a woman seems happy" to "On the left is a woman"."""
    if len(pieces) != 2:
        return ""
    place, clause = pieces
    hedge = find_hedge(clause.hidden, keep_negations)
    if hedge is None or place.first not in (
        "on",
        "in",
        "at",
        "behind",
        "near",
        "to",
        "under",
        "above",
        "beside",
        "next",
    ):
        return ""
    before = clause.text[: hedge.start()]
    words = before.split()
    plain = 2 <= len(words) <= 6 and not verb_at(before) and not find_hedge(place.hidden, False)
    verb = _SEEN.get(words[0].lower()) if plain and _LOOKS.match(hedge[0]) else None
    return f"{place.text.strip()} {verb} {' '.join(words)}" if verb else ""
