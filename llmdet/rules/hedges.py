"""Hedged clauses out of English sentences, the facts beside them kept.

A sentence is read as pieces between commas, semicolons and dashes. A piece with a hedge ("possibly", "seems to",
"suggesting") goes whole where it hangs on another piece; where it is the main clause, the fact before or after the
hedge is kept if it stands as a clause; else the sentence goes. Quoted text is not read. Linear in the text.
"""

from __future__ import annotations

import re

from llmdet.rules.clauses import BE, DETERMINERS, PREPOSITIONS, VERBS, complete, verb_at
from llmdet.rules.sentences import mask_quotes, split_with_mask

_ADVERBS = r"possibly|probably|probable|maybe|perhaps|presumably|apparently|likely|potentially|conceivably|supposedly"
_PARTICIPLES = r"(?:suggest|speculat|assum|guess|suppos|seem|indicat|hint|imply|inferr|expect)ing|appearing"
_FINITE = (
    r"(?:suggest|guess|seem|hint|infer|expect)(?:s|ed|es)?|inferred|(?:speculate|assume|suppose|indicate)[sd]?|"
    r"impl(?:y|ies|ied)"
)
_PLACE = r"in|on|at|behind|beside|near|next|between|above|below|under|through|within|along|across|throughout|over|out"
_HEDGE = re.compile(
    rf"\b(?:(?:(?:most|very|quite) )?(?:{_ADVERBS})|{_PARTICIPLES}|"
    rf"(?!hints? of\b)(?:{_FINITE})|appear(?:s|ed)?(?! (?:{_PLACE})\b)|"
    r"(?:look|sound)(?:s|ed|ing)? (?:like|as (?:if|though))|as (?:if|though)|tends? (?:not )?to|"
    r"(?:might|may|could) (?:be|have|also|indicate|suggest|represent|belong|serve))\b",
    re.IGNORECASE,
)
# "no parking sign", "no entry": the words on a sign; "reads no": likewise.
_NEGATION = re.compile(
    r"\b(?:not|no(?! (?:\w+ing|entry|exit|littering|through|left|right|u-turn)\b))\b|n't\b", re.IGNORECASE
)
_QUOTING = re.compile(
    r"\b(?:reads?|reading|says?|saying|words?|spells?|written|labell?ed|titled|named|called):? ?$", re.I
)
# One of these words is in every hedge: a set lookup is many times faster than the patterns.
_TRIGGERS = frozenset(
    [*_ADVERBS.split("|"), "implying", "appearing", "inferring", "inferred", "imply", "implies", "implied"]
    + [stem + "ing" for stem in "suggest speculat assum guess suppos seem indicat hint expect look sound".split()]
    + [
        stem + end
        for stem in "suggest guess seem hint infer expect appear look sound".split()
        for end in ("", "s", "ed")
    ]
    + [stem + end for stem in "speculate assume suppose indicate".split() for end in ("", "s", "d")]
    + "guesses tend tends might may could if though no not".split()
)
_WORD = re.compile(r"[^\W_]+")

_SEPARATOR = re.compile(r"(?<!\d),|,(?!\d)|;| - | ?\u2014 ?| \u2013 ")
_HANGING = re.compile(
    r"(?:(?:and|or|but|which|who|whose|where|that|with|while|though|although|because|since|as|also|most|very|"
    rf"{_ADVERBS}|{_PARTICIPLES}|suggested|indicated|implied|expected|supposed|\w+ing)\b)",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"\s?\([^()]{0,300}\)")
_STARTS_LIST = re.compile(rf"\s*(?:{_ADVERBS}|{_PARTICIPLES})\b", re.IGNORECASE)
_CONNECTOR = re.compile(r" (?:and|or|but|while|as|because|which|who|that|where|though|although|so|with)(?= )")
_RELATIVE = re.compile(r" (?:who|which|that|with)(?= )")
_NEW_CLAUSE = re.compile(
    r" (?:and|but|while) "
    r"(?=(?:a|an|the|one|another|two|three|four|several|some|many|there|its|his|her|their) )"
)
_SEEN = {"a": "is", "an": "is", "one": "is", "another": "is", "two": "are", "three": "are", "several": "are"}
_LOOKS = re.compile(r"(?:seem|appear|look|sound)", re.IGNORECASE)


Piece = tuple[str, str, str]  # the words, the same with quotes masked, the separator before them


def remove_hedges(text: str, keep_negations: bool = False) -> str:
    """The text without hedged clauses; sentences without a hedge stay as they are."""
    if not _may_hedge(text.lower()):
        return text
    kept, changed = [], False
    for sentence, masked in split_with_mask(text):
        left = _clean(sentence, masked, keep_negations)
        changed = changed or left != sentence
        kept.append(left)
    return " ".join(sentence for sentence in kept if sentence) if changed else text


def _may_hedge(lower: str) -> bool:
    return not _TRIGGERS.isdisjoint(_WORD.findall(lower)) or "n't" in lower


