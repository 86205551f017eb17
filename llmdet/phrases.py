"""Noun phrases of a text, with their exact places in it.

    >>> Parser("pattern").phrases("Two dogs sit near a red ball.")[0].lemma
    'dog'

Three grammars:
    default   ours, for long captions: "black and white dogs", "his hat", "a group of people" (whose head is people)
    glip      that of GLIP, which MM-Grounding-DINO and LLMDet use for sentences without given names: an article,
              adjectives, nouns, in the lower-cased text
    subject   LLMDet's for referring expressions: the first article, adjectives and one noun that is no stop word
With parser nltk the last two see the words that nltk's own tokenizers give.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llmdet.lemmas import singular
from llmdet.nouns import COLOURS
from llmdet.record import Span
from llmdet.tagging import ParserChoice, ParserName, Token, resolve_parser, tag_text, tagger

__all__ = ["Grammar", "Parsed", "Parser", "ParserChoice", "ParserName", "Phrase", "resolve_parser"]

Grammar = Literal["default", "glip", "subject"]

_NUMBERS = {
    word: number
    for number, word in enumerate("one two three four five six seven eight nine ten eleven twelve".split(), start=1)
} | {"both": 2}
# "a group of people" is about people, "a bowl of fruit" about a bowl.
_PARTS = frozenset("piece pieces slice slices kind type sort set sets variety number lot lots series row rows".split())
_GROUPS = frozenset(
    "group groups crowd bunch pile stack team herd flock line collection gathering trio couple pair pairs dozen "
    "dozens hundreds quartet quintet".split()
)
COUNTED = {"couple": 2, "pair": 2, "trio": 3, "quartet": 4, "quintet": 5, "dozen": 12}
_HOLDERS = frozenset("bowl plate glass cup bottle can box basket bag tray mug pot jar bucket vase".split())
_STOPS = frozenset("i me my we you he him she her it they them what which who this that these those am is t s".split())
# A verb that the tagger takes for a noun: "A man walks".
_VERBS = (
    "walk stand sit play ride jump run watch look climb work pose smile perform talk swim dance eat cook wait rest "
    "prepare hold push pull throw catch kick hit"
).split()
_VERBS_OF_ONE = frozenset(word + ("es" if word.endswith("ch") else "s") for word in _VERBS)
_VERBS_OF_MANY = frozenset(_VERBS)
_ACTS = frozenset(word[:-1] + "ing" if word.endswith("e") else word + "ing" for word in _VERBS) | {
    "sitting", "running", "swimming", "wearing", "hitting", "standing", "jumping", "crossing"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Phrase:
    """One noun phrase."""

    span: Span
    text: str  # as it stands
    head: str  # the noun that it is about, lower case: "dogs"
    head_span: Span
    lemma: str  # of the head: "dog"
    plural: bool  # names several things
    count: int | None  # as said: 1 for "a dog", 2 for "two dogs", None for "the dog", "dogs", "several dogs"
    words: tuple[str, ...]  # all, lower case
    determiner: str  # "a", "the", "another", "his", ...; empty for none
    modifiers: tuple[str, ...]  # words between determiner or number and the head, lower case
    tokens: tuple[int, int]  # its first token, and the one after its last


@dataclass(frozen=True, slots=True)
class Parsed:
    """A text with its tokens and noun phrases, in the order of the text."""

    text: str
    tokens: tuple[Token, ...]
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True)
class Parser:
    """Finds noun phrases. `name` is what `resolve_parser` gave, once for a run."""

    name: ParserName

    def parse(self, text: str, grammar: Grammar = "default") -> Parsed:
        """Tokens and noun phrases, in linear time. Raises MissingError where the parser's data is not there."""
        if grammar == "default":
            tokens = tag_text(text, self.name)
            return Parsed(text, tuple(tokens), tuple(_default_phrases(text, tokens)))
        tokens = self._as_upstream(text, lower=grammar == "glip")
        codes = "".join([_code(token) for token in tokens])
        phrases = [_phrase(text, tokens, codes, *match.span()) for match in _PATTERNS[grammar].finditer(codes)]
        if grammar == "subject":
            phrases = [phrase for phrase in phrases if phrase.text.lower() not in self._stops()][:1]
        return Parsed(text, tuple(tokens), tuple(phrases))

    def phrases(self, text: str, grammar: Grammar = "default") -> tuple[Phrase, ...]:
        """The noun phrases alone."""
        return self.parse(text, grammar).phrases

    def _as_upstream(self, text: str, lower: bool) -> list[Token]:
        # Letters whose lower case has another length stay, so that places hold.
        seen = "".join([c.lower() if len(c.lower()) == 1 else c for c in text]) if lower else text
        if self.name == "pattern":
            return _with_nouns(tag_text(seen, self.name))
        found = _treebank(seen)
        tags = tagger(self.name)([word for _, word in found])
        return [Token(span, text[slice(*span)], tag) for (span, _), tag in zip(found, tags, strict=True)]

    def _stops(self) -> frozenset[str]:
        return _nltk_stops() if self.name == "nltk" else _STOPS


