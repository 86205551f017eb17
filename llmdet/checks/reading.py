"""What a caption says about the things that a vocabulary has names for: the base of all checks.

A reading is made once per caption and vocabulary, and shared by the checks. It errs on the side of silence: a word that
is part of another noun ("dog house"), denied ("no dog"), compared ("like a dog"), depicted ("a statue of a dog") or
quoted claims nothing.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmdet.checks.names import Fit, Names, names_index
from llmdet.lemmas import singular
from llmdet.nouns import COLOURS, count_word, is_invariant, is_plural
from llmdet.phrases import COUNTED, Parser, ParserName, Phrase
from llmdet.record import Record, Region, Span
from llmdet.tagging import Token

LONGEST = 10_000  # characters of a caption that is read (115 words have 700): a longer one claims nothing

_DENY = frozenset("no without nor neither never lacks lacking lack absent minus non".split())
_LIKE = frozenset("like resembling resembles resemble mimicking".split())
_AS = frozenset("dressed shaped used serves serving acts acting disguised".split())
_DEPICTED = frozenset(
    "statue painting drawing sculpture figurine figure logo poster sticker illustration silhouette mural cartoon "
    "cutout toy model replica mask costume sign symbol decal emblem outline sketch carving ornament shape form "
    "depiction print pattern".split()
)
_UNREAL = frozenset(
    "toy stuffed plush model fake inflatable ceramic cartoon animated painted carved miniature paper imaginary "
    "porcelain virtual knitted crocheted origami sculpted embroidered printed".split()
)
_GONE = re.compile(
    r"\s*(?:(?:is|are|was|were)\s+)?(?:not\s+(?:visible|present|there|"
    r"in(?!\s+(?:the|its)\s+(?:upper|lower|top|bottom|left|right|middle|cent|same)))|absent|missing|nowhere)\b"
)
_QUOTED = re.compile(r"[\"\u201c\u201d][^\"\u201c\u201d]{1,200}[\"\u201c\u201d]")
_ENDS = frozenset(".!?;:")
_BREAKS = frozenset(["but", "while", "whereas", "although", "though", ";", ":", ".", "!", "?"])
_ONE_OF = frozenset("a an one this that each every another".split())
NUMBERS = {count_word(number): number for number in range(1, 13)}
_NEAR_WORDS = frozenset(
    "away here now there beside behind by next near under above below in on at of to from between before after".split()
)
# Words that taggers take for nouns where a sentence begins with them.
_COMPARED = frozenset("close closer nearer further farther bright vivid vibrant pale deep dark glossy shiny".split())
_PICTURES = frozenset("image picture photo photograph scene".split())
_SUBJECTS = frozenset("i we you they he she it who would 'd".split())
_LINKING = frozenset("looks look looked looking seems sounds feels felt is are was were 's something".split())
_ARTICLES = frozenset("a an the its their his her".split())
_PIECES = frozenset("pairs pieces slices bunches stalks heads".split())
_NO_NOUNS = frozenset(
    "nearby too here there alone together outside inside outdoors indoors afar apart away opposite still "
    "looks appears seems stands sits lies rests hangs remains stays wears sports boasts features displays exhibits "
    "visible present contrasts dominates presents reveals gleams glows shines appear seem remain exist become somebody "
    "someone everybody everyone "
    "hangs leans occupies turns comes makes keeps takes holds gets fills belongs extends peeks emerges perches hovers "
    "floats lurks lives looms rises towers blends flanks falls "
    "sooner earlier later "
    "consists consist turn look come go get keep share take make fit fill occupy feature join".split()
)
_NOUNS_IN_ING = frozenset(
    "building ceiling railing painting clothing drawing wing ring string swing king crossing opening awning landing "
    "lighting topping frosting icing stuffing filling dressing seasoning covering parking housing spring evening "
    "morning bedding flooring siding sling sibling pudding wedding paving molding".split()
)
_MEASURES = frozenset("color colour hue shade count number total tally population quantity".split())  # "the dog count"
_DETERMINERS = _ARTICLES | frozenset("this that these those it them him each every some".split())
_NOUNS_IN_ED = frozenset("bed shed sled weed seed reed moped steed thoroughbred".split())


@dataclass(frozen=True, slots=True)
class Noun:
    """One noun phrase of a caption, and the names that its head can mean."""

    span: Span  # of the words that say the name; of the head for any other noun
    whole: Span  # of the phrase
    meant: Mapping[str, Fit]  # empty for a noun that is none of the names
    claims: bool  # says that such a thing is in the picture
    number: int | None  # as said: 3 for "three dogs", 1 for "one dog"; None for "a dog" and "dogs"
    plural: bool
    words: tuple[str, ...]  # of the phrase, lower case
    modifiers: tuple[str, ...]  # before the name: "brown"
    determiner: str
    tokens: tuple[int, int]  # of the phrase
    sentence: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A caption with its nouns in the order of the text."""

    text: str
    tokens: tuple[Token, ...]
    nouns: tuple[Noun, ...]
    words: tuple[str, ...]  # the tokens in lower case
    sentences: tuple[int, ...]  # of each token

    @property
    def claims(self) -> list[Noun]:
        """Nouns that say that a thing of the vocabulary is there."""
        return [noun for noun in self.nouns if noun.claims]

    def nouns_from(self, token: int, count: int) -> tuple[Noun, ...]:
        """Nouns that begin at a token or in the `count` tokens behind it."""
        first = bisect.bisect_left(self.nouns, token, key=lambda noun: noun.tokens[0])
        return self.nouns[first : bisect.bisect_left(self.nouns, token + count, key=lambda noun: noun.tokens[0])]


