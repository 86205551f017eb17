"""Words of an English text with their places and Penn Treebank tags.

Two taggers. `nltk` is the averaged perceptron of nltk, evaluated by table lookups: the same tags, many times faster; it
needs nltk data, which is never fetched unless somebody asks nltk for it. `pattern` looks words up in the lexicon that
textblob carries (Brill's, 94,000 words) and mends the result by context; it needs no data.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from llmdet.errors import MissingError, SettingError
from llmdet.record import Span

ParserName = Literal["nltk", "pattern"]
ParserChoice = Literal["auto", "nltk", "pattern"]

NLTK_DATA = ("punkt_tab", "averaged_perceptron_tagger_eng", "wordnet")
_NLTK_PLACES = {"punkt_tab": "tokenizers", "averaged_perceptron_tagger_eng": "taggers"}  # the rest: corpora

_TOKEN = re.compile(
    r"(?:[^\W\d_]\.){2,}"  # U.S.
    r"|\b(?:[Mm]rs?|[Mm]s|[Dd]r|[Ss]t|vs|etc)\."
    r"|[^\W_]+(?=n['\u2019]t\b)|n['\u2019]t\b"  # is|n't
    r"|['\u2019](?:s|re|ve|ll|m|d|S)\b(?!['\u2019])"  # woman|'s
    r"|\d+(?:[.,:]\d+)+"
    r"|[^\W_](?:[\w-]|(?<=o)['\u2019](?=c)|\.(?=[^\W_]))*[\w-]|\w"  # T-shirt, o'clock, example.com
    r"|\.{2,}|--|\S"
)
_AUXILIARIES = frozenset(
    "is are was were be been being has have had does do did can could will would may might".split()
)
_MAX_ROWS = 100_000  # of a tagger's tables, 180 bytes each; a data set has fewer words
# Captions are tagged whole: without this, "A" behind a full stop is taken for a name.
_OPENERS = (
    "A An The This These Those Both All Each Every Some Several One Two Three Four Five Six Seven Eight Nine Ten "
    "Eleven Twelve"
).split()
_QUOTES = {'"': "''", "\u201c": "``", "\u201d": "''", "\u2018": "`", "\u2019": "'"}
_SEEN_AS = _QUOTES | {word: word.lower() for word in _OPENERS}


@dataclass(frozen=True, slots=True)
class Token:
    """One word or mark."""

    span: Span
    text: str
    tag: str  # Penn Treebank


class Tagger(Protocol):
    """Gives each word of a text its tag."""

    def __call__(self, words: Sequence[str]) -> list[str]: ...


def resolve_parser(choice: ParserChoice = "auto", data: Sequence[str] = NLTK_DATA) -> ParserName:
    """The parser to use here: `auto` is nltk where its data is there. Raises MissingError for nltk without data.

    `data` are the packages of nltk's that must be there.
    """
    if choice not in ("auto", "nltk", "pattern"):
        raise SettingError(f"parser must be auto, nltk or pattern; got {choice!r}")
    if choice == "pattern":
        return "pattern"
    missing = missing_nltk_data(data)
    if not missing:
        return "nltk"
    if choice == "nltk":
        raise MissingError(
            f"parser nltk needs nltk's data {', '.join(missing)}, not found in {_searched()} or below; "
            f"run: python -m nltk.downloader {' '.join(missing)}; or use parser pattern, which needs none"
        )
    return "pattern"


def missing_nltk_data(names: Sequence[str] = NLTK_DATA) -> list[str]:
    """Which of nltk's data packages are not on this machine; nothing is downloaded."""
    import nltk.data

    missing = []
    for name in names:
        place = f"{_NLTK_PLACES.get(name, 'corpora')}/{name}"
        try:
            nltk.data.find(place)
        except LookupError:
            try:
                nltk.data.find(f"{place}.zip")
            except LookupError:
                missing.append(name)
    return missing


def _searched() -> str:
    import nltk.data

    return ", ".join(map(str, nltk.data.path[:3]))


def split_words(text: str) -> list[Span]:
    """Places of words and marks, as the Penn Treebank splits them (`is|n't`, `woman|'s`), in linear time."""
    return [found.span() for found in _TOKEN.finditer(text)]


def tag_text(text: str, parser: ParserName) -> list[Token]:
    """The tokens of a text. Raises MissingError where the parser's data is not there."""
    spans = split_words(text)
    words = [text[start:end] for start, end in spans]
    tags = tagger(parser)([_SEEN_AS.get(word, word) for word in words])
    return [Token(span, word, tag) for span, word, tag in zip(spans, words, tags, strict=True)]


@functools.lru_cache(maxsize=2)
def tagger(parser: ParserName) -> Tagger:
    """The tagger of a parser, loaded once per process."""
    if parser == "pattern":
        return PatternTagger()
    resolve_parser("nltk")
    return PerceptronTagger()


# --- nltk ----------------------------------------------------------------------------------------------------------