def _with_nouns(tokens: list[Token]) -> list[Token]:
    """An adjective after an article, with no noun to come, is a noun: "a remote in the picture"."""
    tags = ["", *(token.tag for token in tokens), ""]
    return [
        replace(token, tag="NN") if token.tag == "JJ" and before == "DT" and after in ("IN", ".", "") else token
        for before, token, after in zip(tags, tokens, tags[2:], strict=False)
    ]


@functools.lru_cache(maxsize=1)
def _nltk_stops() -> frozenset[str]:
    resolve_parser("nltk", ("stopwords",))
    from nltk.corpus import stopwords

    return frozenset(stopwords.words("english"))


def _treebank(text: str) -> list[tuple[Span, str]]:
    """The words of nltk's `word_tokenize` and their places: sentences by Punkt, then its Treebank tokenizer."""
    from nltk.tokenize import NLTKWordTokenizer, PunktTokenizer

    found = []
    for start, end in PunktTokenizer("english").span_tokenize(text):
        at = start
        for word in NLTKWordTokenizer().tokenize(text[start:end]):
            # Quotation marks come out as two characters, whatever they were.
            forms = ('"', "''", "``") if word in ("``", "''") else (word,)
            place, form = min((p, f) for f in forms if (p := text.find(f, at, end)) >= 0)
            at = place + len(form)
            found.append(((place, at), word))
    return found


# --- grammar -------------------------------------------------------------------------------------------------------

# One letter a token, so that a grammar is an ordinary regular expression.
_CODES = {
    "DT": "D", "PDT": "E", "PRP$": "P", "WP$": "P", "CD": "C", "JJ": "J", "JJR": "K", "JJS": "K", "VBN": "V",
    "VBG": "G", "NN": "N", "NNS": "O", "NNP": "M", "NNPS": "M", "CC": "&", ",": ",", "RB": "R",
}  # fmt: skip
# Words that taggers often take for something else; colours before a noun are adjectives.
_NOUNS = frozenset(
    "girl boy child man woman lady dog puppy baby toddler couch bench table swing sled leash policeman".split()
)
_COLOURS = frozenset(
    [*COLOURS, "grey", "tan", "blond", "blonde", "beige", "navy", "silver", "gold", "striped", "plaid", "checkered"]
)
_ADJECTIVE = "R?[JKV](?:,?&?(?=R?[JKV]))?"
_PATTERNS: dict[Grammar, re.Pattern[str]] = {
    # A participle in -ing belongs to a phrase only after its article: "a smiling man", but "man | wearing | hats".
    # Twenty adjectives at most, or a text of nothing else would be searched from each of its words to its end.
    "default": re.compile(
        rf"(?:[DEP]++C?+|C)(?:{_ADJECTIVE.replace('V', 'VG')}){{0,20}}+[NOM]++|(?:{_ADJECTIVE}){{0,20}}+[NOM]++"
    ),
    "glip": re.compile("D?[JK]*[NOM]+"),
    "subject": re.compile("D?J*[NO]"),
}