@dataclass(frozen=True, slots=True)
class Known:
    """What a record knows of its picture, by name."""

    present: Mapping[str, tuple[Region, ...]]  # names with a region
    absent: frozenset[str]  # names that are known to have no thing in the picture
    exhaustive: bool  # every thing of a name in `present` has its box

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self.present, *self.absent}))


def known(record: Record) -> Known:
    """The vocabulary of a detection record; that of sentences is empty, since what they leave out may well be there."""
    if record.kind != "detection":
        return Known({}, frozenset(record.text[a:b] for a, b in record.negatives), False)
    present: dict[str, tuple[Region, ...]] = {}
    for region in record.regions:
        for phrase in region.phrases:
            present[phrase] = (*present.get(phrase, ()), region)
    absent = frozenset(name for a, b in record.negatives if (name := record.text[a:b]) not in present)
    return Known(present, absent, record.exhaustive)


@functools.lru_cache(maxsize=256)
def read(text: str, names: tuple[str, ...], parser: ParserName) -> Reading:
    """The nouns of a caption, matched with a vocabulary; a reading of no text for a caption over `LONGEST`."""
    if len(text) > LONGEST:
        return Reading("", (), (), (), ())
    tokens = Parser(parser).parse(text)
    lower = tuple([token.text.lower() for token in tokens.tokens])
    index = names_index(names)
    quoted = [found.span() for found in _QUOTED.finditer(text)] if '"' in text or "\u201c" in text else []
    sentences = _sentence_numbers(lower)
    nouns: list[Noun] = []
    taken: set[int] = set()  # tokens of phrases
    for phrase in tokens.phrases:
        if len(phrase.words) == 2 and phrase.words[0] == "one" and phrase.head.endswith("s"):
            continue  # "one sees" is taken for a noun
        if len(phrase.words) == 1 and (lower[phrase.tokens[0] - 1] in _SUBJECTS or phrase.words[0] in _COMPARED):
            continue  # "we move", "closer to the top"
        if _opens_with_participle(tokens.tokens, phrase) or not phrase.words[0][0].isalnum():
            continue  # also a dash that was taken for a name
        if _commands(tokens.tokens, phrase):
            continue
        taken.update(range(*phrase.tokens))
        nouns.append(_noun(phrase, tokens.tokens, lower, index, sentences[phrase.tokens[0]]))
    if more := _untagged(tokens.tokens, lower, index, taken, sentences):
        longer = {at for noun in more for at in range(*noun.tokens)}  # "the baseball | gloves"
        nouns = [*[noun for noun in nouns if longer.isdisjoint(range(*noun.tokens))], *more]
    nouns.sort(key=lambda noun: noun.span)
    return Reading(
        text, tokens.tokens, tuple(_claiming(text, tokens.tokens, lower, nouns, quoted)), lower, tuple(sentences)
    )