class PerceptronTagger:
    """nltk's averaged perceptron as tables of whole numbers.

    A tag's score is a sum of weights that depend on the word and its neighbours, and of weights that depend on the two
    tags before. The first are added up once per neighbour and for all words of a text together. Weights have three
    decimals, so that thousandths are whole numbers and ties are exact; nltk gives a tie to the last label.
    """

    def __init__(self) -> None:
        from nltk.tag.perceptron import PerceptronTagger as Source

        source = Source(load=True)
        self._weights: dict[str, dict[str, float]] = source.model.weights
        self._known: dict[str, str] = source.tagdict
        self._labels: list[str] = sorted(source.classes, reverse=True)
        self._index = {label: place for place, label in enumerate(self._labels)}
        self._places: dict[tuple[str, str, str], int] = {}
        self._table = np.zeros((1024, len(self._labels)), np.int32)  # its first len(_places) rows are in use
        self._history: dict[tuple[str, str], NDArray[np.int32]] = {}
        self._paired: dict[tuple[str, str], NDArray[np.int32]] = {}

    def __call__(self, words: Sequence[str]) -> list[str]:
        known = self._known
        low = ["-START-", "-START2-", *map(_shape, words), "-END-", "-END2-"]
        static = self._static(words, low) if words else None
        tags: list[str] = []
        one, two = "-START-", "-START2-"
        for place, word in enumerate(words):
            tag = known.get(word)
            if tag is None:
                assert static is not None
                scores = static[place] + self._tags_before(one, two)
                scores += self._with_tag(one, low[place + 2])
                tag = self._labels[scores.argmax()]
            tags.append(tag)
            two, one = one, tag
        return tags

    def _static(self, words: Sequence[str], low: Sequence[str]) -> NDArray[np.int32]:
        """Scores from words alone, (n, labels)."""
        if len(self._places) > _MAX_ROWS:
            self._places.clear()
        # Five looks per word: itself, one and two to either side.
        indices = [
            (
                self._place(("0", low[i + 2], word[-3:] + "\0" + word[0])),
                self._place(("-1", low[i + 1], "")),
                self._place(("-2", low[i], "")),
                self._place(("+1", low[i + 3], "")),
                self._place(("+2", low[i + 4], "")),
            )
            for i, word in enumerate(words)
        ]
        return np.asarray(self._table[np.array(indices)].sum(axis=1, dtype=np.int32))

    def _place(self, key: tuple[str, str, str]) -> int:
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = len(self._places)
            if place == len(self._table):
                self._table = np.concatenate([self._table, np.zeros_like(self._table)])
            self._table[place] = self._sum(_features(*key))
        return place

    def _sum(self, features: Sequence[str]) -> NDArray[np.int32]:
        row = np.zeros(len(self._labels), np.int32)
        for feature in features:
            for label, weight in self._weights.get(feature, {}).items():
                row[self._index[label]] += round(weight * 1000)
        return row

    def _tags_before(self, one: str, two: str) -> NDArray[np.int32]:
        row = self._history.get((one, two))
        if row is None:
            row = self._sum([f"i-1 tag {one}", f"i-2 tag {two}", f"i tag+i-2 tag {one} {two}"])
            self._history[one, two] = row
        return row

    def _with_tag(self, one: str, word: str) -> NDArray[np.int32]:
        row = self._paired.get((one, word))
        if row is None:
            if len(self._paired) > _MAX_ROWS:
                self._paired.clear()
            row = self._paired[one, word] = self._sum([f"i-1 tag+i word {one} {word}"])
        return row


def _features(look: str, word: str, form: str) -> list[str]:
    """The names that nltk's model has for what it sees of a word or a neighbour."""
    if look == "0":
        suffix, first = form.split("\0", 1)
        return ["bias", f"i suffix {suffix}", f"i pref1 {first}", f"i word {word}"]
    if look in ("-1", "+1"):
        return [f"i{look} word {word}", f"i{look} suffix {word[-3:]}"]
    return [f"i{look} word {word}"]


def _shape(word: str) -> str:
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    if word.isdigit() and len(word) == 4:
        return "!YEAR"
    return "!DIGITS" if word[0].isdigit() else word.lower()


# --- pattern -------------------------------------------------------------------------------------------------------


class PatternTagger:
    """A word's most frequent tag, from textblob's lexicon, mended by the word before."""

    def __init__(self) -> None:
        from textblob._text import find_tags
        from textblob.en import lexicon

        len(lexicon)  # it loads itself when it is first read
        self._lexicon = lexicon
        self._find = find_tags
        self._alone = functools.lru_cache(maxsize=65536)(self._look_up)

    def __call__(self, words: Sequence[str]) -> list[str]:
        tags = [self._alone(word) for word in words]
        for place, word in enumerate(words):
            tags[place] = self._mended(word.lower(), tags, place)
        return tags

    def _look_up(self, word: str) -> str:
        if word[0].isdigit():
            return "CD"
        if not word[0].isalnum():
            return word if len(word) == 1 else ":"
        for form in (word.lower(), word):
            if form in self._lexicon:
                return str(self._lexicon[form])
        return str(self._find([word], lexicon=self._lexicon)[0][1])

    def _mended(self, word: str, tags: list[str], place: int) -> str:
        """A word that can be a verb is a noun right after an article, unless a noun follows."""
        tag = tags[place]
        before = tags[place - 1] if place else ""
        after = tags[place + 1] if place + 1 < len(tags) else ""
        if (
            tag in ("VB", "VBP", "VBZ")
            and word not in _AUXILIARIES
            and before in ("DT", "PRP$", "JJ", "CD")
            and not after.startswith("NN")
        ):
            return "NNS" if tag == "VBZ" else "NN"
        return tag