def _code(token: Token) -> str:
    return _CODES.get(token.tag, "x")


def _mended_code(token: Token, following: str) -> str:
    """The letter of a token in our own grammar, which knows better than the taggers in some cases."""
    code, word = _CODES.get(token.tag, "x"), token.text.lower()
    if word in _COLOURS and following in "NOMJVG&,":
        return "J"
    return "N" if word in _NOUNS and code not in "NOM" else code


def _default_phrases(text: str, tokens: Sequence[Token]) -> list[Phrase]:
    plain = "".join([_code(token) for token in tokens])
    codes = "".join([_mended_code(token, after) for token, after in zip(tokens, plain[1:] + "x", strict=False)])
    phrases: list[Phrase] = []
    for match in _PATTERNS["default"].finditer(codes):
        first, stop = match.span()
        phrase = _phrase(text, tokens, codes, first, _without_verb(tokens, codes, first, stop))
        if phrases and _is_of(tokens, phrases[-1], phrase):
            phrases[-1] = _joined(text, phrases[-1], phrase)
        else:
            phrases.append(phrase)
    return phrases


def _phrase(text: str, tokens: Sequence[Token], codes: str, first: int, stop: int) -> Phrase:
    words = tuple([token.text.lower() for token in tokens[first:stop]])
    start, end = tokens[first].span[0], tokens[stop - 1].span[1]
    lead = words[0] if codes[first] in "DEP" and len(words) > 1 else ""
    number = next((_number(tokens[i].text.lower()) for i in range(first, stop) if codes[i] == "C"), None)
    lemma = singular(words[-1])
    count = number if number is not None else 1 if lead in ("a", "an", "another") else None
    plural = lemma != words[-1] or (count or 0) > 1
    modifiers = tuple([w for w, c in zip(words[:-1], codes[first:stop], strict=False) if c not in "DEPC"])
    span, head_span = (start, end), tokens[stop - 1].span
    return Phrase(
        span, text[start:end], words[-1], head_span, lemma, plural, count, words, lead, modifiers, (first, stop)
    )


def _number(word: str) -> int | None:
    return int(word) if word.isdecimal() and len(word) < 4 else _NUMBERS.get(word)


def _without_verb(tokens: Sequence[Token], codes: str, first: int, stop: int) -> int:
    """The end of a phrase without a verb that was taken for a noun."""
    if stop - first < 2 or codes[stop - 2] not in "NOM":
        return stop
    before, last = tokens[stop - 2].text.lower(), tokens[stop - 1].text.lower()
    many = singular(before) != before
    if last in _ACTS or last in (_VERBS_OF_MANY if many else _VERBS_OF_ONE):
        return stop - 1
    return stop


def _is_of(tokens: Sequence[Token], before: Phrase, phrase: Phrase) -> bool:
    at = before.tokens[1]
    if phrase.tokens[0] != at + 1 or tokens[at].text.lower() != "of":
        return False
    return before.head in _PARTS or before.head in _GROUPS or before.lemma in _HOLDERS


def _joined(text: str, before: Phrase, phrase: Phrase) -> Phrase:
    """`a group` + `of` + `people`, as one phrase."""
    whole = replace(
        before,
        span=(before.span[0], phrase.span[1]),
        text=text[before.span[0] : phrase.span[1]],
        words=(*before.words, "of", *phrase.words),
        tokens=(before.tokens[0], phrase.tokens[1]),
    )
    if before.lemma in _HOLDERS:
        return whole
    several = phrase.plural and phrase.head != phrase.lemma
    pieces = before.head in ("piece", "pieces", "slice", "slices") or (before.head == "pairs" and not several)
    count = before.count if pieces else None
    if before.count == 1 and several:
        count = COUNTED.get(before.head, phrase.count)
    return replace(
        whole,
        head=phrase.head,
        head_span=phrase.head_span,
        lemma=phrase.lemma,
        plural=several or (count or 0) > 1,
        count=count,
        modifiers=phrase.modifiers,
    )
