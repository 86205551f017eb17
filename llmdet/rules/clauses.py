"""What stands as a clause of English, told from closed lists of words: enough for captions, no tagger needed."""

from __future__ import annotations

import re

from llmdet.nouns import COLOURS

BE = "is are was were has have had does do did can will would may might must could".split()
VERBS = frozenset(
    [*BE, "there's", "it's"]
    + [
        form
        for verb in (
            "stand sit lie hold wear show feature contain include walk ride run look face hang rest lean carry play "
            "eat cover fill surround line run stretch extend rise sleep wait watch smile display reach touch grow "
            "float fly swim jump drive cross pass read say occupy dominate make give add use work stop park pull push "
            "serve cut feed drink talk pose gather hug kiss climb kick throw catch swing hit see overlap take "
            "provide create"
        ).split()
        for form in (verb, verb + ("es" if verb.endswith(("s", "ch", "sh", "ss", "x")) else "s"))
    ]
    + "carries flies stood sat lay held wore hung".split()
    + "seem seems appear appears suggest suggests indicate indicates imply implies hint hints looks sounds".split()
)
DETERMINERS = frozenset(
    "a an the one two three four five six several some many few both all each another this that these those his her "
    "their its it he she they there".split()
)
PREPOSITIONS = frozenset(
    "in on at by with near behind beside above below under over between from to along across inside outside around "
    "next against through atop within among toward towards beneath beyond for of".split()
)
_OPEN_ENDS = frozenset(
    [*BE, *PREPOSITIONS, *"be been being not a an the and or but that which who his her their its as very".split()]
)
# After these a word that could be a verb is a noun, or the verb of another clause.
_NOUN_NEXT = frozenset([*PREPOSITIONS, *COLOURS, *"to a an the and or no that who which what".split()])


def verb_at(piece: str, start: int = 0) -> int:
    """Where the first finite verb after the first word begins, 0 for none; not after "to"."""
    before = ""
    for word in re.finditer(r"[\w']+", piece[start:]):
        low = word[0].lower()
        if before and low in VERBS and before not in _NOUN_NEXT and (low in BE or not _adjoins(before)):
            return start + word.start()
        before = low
    return 0


def _adjoins(word: str) -> bool:
    """Whether a word makes the next one a noun: "their faces", "wearing swim trunks"."""
    return word in DETERMINERS or word.endswith("ing")


def complete(clause: str) -> bool:
    """Whether the words stand as a clause: a finite verb, and no end that asks for more."""
    words = clause.lower().split()
    # A piece after a comma may begin with its verb: ", are playing in a hall".
    verb = bool(verb_at(clause)) or (clause[:1].isspace() and len(words) > 0 and words[0] in VERBS)
    return len(words) > 1 and verb and words[-1].strip("'\"") not in _OPEN_ENDS