def _opens_with_participle(tokens: Sequence[Token], phrase: Phrase) -> bool:
    """Whether a sentence begins with "Seen to" or "Placed on", whose capital makes it look like a name."""
    first, stop = phrase.tokens
    if stop - first == 1 and stop < len(tokens) and tokens[first].text in ("Shown", "Seen", "Featured", "Pictured"):
        return tokens[stop].text in ("is", "are", "here")
    if (
        stop - first != 1
        or tokens[first].tag not in ("NN", "NNP")
        or not tokens[first].text.lower().endswith(("ed", "en", "ing"))
    ):
        return False
    if stop == len(tokens) or (first and tokens[first - 1].text not in _ENDS):
        return False
    return tokens[stop].tag in ("IN", "TO") or tokens[stop].text in COLOURS


def _commands(tokens: Sequence[Token], phrase: Phrase) -> bool:
    """Whether a sentence begins with "Skip the" or "Draw a", whose verb looks like a name."""
    first, stop = phrase.tokens
    if stop - first != 1 or stop == len(tokens) or phrase.plural or (first and tokens[first - 1].text not in _ENDS):
        return False
    return tokens[stop].text in ("the", "a", "an") and tokens[first].text[0].isupper()


def _sentence_numbers(lower: Sequence[str]) -> list[int]:
    numbers, now = [], 0
    for word in lower:
        numbers.append(now)
        now += word in _ENDS
    return numbers


def _noun(phrase: Phrase, tokens: Sequence[Token], lower: Sequence[str], index: Names, sentence: int) -> Noun:
    """A phrase whose head, with the words before it, is looked up.

    The head is a verb where "a kite rests" or "two dogs share" was taken for one noun phrase.
    """
    first = phrase.tokens[0]
    head, stop, length, meant = _head(phrase, tokens, lower, index)
    at_end = tokens[head].span == phrase.head_span
    begin = head - max(length, 1) + 1
    word = lower[head]
    return Noun(
        (tokens[begin].span[0], tokens[head].span[1]),
        (min(phrase.span[0], tokens[begin].span[0]), tokens[stop - 1].span[1]),
        meant,
        bool(meant),
        _number(phrase, word, lower[_lead(tokens, begin)] if begin < first else ""),
        (phrase.plural and at_end)
        or is_plural(word)
        or _of_name(word, length, meant)
        or singular(word) != word
        or not _PIECES.isdisjoint(phrase.words),
        tuple(lower[first:stop]),
        tuple([w for w in phrase.modifiers if w not in lower[begin : head + 1] and w not in lower[stop : stop + 1]]),
        phrase.determiner,
        (min(first, begin), stop),
        sentence,
    )


def _head(
    phrase: Phrase, tokens: Sequence[Token], lower: Sequence[str], index: Names
) -> tuple[int, int, int, Mapping[str, Fit]]:
    """The token of the head, where the phrase stops, how many words the name has, and what it can mean."""
    first, stop = phrase.tokens
    end = head = next(i for i in range(stop - 1, first - 1, -1) if tokens[i].span == phrase.head_span)
    length, meant = index.at(_words(lower, head))
    part = bool(meant) and all(fit == "part" for fit in meant.values())
    if part and head > first and _ends(lower, head - 1, phrase) and index.at(_words(lower, head - 1))[0]:
        meant = {}  # "four sinks face the camera"
    while not meant and head > first:
        head -= 1
        length, meant = index.at(_words(lower, head))
        if meant and not _ends(lower, head, phrase):
            meant = {}
            break
    if meant:
        stop = stop if head == end else head + 1
    else:
        head = end
    if stop < len(lower) and tokens[stop].tag in ("JJ", "NN", "VB", "VBP"):
        longer, other = index.at(_words(lower, stop))
        if other and (not meant or any(fit != "part" for fit in other.values())):
            head, stop, length, meant = stop, stop + 1, longer, other  # "a baby | elephant"
    return head, stop, length, meant


