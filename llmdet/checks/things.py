"""Which nouns of a sentence name things that have a place and a colour, and which only help to say so."""

from __future__ import annotations

import bisect
import re

from llmdet.checks.reading import Noun, Reading
from llmdet.lemmas import singular
from llmdet.nouns import COLOURS

# The picture, its parts, and those who look at it.
FRAME = frozenset(
    "image picture photo photograph frame scene shot view screen composition canvas snapshot side half part portion "
    "section area corner edge border third quarter margin region quadrant end foreground background middle center "
    "centre viewer camera eye attention sides halves thirds quarters corners edges ends quadrants "
    "one left right top bottom look glance distance focus home far".split()
)
# What is named beside things without being one.
_ABSTRACT = frozenset(
    "addition afternoon angle answer anything appearance arrangement aspect atmosphere attempt audience axis back "
    "backdrop background balance being bit bits blend blur bokeh bounds brightness camerawork caption capture care "
    "case centerpiece centrepiece chance character charm choice clarity close-up closeup clue color coloring colour "
    "colouring companion company content context contrast contrasts contribution count counterpart credit cropping "
    "dash day daylight deal decision degree delight depiction depth description design detail difference direction "
    "discovery display doubt drama duo ease edit effect effort element emphasis encounter energy entry episode "
    "essence evening everything evidence exact example exception expanse experience exposure expression extreme "
    "eyeful fact favorite favour favourite feature feeling field-of-view fill find finding first flair flavor "
    "flavour focal focus form former foursome framing front fun gaze glimpse glory glow good grace group guess half "
    "halves harmony heart height hero highlight hint history horizon hour hue idea illusion impact impression "
    "instant intent interest interplay intrigue issue item job joke joy juxtaposition key kick kind knowledge "
    "latter layout length lens level life light lighting likeness line list living location lot luck magic majority "
    "manner mark match matter meaning means memory mention message mid-frame midday midline midpoint mind minute "
    "mix mixture moment mood morning motif mystery name narrative neighbor neighbour news nobody note nothing "
    "notice number object observer octet odds onlooker opinion option order origin other outlook overview owner "
    "pace pair palette panorama part pattern pause peace percent percentage personality perspective photographer "
    "photography pick pigment place plane play plenty point pop pose position power praise presence present "
    "presentation pride problem process proof proportion proximity punch purpose quality quartet question quintet "
    "range rarity rate reach reality reason record relation relief remark report respect rest result reward rhythm "
    "rise rival role room row rule saturation scale scan scheme score search second sense septet sequence series "
    "set setting sextet shade shadow shape share show showing sight significance silence simplicity situation size "
    "somebody someone something sort soul sound source space spirit splash splendor splendour spot staging start "
    "state statement story strength stuff style subject success suggestion summary sunlight surprise surroundings "
    "symmetry synonym tale talent tally task taste taster tension term territory test texture thanks theme thing "
    "thought thoughts threesome thrill time tint title today tomorrow tone total touch tour trace tradition trait "
    "treat trick trio trouble truth turn twosome type use value variation variety verdict vibe vibrancy vicinity "
    "viewfinder visibility vision visit voice vote wait warmth way week while whole whereabouts width wink wonder word "
    "words work world worth wow year yesterday zone".split()
)
# Endings of words for what has no place of its own, and words that only look so.
_NO_THING = re.compile(r".{3,}(?:ness|ity|tion|sion|ance|ence|ancy|ency|ment|ism|hood|ship|dom|ology|graphy|tude)$")
_THINGS = frozenset(
    "city university facility station plantation television intersection mansion partition ambulance entrance "
    "appliance fence residence monument instrument pavement garment document basement apartment ornament implement "
    "battleship spaceship decoration vegetation audience equipment refreshment cement attachment compartment "
    "establishment neighborhood neighbourhood construction excavation fortification reception conference".split()
)
_LOOKS = frozenset("eye eyes gaze glance attention".split())
# Words for any thing: "the object on the left is a dog"; and what is no thing, but is somewhere.
GENERIC = frozenset("object thing item subject element one something someone".split())
_LIGHT = frozenset("light lighting sunlight shadow glow space room row line group set pair total reflection".split())
_VERBS_AS_NOUNS = frozenset("looks look glows glow shows show stands rests sits lies appears remains seems".split())


def is_frame(words: tuple[str, ...]) -> bool:
    """Whether a noun phrase is of the picture, also where a verb was taken for its head: "the image features"."""
    if not _LOOKS.isdisjoint(words[-2:]):
        return True  # "your eye travel" is taken for a noun
    return words[-1] in FRAME or (len(words) > 1 and words[-1].endswith("s") and words[-2] in FRAME)


def is_thing(noun: Noun) -> bool:
    """Whether a noun names something that can stand in a picture, as far as its word tells."""
    if any(fit != "part" for fit in noun.meant.values()):
        return True
    head = noun.words[-1]
    return not (
        is_frame(noun.words)
        or noun.words == ("present",)  # "Present in the image are"
        or head in _VERBS_AS_NOUNS
        or head in COLOURS
        or head in _ABSTRACT
        or _is_abstract(singular(head))
    )


def has_place(noun: Noun) -> bool:
    """Whether a noun names what is somewhere in the picture: things, light and shadow, "the object"."""
    head = singular(noun.words[-1])
    return is_thing(noun) or (not is_frame(noun.words) and (head in GENERIC or head in _LIGHT))


def _is_abstract(word: str) -> bool:
    """Whether a word names no thing that stands somewhere: "presence", "rhythm"."""
    return word in _ABSTRACT or (bool(_NO_THING.match(word)) and word not in _THINGS)


def nouns_of(reading: Reading, sentence: int) -> tuple[Noun, ...]:
    """The nouns of a sentence."""
    first = bisect.bisect_left(reading.nouns, sentence, key=lambda noun: noun.sentence)
    return reading.nouns[first : bisect.bisect_right(reading.nouns, sentence, key=lambda noun: noun.sentence)]


def things_of(reading: Reading, sentence: int) -> list[Noun]:
    """The nouns of a sentence that name things."""
    return [noun for noun in nouns_of(reading, sentence) if is_thing(noun)]


def tokens_of(reading: Reading, sentence: int) -> range:
    """The tokens of a sentence."""
    first = bisect.bisect_left(reading.sentences, sentence)
    return range(first, bisect.bisect_right(reading.sentences, sentence))