def _hedge(piece: str, keep_negations: bool) -> re.Match[str] | None:
    """The first hedge of a piece that is not the wording of a sign."""
    for pattern in (_HEDGE,) if keep_negations else (_HEDGE, _NEGATION):
        for found in pattern.finditer(piece):
            if not _QUOTING.search(piece, max(0, found.start() - 12), found.start()):
                return found
    return None


def _clean(sentence: str, masked: str, keep_negations: bool) -> str:
    if not _may_hedge(masked.lower()) or _hedge(masked, keep_negations) is None:
        return sentence
    sentence, masked = _without_asides(sentence, masked, keep_negations)
    body = sentence.rstrip(" .!?")
    pieces = _pieces(body, masked)
    # What becomes of each piece: itself, a shorter one, or nothing.
    # A subject may stay alone before a verb of its own, or in a phrase that is no sentence (a region's caption).
    opens = any(piece.split() and piece.split()[0].lower() in VERBS for piece, _, _ in pieces[1:])
    opens = opens or sentence[-1:] not in ".!?"
    left = [_shorten(piece, hidden, at, keep_negations, opens) for at, (piece, hidden, _) in enumerate(pieces)]
    lost_main = any(
        new == "" and not _hangs(piece, at) for at, ((piece, _, _), new) in enumerate(zip(pieces, left, strict=True))
    )
    _drop_lists(pieces, left)
    was = verb_at(body)
    body = _rescue(pieces, left, keep_negations) if lost_main else _join(pieces, left)
    if not body or (was and sentence[-1:] in ".!?" and not verb_at(body) and not body.lower().startswith("there ")):
        return ""
    start = body[:1].upper() if sentence[:1].isupper() else body[:1]
    return start + body[1:] + sentence[len(sentence.rstrip(" .!?")) :].strip()


def _without_asides(sentence: str, masked: str, keep_negations: bool) -> tuple[str, str]:
    """The sentence and its mask without hedged parentheses."""
    spans = [aside.span() for aside in _ASIDE.finditer(masked) if _hedge(aside[0], keep_negations)]
    if not spans:
        return sentence, masked
    starts, ends = [0, *[end for _, end in spans]], [*[start for start, _ in spans], len(masked)]
    kept = list(zip(starts, ends, strict=True))
    return "".join(sentence[a:b] for a, b in kept), "".join(masked[a:b] for a, b in kept)


def _drop_lists(pieces: list[Piece], left: list[str]) -> None:
    """Take out what a lost piece listed: "possibly ending in dirt, noise, or smells"."""
    for at, new in enumerate(left):
        if new or at == 0 or not _STARTS_LIST.match(pieces[at][0]):
            continue
        for end in range(at + 1, min(at + 12, len(left))):
            words = pieces[end][0].lower().split()
            if not words or words[0] in DETERMINERS or words[0] in PREPOSITIONS or verb_at(pieces[end][0]):
                break
            if words[0] in ("and", "or"):
                left[at + 1 : end + 1] = [""] * (end - at)
                break


def _pieces(body: str, masked: str) -> list[Piece]:
    """The pieces between commas, semicolons and dashes."""
    pieces, start, before = [], 0, ""
    for mark in _SEPARATOR.finditer(masked, 0, len(body)):
        pieces.append((body[start : mark.start()], masked[start : mark.start()], before))
        start, before = mark.end(), mark[0]
    pieces.append((body[start:], masked[start : len(body)], before))
    return pieces


def _hangs(piece: str, at: int) -> bool:
    """Whether a piece hangs on another one, so that the sentence stands without it."""
    words = piece.split(None, 1)
    if not words:
        return True
    if at == 0:  # an opening phrase: "Possibly waiting for a bus, a man stands."
        return words[0].lower() in PREPOSITIONS or (bool(_HANGING.match(piece.strip())) and not verb_at(piece))
    if words[0].lower() in VERBS:  # "Two men, one in red, are playing": the verb of the first piece
        return False
    if re.match(r"\s*(?:and|but|while) (?:a|an|the|there|it|he|she|they)\b", piece, re.I):
        return True
    return bool(_HANGING.match(piece.strip())) or words[0].lower() in PREPOSITIONS or not verb_at(piece)


def _shorten(piece: str, hidden: str, at: int, keep_negations: bool, opens: bool) -> str:
    """The piece itself, the part of it that holds no hedge and stands alone, or nothing.

    `opens`: a subject alone may stay ("A dog that looks old, ..., stands").
    """
    for _ in range(4):
        hedge = _hedge(hidden, keep_negations)
        if hedge is None:
            return piece
        new = "" if _hangs(piece, at) else _fact(piece, hidden, hedge, opens and at == 0)
        if not new:
            return ""
        hidden, piece = mask_quotes(new), new
    return ""