def _of_name(word: str, length: int, meant: Mapping[str, Fit]) -> bool:
    """Whether a word is the plural of a name's last word that is no plural elsewhere: "wine glasses"."""
    return length > 1 and word.endswith("ses") and all(not name.endswith(word) for name in meant)


def _lead(tokens: Sequence[Token], begin: int) -> int:
    """The token before a name and its adjectives; 0 at the begin of a text."""
    lead = begin - 1
    while lead > 0 and tokens[lead].tag in ("JJ", "VBN"):
        lead -= 1
    return max(0, lead)


def _number(phrase: Phrase, head: str, before: str) -> int | None:
    """How many the words say; `before` stands before a name that the tagger split: "two stop | signs"."""
    if before in NUMBERS and NUMBERS[before] > 1:
        return NUMBERS[before]
    if phrase.count == 1 or (phrase.count and "pair" in phrase.words and singular(head) == head):
        return 1 if "one" in phrase.words else None  # "a dog"; "a pair of skis"
    if phrase.count is None:  # a capital made the tagger see a name: "Six trucks"
        counted = phrase.words[0] == "a" and phrase.words[2:3] == ("of",) and (head.endswith("s") or is_invariant(head))
        alone = phrase.words[1:2] == ("pair",) and singular(head) == head  # "a pair of skis"
        group = COUNTED.get(phrase.words[1]) if counted and not alone else None
        return group or next((NUMBERS[word] for word in phrase.words if word in NUMBERS), None)
    return phrase.count


def _words(lower: Sequence[str], head: int) -> tuple[str, ...]:
    return (*lower[max(0, head - 3) : head], singular(lower[head]))


def _ends(lower: Sequence[str], head: int, phrase: Phrase) -> bool:
    """Whether a noun phrase really ends with this word: what follows is no noun, whatever the tagger says.

    "A kite rests", "two dogs share", "skis nearby", "a remote stayed".
    """
    word, after = lower[head], lower[head + 1]
    if after.endswith("s") and lower[head + 2 : head + 3] and lower[head + 2] in _ARTICLES:
        return True  # "the bus sports a"
    if after in COLOURS or after in _MEASURES or not after[0].isalnum():
        return True  # "somebody painted the vase blue"
    if after in _NO_NOUNS or (after.endswith("ed") and after not in _NOUNS_IN_ED):
        return True
    if after.endswith("ing") and after not in _NOUNS_IN_ING:
        return True  # "an umbrella standing"
    behind = lower[head + 2] if head + 2 < len(lower) else ""
    if (
        behind in _DETERMINERS
        or behind == "out"
        or behind in NUMBERS
        or behind.isdecimal()
        or (after in ("right", "left") and behind in _NEAR_WORDS)
    ):
        return True  # "a truck share the", "a horse right beside"
    if (phrase.determiner in _ONE_OF or "one" in phrase.words) and after.endswith("s") and singular(after) != after:
        return True
    several = singular(word) != word or (phrase.count or 0) > 1  # "five sheep fill"
    return several and singular(after) == after


def _untagged(
    tokens: Sequence[Token], lower: Sequence[str], index: Names, taken: set[int], sentences: Sequence[int]
) -> list[Noun]:
    """Names after an article or number that the tagger took for another kind of word: "an orange", "a remote"."""
    found = []
    for at in range(1, len(tokens)):
        if at in taken:
            continue
        length, meant = index.at(_words(lower, at))
        begin = at - length + 1
        first = _lead(tokens, begin) if begin > 0 else 0
        if meant and begin > 0 and (tokens[first].tag in ("DT", "CD", "PRP$") or lower[first] == "of"):
            word, lead = lower[at], lower[first]
            span = (tokens[begin].span[0], tokens[at].span[1])
            whole, many = (tokens[first].span[0], span[1]), singular(word) != word
            words, before = tuple(lower[first : at + 1]), tuple(lower[first + 1 : begin])
            said = NUMBERS.get(lead) or (int(lead) if lead.isdecimal() and len(lead) < 4 else 1)
            if lead == "of" and first > 1 and lower[first - 2] == "a":
                said = COUNTED.get(lower[first - 1], said)
            number = said if said > 1 else None
            found.append(
                Noun(span, whole, meant, True, number, many, words, before, lead, (first, at + 1), sentences[at])
            )
    return found


