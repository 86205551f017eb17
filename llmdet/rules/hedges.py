"""Hedged clauses out of English sentences, the facts beside them kept.

A sentence is read as pieces between commas, semicolons and dashes. A piece with a hedge ("possibly", "seems to",
"suggesting") goes whole where it hangs on another piece; where it is the main clause, the fact before or after the
hedge is kept if it stands as a clause; else the sentence goes. Quoted text is not read. Linear in the text.
"""

from __future__ import annotations

import re

from llmdet.rules.sentences import mask_quotes, split_with_mask

_ADVERBS = r"possibly|probably|probable|maybe|perhaps|presumably|apparently|likely|potentially|conceivably|supposedly"
_PARTICIPLES = r"(?:suggest|speculat|assum|guess|suppos|seem|indicat|hint|imply|inferr|expect)ing|appearing"
_FINITE = (
    r"(?:suggest|guess|seem|hint|infer|expect)(?:s|ed|es)?|inferred|(?:speculate|assume|suppose|indicate)[sd]?|"
    r"impl(?:y|ies|ied)"
)
_PLACE = r"in|on|at|behind|beside|near|next|between|above|below|under|through|within|along|across|throughout|over|out"
_HEDGE = re.compile(
    rf"\b(?:{_ADVERBS}|{_PARTICIPLES}|(?!hints? of\b)(?:{_FINITE})|appear(?:s|ed)?(?! (?:{_PLACE})\b)|"
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

_SEPARATOR = re.compile(r"(?<!\d),|,(?!\d)|;| - |\s*\u2014\s*| \u2013 ")
_BE = "is are was were has have had does do did can will would be been being".split()
_VERBS = frozenset(
    [*_BE, "there's", "it's"]
    + [
        form
        for verb in (
            "stand sit lie hold wear show feature contain include walk ride run look face hang rest lean carry play "
            "eat cover fill surround line run stretch extend rise sleep wait watch smile display reach touch grow "
            "float fly swim jump drive cross pass read say occupy dominate make give add use work stop park pull push "
            "serve cut feed drink talk pose gather hug kiss climb kick throw catch swing hit bear see overlap take "
            "provide create"
        ).split()
        for form in (verb, verb + ("es" if verb.endswith(("s", "ch", "sh", "ss", "x")) else "s"))
    ]
    + "carries flies stood sat lay held wore hung".split()
    + "seem seems appear appears suggest suggests indicate indicates imply implies hint hints looks sounds".split()
)
_DETERMINERS = frozenset(
    "a an the one two three four five six several some many few both all each another this that these those his her "
    "their its it he she they there".split()
)
_PREPOSITIONS = frozenset(
    "in on at by with near behind beside above below under over between from to along across inside outside around "
    "next against through atop within among toward towards beneath beyond for of".split()
)
_OPEN_ENDS = frozenset([*_BE, *_PREPOSITIONS, *"a an the and or but that which who his her their its as very".split()])
_HANGING = re.compile(
    rf"(?:(?:and|or|but|which|who|whose|where|that|with|while|though|although|because|since|as|also|most|very|{_ADVERBS}|"
    rf"{_PARTICIPLES}|suggested|indicated|implied|expected|supposed|\w+ing)\b)",
    re.IGNORECASE,
)
_CONNECTOR = re.compile(r" (?:and|or|but|while|as|because|which|who|that|where|though|although|so|with)(?= )")
_RELATIVE = re.compile(r" (?:who|which|that|with)(?= )")
_NEW_CLAUSE = re.compile(r" (?:and|but|while) (?=(?:a|an|the|two|three|several|some|many|there|its|his|her|their) )")
_LOOKS = re.compile(r"(?:seem|appear|look|sound)", re.IGNORECASE)


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
    body = sentence.rstrip(" .!?")
    pieces = _pieces(body, masked)
    # What becomes of each piece: itself, a shorter one, or nothing.
    opens = any(piece.split() and piece.split()[0].lower() in _VERBS for piece, _, _ in pieces[1:])
    left = [_shorten(piece, hidden, at, keep_negations, opens) for at, (piece, hidden, _) in enumerate(pieces)]
    lost_main = any(
        new == "" and not _hangs(piece, at) for at, ((piece, _, _), new) in enumerate(zip(pieces, left, strict=True))
    )
    body = _rescue(pieces, left, keep_negations) if lost_main else _join(pieces, left)
    if not body:
        return ""
    start = body[:1].upper() if sentence[:1].isupper() else body[:1]
    return start + body[1:] + sentence[len(sentence.rstrip(" .!?")) :].strip()


def _pieces(body: str, masked: str) -> list[tuple[str, str, str]]:
    """(piece, the same with quotes masked, the separator before it)."""
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
        return words[0].lower() in _PREPOSITIONS or (bool(_HANGING.match(piece.strip())) and not _verb_at(piece))
    if re.match(r"\s*(?:and|but|while) (?:a|an|the|there|it|he|she|they)\b", piece, re.I):
        return True
    return bool(_HANGING.match(piece.strip())) or words[0].lower() in _PREPOSITIONS or not _verb_at(piece)


def _verb_at(piece: str, start: int = 0) -> int:
    """Where the first finite verb after the first word begins, 0 for none; not after "to"."""
    before = ""
    for word in re.finditer(r"[\w']+", piece[start:]):
        low = word[0].lower()
        if word.start() and low in _VERBS and before not in ("to", "a", "an", "the", "and", "or") and low != "be":
            return start + word.start()
        before = low
    return 0


def _complete(clause: str) -> bool:
    """Whether the words stand as a clause: a finite verb, and no end that asks for more."""
    words = clause.lower().split()
    return len(words) > 1 and bool(_verb_at(clause)) and words[-1].strip("'\"") not in _OPEN_ENDS


def _shorten(piece: str, hidden: str, at: int, keep_negations: bool, opens: bool) -> str:
    """The piece itself, the part of it that holds no hedge and stands alone, or nothing.

    `opens`: a later piece begins with a verb, so that a subject alone may stay ("A dog that looks old, ..., stands").
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
    after = piece[rest.end() :] if rest and _complete(piece[rest.end() :]) else ""
    cuts = [found.start() for found in _CONNECTOR.finditer(hidden, 0, hedge.start())]
    if re.fullmatch(rf"{_PARTICIPLES}|{_ADVERBS}|as (?:if|though)", hedge[0], re.IGNORECASE):
        cuts.append(hedge.start())
    for cut in reversed(cuts[-8:]):
        if _complete(piece[:cut]):
            return f"{piece[:cut].rstrip()} and {after}" if after else piece[:cut].rstrip()
    relatives = list(_RELATIVE.finditer(hidden, 0, hedge.start()))
    relative = relatives[-1] if relatives else None
    verb = _verb_at(hidden, hedge.end()) if relative else 0
    if relative and verb and not _verb_at(piece[: relative.start()]):
        return f"{piece[: relative.start()]} {piece[verb:]}"
    if relative and subject and not verb and not _verb_at(piece[: relative.start()]):
        return piece[: relative.start()]
    return lead + after if after else ""


def _join(pieces: list[tuple[str, str, str]], left: list[str]) -> str:
    """The pieces that are left, with the separators that still part something."""
    text, gap, conjunction = "", False, ""
    items = 0  # how many bare nouns of a list stand before this piece
    for (piece, _, mark), new in zip(pieces, left, strict=True):
        word = piece.split(None, 1)[0].lower() if piece.strip() else ""
        if not new.strip():
            gap, conjunction = True, word if word in ("and", "or") else conjunction
            continue
        plain = not _verb_at(new)
        if text and conjunction and items >= 2 and not plain and word not in _DETERMINERS:
            text = _with_and(text)
        hugs = gap and text and (word in _PREPOSITIONS or word in _VERBS)
        text += (" " + new.strip() if hugs else mark + new) if text else new.strip()
        items = items + 1 if plain else 1
        gap = False
    if conjunction and gap and items >= 2:
        text = _with_and(text)
    return text.strip()


def _with_and(text: str) -> str:
    """ "A man, a woman" to "A man and a woman", once the last item of a list is gone."""
    before, comma, last = text.rpartition(",")
    return f"{before} and{last}" if comma and not re.match(r"\s*(?:and|or)\b", last) else text


def _rescue(pieces: list[tuple[str, str, str]], left: list[str], keep_negations: bool) -> str:
    """What stands alone when the main clause is lost: another main clause, or a place with who is there."""
    whole = [
        re.sub(r"^\s*(?:and|but|while|so) ", "", new).strip()
        for new in left
        if new.strip()
        and new.split()[0].lower() not in _PREPOSITIONS
        and _complete(re.sub(r"^\s*(?:and|but|while|so) ", "", new))
    ]
    whole = [clause for clause in whole if clause.split()[0].lower() in _DETERMINERS]
    if whole:
        return " and ".join([", ".join(whole[:-1]), whole[-1]]) if len(whole) > 1 else whole[0]
    return _place_and_subject(pieces, keep_negations) if len(pieces) == 2 else ""


def _place_and_subject(pieces: list[tuple[str, str, str]], keep_negations: bool) -> str:
    """ "On the left, a woman seems happy" to "On the left is a woman"."""
    (place, _, _), (clause, hidden, _) = pieces
    hedge = _hedge(hidden, keep_negations)
    if hedge is None or not place.split() or place.split()[0].lower() not in ("on", "in", "at", "behind", "near", "to"):
        return ""
    words = clause[: hedge.start()].split()
    if (
        not 2 <= len(words) <= 6
        or not _LOOKS.match(hedge[0])
        or _verb_at(clause[: hedge.start()])
        or _hedge(place, False)
    ):
        return ""
    first = words[0].lower()
    verb = (
        "is"
        if first in ("a", "an", "one", "another")
        else "are"
        if first in ("two", "three", "several", "some")
        else ""
    )
    return f"{place.strip()} {verb} {' '.join(words)}" if verb else ""
