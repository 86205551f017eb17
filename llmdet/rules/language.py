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
# Words with accents that English has taken over.
_LOANS = frozenset(
    "café cafés crêpe crêpes crème fraîche brûlée sauté sautéed purée puréed soufflé pâté flambé consommé entrée "
    "entrées ragoût rosé éclair éclairs façade façades décor cliché clichés fiancé fiancée résumé naïve béchamel mâché "
    "appliqué piñata piñatas jalapeño jalapeños piña señor señora açaí döner smörgåsbord".split()
)
_BEYOND_LATIN = re.compile(r"[^\W\d_\x00-\u024f]")
_WORD = re.compile(r"[^\W\d_]+")
# Words of other scripts with only spaces, commas and signs of that script between them.
_RUN = re.compile(r"[^\W\d_\x00-\u024f](?:[^\x00-\u024f]|[ ,.:-]{1,2}(?=[^\x00-\u024f]))*")
# Text that can be read in the picture: "the sign reads ...", "the characters ... are printed on it".
_SHOWN = re.compile(
    r"(?:\b(?:reads?|reading|says?|saying|written|writing|words?|characters?|letters?|lettering|texts?|label\w*|titled?|"
    r"named?|called|spells?|spelling|inscriptions?|logo|kanji|hanzi|hangul|katakana|hiragana|glyphs?|calligraphy|brand|"
    r"slogan|phrase|marked|stamped|engraved|embossed|printed|sign|banner|means?|meaning)\b"
    r"(?:[ ,:;]+[\w'-]+){0,3}[ ,:;]*|\()$"
)
_SHOWN_AFTER = re.compile(r" ?(?:\)|(?:is|are) (?:\w+ly )?(?:written|printed|painted|engraved|embossed|displayed)\b)")


@dataclass(frozen=True, kw_only=True)
class RequireEnglish:
    """Take out captions with a sentence or a long part that is not English, and those without any word.

    Quotations are not read, so that a sign may say anything, and neither is text of another script that is said to be
    shown ("the sign reads ..."). Any other word of another script is one that a model slipped into ("a man is riding a
    \u81ea\u884c\u8f66"). Names and single foreign words in Latin script pass.
    """

    after: ClassVar[tuple[str, ...]] = ("LimitLength", "CleanDebris")
    max_share: float = 0.5  # of the letters that may be of another script, all of them text in the picture

    def __call__(self, record: Record) -> Record | Kept:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: Level) -> Caption | Drop | Retry:
        text = caption.text
        if not _WORD.search(text):
            return lost(caption, "no_language", text[:40])
        if not text.isascii() and _BEYOND_LATIN.search(text):
            masked = mask_quotes(text)
            if slip := slipped(masked):
                return lost(caption, "wrong_language", f"{slip[:40]!r} is not Latin")
            if (share := other_script(masked)) > self.max_share:
                return lost(caption, "wrong_language", f"{share:.0%} of the letters are not Latin")
        if text.isascii() and _FOREIGN.isdisjoint(words_of(text)):
            return caption
        for sentence, masked in split_with_mask(text):
            if not (masked.isascii() and _FOREIGN.isdisjoint(masked.lower().split())) and is_foreign(masked):
                return lost(caption, "wrong_language", sentence[:80])
        return caption


def slipped(text: str) -> str:
    """The first words of another script that are not said to be shown; single Greek letters are signs."""
    for run in _RUN.finditer(text):
        scripts = {unicodedata.name(char, "").split(" ")[0] for char in _BEYOND_LATIN.findall(run[0])}
        if scripts <= {"LATIN", "MODIFIER"} or (scripts == {"GREEK"} and max(map(len, run[0].split())) == 1):
            continue
        before = text[max(0, run.start() - 60) : run.start()]
        if not _SHOWN.search(before) and not _SHOWN_AFTER.match(text, run.end()):
            return run[0].strip()
    return ""


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
            accented += not word.isascii() and word == low and low not in _LOANS
        named = word[0].isupper() or (named and low in _PARTICLES)
    return foreign + accented > english and (foreign > 1 or (foreign > 0 and accented > 0) or accented > 2)
