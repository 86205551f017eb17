"""Captions that are not English, in whole or in a sentence, or no language at all."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from llmdet.nouns import COLOURS
from llmdet.record import Caption, Record
from llmdet.rules.captions import Level, judge_captions, lost
from llmdet.rules.clauses import VERBS
from llmdet.rules.outcome import Drop, Kept, Retry
from llmdet.rules.sentences import mask_quotes, split_with_mask, words_of

# Short words of languages in Latin script that are no words of English captions.
_FOREIGN = frozenset(
    # Spanish, Portuguese, Italian, French
    "el los las de la una unos unas del con por para está están y su sus hay junto sobre esta este imagen muestra que "
    "um uma dos das ao com não em na nas seu sua são estão mostra ele ela perto di della dello degli nella nel "
    "sul sulla che è sono il gli alla les des du une est sont dans avec sur et qui près devant derrière aux ses "
    "leur deux un hombre mujer perro homme femme chien uomo donna homem mulher calle "
    # German, Dutch, Swedish, Danish, Norwegian
    "der dem und ist sind ein eine einen einem einer auf mit vor neben zwei steht sitzt liegt zeigt im vom zum "
    "zur sich über mann frau hund het een en zijn op naast voor achter twee staat zit ligt toont och är ett på "
    "med som står sitter ligger två bakom foran ved og det av til bilden viser visar "
    # Polish, Czech, Hungarian, Finnish, Turkish, Vietnamese, Indonesian
    "jest są przed obok dwa dwie stoi siedzi się oraz jsou před vedle stojí sedí egy és az ül áll joka istuu "
    "seisoo ja kuvassa bir ve ile var bu \u00fczerinde yan\u0131nda \u0111ang một và trên của người có với yang dengan "
    "seorang sebuah sedang berdiri duduk pada gambar ini".split()
)
_PARTICLES = frozenset("de la los las del el di da do dos von van der den du des le les y e san".split())
_ENGLISH = (
    VERBS
    | frozenset(COLOURS)
    | frozenset(
        "the and with of to by from near behind beside above below between into there this that these those his her "
        "its their he she it they who which while next left right two three four man woman people person side table "
        "street room wall wearing standing sitting holding background foreground small large".split()
    )
) - frozenset("is has do come use set pet lap pat post van".split())
_BEYOND_LATIN = re.compile(r"[^\W\d_\x00-\u024f]")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, kw_only=True)
class RequireEnglish:
    """Take out captions with a sentence or a long part that is not English, and those without any word.

    Quotations are not read, so that a sign may say anything; names and single foreign words pass.
    """

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    max_share: float = 0.12  # of the letters that may be of another script than Latin

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        text = caption.text
        if not _WORD.search(text):
            return lost(caption, "no_language", text[:40])
        if not text.isascii() and (share := other_script(mask_quotes(text))) > self.max_share:
            return lost(caption, "wrong_language", f"{share:.0%} of the letters are not Latin")
        if text.isascii() and _FOREIGN.isdisjoint(words_of(text)):
            return caption
        for sentence, masked in split_with_mask(text):
            if not (masked.isascii() and _FOREIGN.isdisjoint(masked.lower().split())) and is_foreign(masked):
                return lost(caption, "wrong_language", sentence[:80])
        return caption


def other_script(text: str) -> float:
    """The share of letters that are not Latin; up to three in all do not count (a sign, a formula)."""
    others = sum(not unicodedata.name(char, "").startswith("LATIN") for char in _BEYOND_LATIN.findall(text))
    if not others:
        return 0.0
    letters = sum(map(str.isalpha, text))
    return others / letters if others > 3 or others == letters else 0.0


def is_foreign(sentence: str) -> bool:
    """Whether more words of another language in Latin script than of English stand in a sentence."""
    foreign = accented = english = 0
    named = False  # the word before is of a name: "Rue de la Paix"
    for found in _WORD.finditer(sentence):
        word = found[0]
        low = word.lower()
        if low in _ENGLISH:
            english += 1
        elif not (named and low in _PARTICLES):
            foreign += low in _FOREIGN
            accented += not word.isascii() and word == low
        named = word[0].isupper() or (named and low in _PARTICLES)
    return foreign + accented > english and (foreign > 1 or (foreign > 0 and accented > 0) or accented > 2)