def _fact(piece: str, hidden: str, hedge: re.Match[str], subject: bool) -> str:
    """The clause before the hedge or the one after it."""
    lead = " " * (len(piece) - len(piece.lstrip()))
    rest = _NEW_CLAUSE.search(hidden, hedge.end())
    after = piece[rest.end() :] if rest and complete(piece[rest.end() :]) else ""
    cuts = [
        found.start()
        for found in _CONNECTOR.finditer(hidden, 0, hedge.start())
        if found[0] not in (" and", " or", " but") or _begins_clause(hidden, found.end(), hedge.start())
    ]
    if re.fullmatch(rf"{_PARTICIPLES}|(?:\w+ )?(?:{_ADVERBS})|as (?:if|though)", hedge[0], re.IGNORECASE):
        cuts.append(hedge.start())
    for cut in reversed(cuts[-8:]):
        last = _last_clause(piece[:cut])
        if complete(piece[:cut]) and (last == 0 or verb_at(piece[:cut], last)):
            return f"{piece[:cut].rstrip()} and {after}" if after else piece[:cut].rstrip()
    relatives = list(_RELATIVE.finditer(hidden, 0, hedge.start()))
    relative = relatives[-1] if relatives else None
    verb = verb_at(hidden, hedge.end()) if relative else 0
    if relative and verb and not verb_at(piece[: relative.start()]):
        return f"{piece[: relative.start()]} {piece[verb:]}"
    if relative and subject and not verb and not verb_at(piece[: relative.start()]):
        return piece[: relative.start()]
    return lead + after if after else ""


def _last_clause(text: str) -> int:
    """Where the clause after the last "and a ..." begins; 0 where there is only one."""
    found = list(_NEW_CLAUSE.finditer(text))
    return found[-1].end() if found else 0


def _begins_clause(hidden: str, start: int, hedge: int) -> bool:
    """Whether "and" opens a clause that the hedge belongs to, rather than joining two words ("a red and white hat")."""
    between = hidden[start : min(hedge, start + 20)].split()
    return not between or between[0].lower() in DETERMINERS or between[0].lower() in BE


def _join(pieces: list[Piece], left: list[str]) -> str:
    """The pieces that are left, with the separators that still part something."""
    parts: list[str] = []  # separator, piece, separator, piece ...
    gap, conjunction = False, False  # whether a piece, or the "and" of a list, was lost on the way
    items = 0  # how many bare nouns of a list stand before this piece
    for (piece, _, mark), new in zip(pieces, left, strict=True):
        word = piece.split(None, 1)[0].lower() if piece.strip() else ""
        if not new.strip():
            gap, conjunction = True, conjunction or word in ("and", "or")
            continue
        plain = not verb_at(new)
        if conjunction and items >= 2 and (not plain or word in VERBS) and word not in DETERMINERS:
            _join_last(parts)
        # "An old, perhaps homeless, man": two words are no noun phrase yet.
        hugs = gap and (word in PREPOSITIONS or word in VERBS or (len(parts) == 2 and parts[1].count(" ") < 2))
        parts += [" " if hugs else f"{mark} " if mark in (",", ";") else mark, new.strip()]
        item = plain and word not in PREPOSITIONS and not word.endswith("ing")
        items = items + 1 if item else int(not plain)
        gap = False
    if conjunction and gap and items >= 2:
        _join_last(parts)
    return "".join(parts[1:])


def _join_last(parts: list[str]) -> None:
    """ "A man, a woman" to "A man and a woman", once the last item of a list is gone."""
    if len(parts) > 2 and parts[-2] == ", " and not parts[-1].lower().startswith(("and ", "or ")):
        parts[-2] = " and "


def _rescue(pieces: list[Piece], left: list[str], keep_negations: bool) -> str:
    """What stands alone when the main clause is lost: another main clause, or a place with who is there."""
    whole = [
        clause
        for clause in (re.sub(r"^(?:and|but|while|so) ", "", new.strip()) for new in left if new.strip())
        if clause.split()[0].lower() in DETERMINERS and complete(clause)
    ]
    if whole:
        return " and ".join([", ".join(whole[:-1]), whole[-1]]) if len(whole) > 1 else whole[0]
    return _place_and_subject(pieces, keep_negations) if len(pieces) == 2 else ""


def _place_and_subject(pieces: list[Piece], keep_negations: bool) -> str:
    """ "On the left, a woman seems happy" to "On the left is a woman"."""
    (place, _, _), (clause, hidden, _) = pieces
    hedge = _hedge(hidden, keep_negations)
    if hedge is None or not place.split() or place.split()[0].lower() not in ("on", "in", "at", "behind", "near", "to"):
        return ""
    before = clause[: hedge.start()]
    words = before.split()
    plain = 2 <= len(words) <= 6 and not verb_at(before) and not _hedge(place, False)
    verb = _SEEN.get(words[0].lower()) if plain and _LOOKS.match(hedge[0]) else None
    return f"{place.strip()} {verb} {' '.join(words)}" if verb else ""