def _claiming(
    text: str, tokens: Sequence[Token], lower: Sequence[str], nouns: Sequence[Noun], quoted: Sequence[Span]
) -> list[Noun]:
    """The nouns, with `claims` taken from those that only speak of a thing."""
    judged: list[Noun] = []
    for noun in nouns:
        aside = noun.claims and (
            any(a <= noun.span[0] < b for a, b in quoted)
            or not _UNREAL.isdisjoint(noun.modifiers)
            or bool(_GONE.match(text, noun.span[1]))
            or (_denied(lower, noun, judged) and not _seems(tokens, noun))
            or _depicted(lower, noun)
            or _imagined(lower, noun)
        )
        judged.append(replace(noun, claims=False) if aside else noun)
    return judged


def _seems(tokens: Sequence[Token], noun: Noun) -> bool:
    """Whether it is "it looks like two dogs are there", which only looks like a comparison."""
    first, end = noun.tokens
    if first < 2 or tokens[first - 1].text != "like":
        return False
    opens = first == 2 or tokens[first - 3].text in _ENDS
    if opens and (noun.number or 0) > 1 and tokens[first - 2].text in ("Looks", "Seems"):
        return True  # "Looks like two dogs to me"
    if tokens[first - 2].text not in ("looks", "seems", "feels"):
        return False
    return end < len(tokens) and tokens[end].tag in ("VBZ", "VBP", "VBD")


def _denied(lower: Sequence[str], noun: Noun, before: Sequence[Noun]) -> bool:
    """Whether "no", "without" or "like" reaches the noun: at once, or through "no dogs, cats or birds"."""
    first = noun.tokens[0]
    if noun.words[:1] and noun.words[0] in _DENY:
        return True
    near = list(lower[max(0, first - 3) : first])
    for place in range(len(near) - 1, -1, -1):
        word = near[place]
        if word in _BREAKS or word == ",":
            break
        bound = word in ("no", "not") and near[place + 1 : place + 2] in (["more"], ["fewer"], ["less"])
        bound |= word == "without" and _not_without(lower, first - len(near) + place)
        others = near[:place]  # "I really like my dog", but not "it looks like a dog"
        liked = word in _LIKE and not _SUBJECTS.isdisjoint(others) and _LINKING.isdisjoint(others)
        if (word in _DENY and not bound) or (word in _LIKE and place >= len(near) - 2 and not liked):
            return True
        if word == "as" and place and near[place - 1] in _AS:
            return True
    listed = first > 0 and lower[first - 1] in ("or", "nor", ",")
    last = before[-1] if before else None
    return bool(listed and last and last.meant and not last.claims and first - last.tokens[1] <= 2)


def _not_without(lower: Sequence[str], at: int) -> bool:
    """Whether a "without" is denied itself: "would not be complete without a dog"."""
    for word in reversed(lower[max(0, at - 4) : at]):
        if word == "," or word in _BREAKS:
            return False
        if word in ("not", "never", "n't"):
            return True
    return False


def _imagined(lower: Sequence[str], noun: Noun) -> bool:
    """Whether it is somebody who looks on: "a person looking at this image", "anybody would notice"."""
    if "person" not in noun.meant:
        return False
    behind = lower[noun.tokens[1] : noun.tokens[1] + 4]
    looks = behind[:1] and behind[0] in ("looking", "viewing", "observing", "seeing")
    return bool(behind[:1] == ("would",) or (looks and not _PICTURES.isdisjoint(behind)))


def _depicted(lower: Sequence[str], noun: Noun) -> bool:
    first = noun.tokens[0]
    return first > 1 and lower[first - 1] == "of" and singular(lower[first - 2]) in _DEPICTED
