"""Words of a caption that say where something is: "on the left", "in the upper right corner", "left of the dog"."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmdet.checks.reading import Reading
from llmdet.checks.things import FRAME, is_frame
from llmdet.record import Span
from llmdet.tagging import Token

# What a place is relative to: the picture, the noun that follows ("left of the dog"), the one whose side it is ("the
# dog's left", "a cat to its left"), or the other things of a list ("from left to right").
To = Literal["picture", "next", "owner", "its", "order"]

_FRAME = r"(?:image|picture|photo|photograph|frame|scene|shot|view|screen|composition|canvas|snapshot)"
_PART = (
    r"(?:side|half|part|portion|section|area|corner|edge|border|third|quarter|margin|region|quadrant|end|foreground|"
    r"background|column|strip|segment|zone|middle|cent(?:re|er))"
)
_SIDE = r"(?:left|right|top|bottom|upper|lower)"
_PLACE = re.compile(
    rf"(?P<lead>\b(?:the|this|our|your|one['\u2019]s|(?:{_FRAME}|viewer|camera|photographer|observer)['\u2019]s)\s+)?"
    rf"(?:\b(?:far|very|extreme|outer)[-\s]+)*\b(?P<one>{_SIDE})(?:[-\s]+(?P<two>{_SIDE}))?"
    rf"(?P<hand>[-\s]hand)?(?:[-\s]+(?:(?!of\b|in\b)\w+\s)?(?P<part>{_PART})\b)?\b(?!-(?!of-))"
)
_OWNED = re.compile(
    r"(?P<whose>\b(?:its|their)|['\u2019]s)\s+(?:(?:far|immediate|direct)\s+)?(?P<one>left|right)(?:-hand)?(?:\s+side)?\b"
)
_OVER = re.compile(r"(?<!the )(?<!from )(?<!and )(?<!or )\b(?P<one>above|below|beneath|underneath)(?=\s+\w)")
_END = r"(?:left|right|top|bottom)"
# "From left to right", "on the left and the right, respectively"
_ORDER = re.compile(
    rf"\b(?P<one>{_END})(?:\s+(?:side|edge|end))?(?:\s+of\s+(?:the|this)\s+{_FRAME})?\s+(?:over\s+)?to\s+(?:the\s+)?"
    rf"(?P<two>{_END})\b|"
    rf"\b(?P<first>{_END})(?:\s+side)?\s+and\s+(?:(?:on|at|to)\s+)?(?:the\s+)?(?P<last>{_END})(?:\s+(?:sides?|edges?|parts?|halves|corners?))?"
    rf"(?:\s+of\s+(?:the|this)\s+{_FRAME})?,?\s+respectively\b"
)
# "Higher in the frame than a bench", "low in the picture"
_HEIGHT = re.compile(
    rf"\b(?P<one>high|low)(?P<than>er)?(?:\s+(?:up|down))?\s+(?:in|within)\s+the\s+{_FRAME}\b(?(than)(?=\s+than\s+\w))"
)
_ANY = re.compile(rf"{_SIDE}|above|below|beneath|high|low")
_MOST = re.compile(r"\b(?P<one>left|right|top|bottom|upper|lower)-?most\b")
_MIDDLE = (
    rf"(?:{_FRAME}(?:['\u2019]s)?\s+)?(?:(?:very|dead|exact|horizontal|vertical|imaginary)\s+)*"
    r"(?:middle|mid|cent(?:re|er))[-\s]?(?:line|point)?(?![-\w])(?!\s+of\s+(?!(?:the|this|our|my)\s+" + _FRAME + r"\b))"
)
_OF_FRAME = re.compile(
    rf"[-\s]+of[-\s]+(?:(?:the|this|that|our|my)\s+)?(?:{_MIDDLE}|{_FRAME}\b|(?:everything|things|it\s+all)\b)"
)
_OF_THIS = re.compile(r"\s+of\s+(?:this\s+(?:one\b|(?=[.,;]))|mine\b)")  # "on the left of this one": of this picture
# "Draw a line down the middle: the dog is on the left of it"
_OF_LINE = re.compile(r"\s+of\s+(?:it\b(?!\s+all)|(?:the|that|this)\s+(?:line|divide|axis|cut)\b)")
_LINE = re.compile(
    r"\b(?:line|divide|axis|cut|split|halve|fold)\b[^.!?]{0,60}\b(?:middle|cent(?:re|er)|half|halves|two)\b"
)
# "not in the upper half but in the lower one"
_BUT_ONE = re.compile(r"\bbut\s+(?:rather\s+)?(?:in|on|at|to|towards?|near)\s+$")
# "The cat on the left and the dog on the right? It is the other way round."
_REVERSED = re.compile(
    r"[^.!?]{0,120}(?<!not )(?<!than )(?:\bthe other way (?:a)?round|"
    r"\bthe (?:reverse|opposite) (?:is|was) true|\bvice versa)\b"
)
_OF = re.compile(r"\s+(?:of|from|than)\s+")
# "closer to the top than to the bottom"
_RATHER = re.compile(rf"\s+than\s+(?:(?:to|on|at|in|towards?)\s+)?(?:(?:the|its)\s+)?{_SIDE}\b")
_OVER_MIDDLE = re.compile(rf"\s+(?:(?:the|its|this)\s+)?{_MIDDLE}")
_OPENING = re.compile(
    r"\b(?:(?:far|looking|turning|moving|going)\s+)?(?:(?P<one>left|right)|(?P<level>top|bottom|upper|lower)[-\s]+"
    r"(?P<side>left|right)|(?P<end>top|bottom)(?=\s*:))\s*[:,]"
)
# "Not on the left but", "on the left rather than on"
_NOT_THERE = re.compile(
    r"(?:\b(?:not|never|instead of|rather than|as opposed to|(?:far|away)(?:\s+from(?:\s+being)?)?|"
    r"(?:skip|ignor|forget|avoid|disregard|bypass|overlook)\w*(?:\s+about)?|past|beyond)|n['\u2019]t)\s+(?:being\s+)?"
    r"(?:(?:placed|positioned|located)\s+)?"
    r"(?:(?:on|at|in|to|towards?|near|along|by)\s+)?$"
)
# "Glancing to the left reveals", "Turning to the left, one finds": who looks on turns, and no thing of the picture
_WE_SEE = re.compile(
    rf"(?:\s+of\s+(?:the|this)\s+{_FRAME})?\s*,?\s+"
    r"(?:reveals?|shows?|brings?|yields?|we|you|one|i|there|the (?:viewer|eye))\b"
)
# "(From the left), the eye has to travel to the right"
_FROM_TO = re.compile(rf"[^.;:!?]{{1,80}}\b(?:(?:to|towards?)\s+the\s+{_END}|eventually|finally|later|last|only)\b")
_FRAMES = re.compile(rf"{_FRAME}['\u2019]s")
_DENIED = frozenset("no not less neither".split())
_NEGATIVE = frozenset("no not n't never neither nor none nothing nobody cannot without".split())
# "can't miss", "not only", "nothing but"
_YET = frozenset(
    "miss missed overlook overlooked help ignore ignored avoid escape deny fail doubt only just far hard difficult "
    "wrong merely but other".split()
)
_NOT_SO = re.compile(r"[^.,;:!?]{0,60}\b(?:do|does|did|is|are|has|have|can)(?:\s+not|n['\u2019]t)\s*[.,;!]")
# "The left side is empty"
_EMPTY = re.compile(
    r"(?:\s+(?:of|in)\s+(?:the|this)\s+\w+)?\s+(?:is|are|was|were|feels?|looks?|seems?|appears?|remains?|"
    r"stays?|left|being|has|holds|contains|shows)\s+(?:\w+\s+){0,2}(?:empty|emptier|bare|blank|vacant|unoccupied|free|deserted|nothing(?!\s+(?:but|else)))\b"
)
_CUTS = frozenset(", ; : . ! ? but while whereas although though because as and ( )".split())
_ASKS = frozenset("is are was were do does did can could has have".split())
_HAVE = frozenset("has have had having is are was were be been being 's".split())
_FAR = frozenset(
    "glance look turn further farther more slightly far well off over way center centre stage just eyes".split()
)
_AFTER_SIDE = frozenset(", . ; : ! ? ) and or but while whereas when as with where we you i to".split())
_PREPOSITIONS = frozenset(
    "nearer closer nearest closest at on to in toward towards near along from by over against across".split()
)
# "looks to the left" says where to, not where; "an opening" is a hole, whatever the tagger says.
_TURNED = re.compile(
    r"(?!opening$)(?:look|fac|turn|lean|point|head|mov|gaz|tilt|swerv|bend|peer|go(?:es|ing)?$|glanc|slop|curv|bend|reach|exten|fall|star(?:e|ing)|walk|run|driv|fly|"
    r"flie|direct|angle|aim|travel|swing|veer|shift(?!ed)|stretch|lead|open|bow|cast|strid|migrat|step)\w*$"
)
_MOVING = re.compile(r"(?:walk|run|driv|fly|flie|mov|head|travel|com(?:es|ing)|step|migrat|look|star|gaz)\w*$")
_IMPERATIVE = frozenset("look glance gaze turn go move head pan scan shift".split())
_OWNING = frozenset("its his her their".split())  # "a dog shifts its attention"
_LOOKING = frozenset("looking glancing gazing turning moving going panning scanning shifting".split())
_REACH = 14  # words that are looked back over for a verb or a denial
_GUIDES = frozenset(
    "we you one i eye eyes gaze viewer attention view focus let us anyone anybody everyone whoever reader".split()
)  # "as we move to the left"
_OPENERS = frozenset("A An The One Two In On At To Toward Towards Over There Look Near Next Right".split())


@dataclass(frozen=True, slots=True)
class Place:
    """A place that is said: -1 is left or top, 1 is right or bottom, 0 is not said."""

    span: Span
    x: int
    y: int
    to: To = "picture"


def places(reading: Reading) -> list[Place]:
    """Every place in a caption that is said of the picture or of another thing, in their order."""
    text = reading.text.lower()
    if not _ANY.search(text):
        return []
    found = [*_ordered(text), *_owned(reading, text), *_above(reading, text)]
    taken = [place.span for place in found]
    for match in _openings(reading, text):
        found.append(Place(match.span(), *_signs(match["one"] or match["end"] or match["level"], match["side"])))
    found += [Place(match.span(), *_signs(match["one"])) for match in _MOST.finditer(text)]
    for match in _PLACE.finditer(text):
        if not any(a < match.end() and match.start() < b for a, b in taken):
            place = _place(reading, text, match)
            found += [place] if place else []
    return sorted(found, key=lambda place: place.span)


def begins(tokens: Sequence[Token], at: int) -> bool:
    """Whether a sentence begins at a token; also without a full stop, where a capital tells."""
    before = tokens[at - 1].text
    return before in ".!?;" or (tokens[at].text in _OPENERS and before.islower())


def token_at(reading: Reading, at: int) -> int:
    """The first token that begins at a character or later."""
    return bisect.bisect_left(reading.tokens, at, key=lambda token: token.span[0])


def _openings(reading: Reading, text: str) -> list[re.Match[str]]:
    """ "Far left: a dog", "Bottom left: a dog", "Looking left, one sees a dog"."""
    found = [(match, token_at(reading, match.start())) for match in _OPENING.finditer(text)]
    return [match for match, at in found if not at or begins(reading.tokens, at)]


def _ordered(text: str) -> list[Place]:
    found = []
    for match in _ORDER.finditer(text):
        first, last = (_signs(match[name] or match[other]) for name, other in (("one", "first"), ("two", "last")))
        if first == tuple(-sign for sign in last):
            found.append(Place(match.span(), *first, "order"))
    return found


def _owned(reading: Reading, text: str) -> list[Place]:
    """ "To its left", "on the dog's right side"; not "the picture's left", "its left ear"."""
    found = []
    for match in _OWNED.finditer(text):
        first, index = token_at(reading, match.start()), token_at(reading, match.end())
        named = index < len(reading.tokens) and _is_noun(reading.tokens[index])
        own = match["whose"] in ("its", "their")
        if (
            not named
            and not _turned(reading, match)
            and (own or (first > 0 and reading.words[first - 1] not in FRAME | {"one", "photographer"}))
        ):
            found.append(Place(match.span(), *_signs(match["one"]), "its" if own else "owner"))
    return found


def _above(reading: Reading, text: str) -> list[Place]:
    found = []
    for match in _OVER.finditer(text):
        y = -1 if match["one"] == "above" else 1
        if is_denied(reading, match.span()):
            continue
        middle = _OVER_MIDDLE.match(text, match.end())
        found.append(Place((match.start(), middle.end()), 0, y) if middle else Place(match.span(), 0, y, "next"))
    for match in _HEIGHT.finditer(text):
        found.append(
            Place(match.span(), 0, -1 if match["one"] == "high" else 1, "next" if match["than"] else "picture")
        )
    return found


def _place(reading: Reading, text: str, match: re.Match[str]) -> Place | None:
    signs, before = _signs(match["one"], match["two"]), _words_before(reading, token_at(reading, match.start()))
    if _is_none(reading, text, match, before):
        return None
    if frame := _OF_FRAME.match(text, match.end()):
        return Place((match.start(), frame.end()), *signs)
    if before[-1:] and before[-1] in _PREPOSITIONS and (of := _of_this(text, match)):
        return Place((match.start(), of.end()), *signs)
    rather = _RATHER.match(text, match.end())
    if rather and not _DENIED.isdisjoint(before):
        return None  # "no closer to the top than to the bottom"
    if not rather and (of := _OF.match(text, match.end())):
        plain = not match["part"] and not match["two"] and match["one"] in ("left", "right")
        plain |= of[0].split() == ["than"] and not match["two"]  # "nearer to the top than the dog"
        return Place(match.span(), *signs, "next") if plain else None
    alone = _stands_alone(reading, match, before[-1] if before else "")
    return Place(match.span(), *signs) if alone else None


def _is_none(reading: Reading, text: str, match: re.Match[str], before: list[str]) -> bool:
    """Whether words that name a place say of nothing that it is there."""
    if is_denied(reading, match.span()) or _is_asked(reading, match.start()) or before[-2:-1] == ["what"]:
        return True  # "not on the left", "what is left of it"
    if "than" in (before if before[-1:] == ["from"] else before[-2:]):
        return True  # "(closer to the top) than to the bottom"
    if before[-1:] == ["from"] and _FROM_TO.match(text, match.end()):
        return True  # "from the left, the eye has to travel to the right"
    if _turned(reading, match):
        return True  # "looks to the left"
    if match["hand"] and not match["part"] and "-" not in match["hand"]:
        return True  # "the left hand"
    return before[-1:] == ["on"] and not match["lead"] and match["one"] == "top"  # "on top of everything"


def _of_this(text: str, match: re.Match[str]) -> re.Match[str] | None:
    """The words behind a place that name the picture, or a line through its middle, by a pronoun."""
    if text[match.start() - 3 : match.start()] != "to " and (of := _OF_THIS.match(text, match.end())):
        return of  # but "there is a dog, and to the left of this one a cat"
    of = _OF_LINE.match(text, match.end())
    return of if of and _LINE.search(text, max(0, match.start() - 120), match.start()) else None


def _stands_alone(reading: Reading, match: re.Match[str], before: str) -> bool:
    """Whether the words are a place of the picture, not a part of something else ("the left ear")."""
    index = token_at(reading, match.end())
    adjective = index < len(reading.tokens) and _is_noun(reading.tokens[index])
    if reading.text[match.start() - 1 : match.start()] == "(" and reading.text[match.end() : match.end() + 1] == ")":
        return True  # "a bus (left) and a dog (right)"
    if _apart(reading, match):
        return True
    if reading.words[index : index + 1] == ("one",) and _BUT_ONE.search(
        reading.text, max(0, match.start() - 20), match.start()
    ):
        return True
    if _FRAMES.match(match["lead"] or "") and match["one"] in ("top", "bottom") and not adjective:
        return True  # "the picture's top has a kite"
    if match["part"]:
        return not (match["part"] in ("middle", "center", "centre") and adjective)  # "the top middle shelf"
    if match["lead"] or before in ("at", "on"):  # "at left" needs no article
        if match["two"] or match["one"] in ("left", "right"):
            return not adjective or _claimed(reading, reading.tokens[index].span[0])
        return match["one"] in ("top", "bottom") and not adjective and before in _PREPOSITIONS
    return (match["one"] in ("left", "right") or bool(match["two"])) and _is_adverb(reading, match)


def _is_adverb(reading: Reading, match: re.Match[str]) -> bool:
    """Whether a bare "left" or "right" says where: "stays left"; not "left the room", "right next to"."""
    at, end = token_at(reading, match.start()), token_at(reading, match.end())
    before, after = reading.words[at - 1] if at else "", reading.words[end : end + 1]
    if not at or (before in _HAVE and not match["two"]):
        return False
    led = reading.tokens[at - 1].tag.startswith("VB") or before in _FAR
    return led and (not after or after[0] in _AFTER_SIDE)


def _apart(reading: Reading, match: re.Match[str]) -> bool:
    """Whether the words stand between commas or at an end, behind a noun: "a dog, left, and a cat, far right"."""
    first, after = token_at(reading, match.start()), token_at(reading, match.end())
    ends = after == len(reading.words) or reading.words[after] in (",", ".", ";")
    return ends and first > 1 and reading.words[first - 1] in (",", ":") and reading.tokens[first - 2].tag[:2] == "NN"


def _claimed(reading: Reading, at: int) -> bool:
    """Whether a character is in a noun phrase that claims a thing of the vocabulary: "the left dog"."""
    number = bisect.bisect_right(reading.nouns, at, key=lambda noun: noun.span[1])
    noun = reading.nouns[number] if number < len(reading.nouns) else None
    return noun is not None and noun.claims and noun.whole[0] <= at < noun.whole[1]


def _is_noun(token: Token) -> bool:
    """Whether what follows "the left" is its noun, as in "the left ear"; "the left gestures" is taken for one too."""
    return token.tag == "NN" and not token.text.endswith(("s", "ing", "ed", "inside", "outside"))


def _words_before(reading: Reading, first: int) -> list[str]:
    """Up to four words of the sentence before a token."""
    begin = next((i for i in range(first, max(0, first - 4), -1) if begins(reading.tokens, i)), max(0, first - 4))
    return list(reading.words[begin:first])


def is_denied(reading: Reading, span: Span) -> bool:
    """Whether the clause of a place says that something is not there."""
    first = token_at(reading, span[0])
    if _NOT_THERE.search(reading.text[max(0, span[0] - 40) : span[0]].lower()) or _NOT_SO.match(reading.text, span[1]):
        return True
    if _EMPTY.match(reading.text, span[1]) or _REVERSED.match(reading.text, span[1]):
        return True
    for at in range(first - 1, max(-1, first - _REACH), -1):
        word = reading.words[at]
        if word in _CUTS:
            return False
        if word in _NEGATIVE:
            return _YET.isdisjoint(reading.words[at + 1 : at + 4])
    return False


def _is_asked(reading: Reading, at: int) -> bool:
    """Whether a place is in a question that is answered by yes or no: "Is the dog on the left?"."""
    first = token_at(reading, at)
    last = min(len(reading.words), first + _REACH)
    if "?" not in reading.words[first:last]:
        return False
    sentence = reading.sentences[first]
    begin = bisect.bisect_left(reading.sentences, sentence)
    return reading.words[begin] in _ASKS and reading.sentences[reading.words.index("?", first)] == sentence


def _begin(reading: Reading, first: int) -> int:
    """Where the sentence of a token begins, or the words of it that are looked at."""
    low = max(0, first - _REACH)
    return next((at for at in range(first, low, -1) if begins(reading.tokens, at)), low)


def _turned(reading: Reading, match: re.Match[str]) -> bool:
    """Whether a thing of the picture turns or moves that way; who looks on may."""
    first = token_at(reading, match.start())
    before = reading.words[first - 1] if first else ""
    low = _begin(reading, first)
    if before in _OWNING:  # "his right side", but "the picture has a cat in its left half"
        framed = [noun for noun in reading.nouns_from(low, first - low) if noun.tokens[1] < first]
        return before != "its" or not any(is_frame(noun.words) for noun in framed)
    if before in ("on", "in", "at", "along", "near", "against"):
        return False
    verbs = _MOVING if before == "from" else _TURNED  # "leans in from the left" is there
    verb = next((at for at in range(first - 1, max(low - 1, first - 8), -1) if _moves(reading, at, verbs)), None)
    around = reading.words[max(low, (verb or 0) - 3) : first]
    if verb is None or (verb and reading.words[verb - 1] == "," and reading.words[verb] in _IMPERATIVE):
        return False  # "to see a dog, look to the left"
    if _OWNING.isdisjoint(around) and not _GUIDES.isdisjoint(around):
        return False  # "our eyes travel", "shifting our attention to the left"
    if any(noun.tokens[1] <= verb and not is_frame(noun.words) for noun in reading.nouns_from(low, verb - low)):
        return True
    opens = _LOOKING.issuperset(reading.words[low : verb + 1])
    if opens or reading.words[verb].endswith("ing"):
        return not _WE_SEE.match(reading.text[match.end() : match.end() + 80].lower())
    return False  # "Look to the left", "a glance to the left"


def _moves(reading: Reading, at: int, verbs: re.Pattern[str]) -> bool:
    """Whether a token is one of some verbs: not "an opening"."""
    token = reading.tokens[at]
    return bool(verbs.match(reading.words[at])) and not (token.tag == "NN" and token.text.endswith("ing"))


def _signs(one: str, two: str | None = None) -> tuple[int, int]:
    sides, levels = {"left": -1, "right": 1}, {"top": -1, "upper": -1, "bottom": 1, "lower": 1}
    return sides.get(two or "") or sides.get(one, 0), levels.get(one) or levels.get(two or "", 0)
