"""Which nouns can name the same thing: a table of our own, and WordNet where it is there.

The table holds what captions of photos say of people, clothes, vehicles, animals and furniture; COCO's and LVIS's names
are among them. Words are lemmas.
"""

from __future__ import annotations

import functools
from typing import Literal

from llmdet.tagging import ParserName

Relation = Literal["same", "synonym", "kind", "wordnet", "none"]

# A line: words that say the same of a picture.
_SYNONYMS = """
bike bicycle
motorcycle motorbike dirtbike
car automobile
airplane plane aeroplane jet aircraft
couch sofa
tv television
phone cellphone telephone smartphone
laptop computer
refrigerator fridge
oven stove
sidewalk pavement
street road roadway
path trail pathway
hat cap
coat jacket
shirt t-shirt tshirt tee top tee-shirt
blouse shirt top
pants trousers slacks jeans
sneaker shoe
glasses eyeglasses spectacles
sunglasses shades
backpack rucksack bookbag
purse handbag
rock stone boulder
ocean sea
lake pond
grass lawn
woods forest
hill hillside
mountain mountainside
dog puppy canine pup
cat kitten
horse pony
cow cattle bull
gun rifle
microphone mic
violin fiddle
umbrella parasol
picture photo photograph
painting picture
stair stairs step staircase stairway
fence railing
railing rail
store shop
restaurant cafe diner
flag banner
rug carpet mat
sled sledge
branch limb
food meal
drink beverage
cup mug
plate dish
box crate
wagon cart
stroller carriage
hose pipe
newspaper paper
snow ice
costume outfit
outfit clothes clothing attire
uniform outfit
swimsuit bikini
swing swingset
slide waterslide
donut doughnut
tub bathtub
bin trashcan
grill barbecue
scaffold scaffolding
dirt sand
wave surf
pool swimmingpool
blanket cover
gown dress
robe gown
bonnet hat
mitten glove
scarf shawl
watermelon melon
leash lead
skis ski
dumbbell weight
lipstick makeup
wall mural
sculpture statue
necktie tie
mask facemask
goggles glasses
cart trolley
shed hut
hut cabin
house home
window windowpane
pole post
stage platform
log trunk
stick branch
puddle water
stream creek river
waterfall falls
"""
# A kind, and what belongs to it: either may stand for the other.
_KINDS = """
vehicle: car truck bus van bike motorcycle scooter jeep tractor taxi train automobile suv
boat: canoe kayak raft sailboat rowboat ship ferry dinghy gondola motorboat vessel
water: ocean sea lake river pool pond wave stream surf fountain
animal: dog cat horse cow sheep goat bird elephant bear monkey
bird: pigeon duck goose swan seagull parrot chicken eagle
bag: backpack purse handbag suitcase luggage sack tote
ball: football basketball volleyball baseball soccerball
instrument: guitar violin drum trumpet saxophone cello piano flute accordion tuba trombone banjo
building: house church skyscraper store barn cabin tower structure shop
structure: building tower
food: cake pizza sandwich bread fruit meat vegetable noodle rice pasta
fruit: apple banana orange watermelon strawberry
board: skateboard surfboard snowboard wakeboard
toy: doll truck teddy ball
seat: chair bench couch
clothes: shirt dress pants suit jacket coat uniform
headgear: hat helmet cap
flower: rose bouquet tulip
plant: flower tree bush
bush: shrub hedge
drink: beer wine coffee soda juice tea
container: box bucket bottle bowl
boot: shoe
shoe: sandal slipper heel cleat
sandal: flip-flop
field: grass pasture
beach: sand shore
shirt: sweater sweatshirt jersey polo tanktop hoodie
jersey: uniform
weapon: gun sword knife
paper: document newspaper
machine: machinery equipment
tool: hammer drill shovel saw
"""

_MALE = (
    "man guy gentleman male fellow dude boy son father dad husband groom king waiter businessman policeman fireman "
    "fisherman cowboy salesman serviceman workman craftsman grandfather bro brother monk priest"
)
_FEMALE = (
    "woman lady female girl mother mom wife bride daughter queen waitress businesswoman ballerina gal grandmother "
    "sister policewoman nun cheerleader bridesmaid actress"
)
_CHILDREN = "boy girl child kid toddler baby infant son daughter youngster teenager youth teen newborn"
_ADULTS = (
    "man woman lady gentleman guy adult mother father mom dad wife husband bride groom grandmother grandfather "
    "elder businessman businesswoman policeman"
)
_OTHERS = (
    "person people someone somebody individual human pedestrian worker player rider biker cyclist bicyclist runner "
    "jogger skater skateboarder surfer swimmer climber hiker dancer musician guitarist drummer singer performer "
    "entertainer artist painter chef cook baker vendor merchant seller soldier officer police cop firefighter "
    "student teacher instructor coach doctor nurse surgeon athlete skier snowboarder wrestler boxer fighter referee "
    "umpire pitcher batter catcher goalie quarterback teammate opponent driver passenger tourist shopper customer "
    "spectator onlooker audience fan crowd group family couple team band friend senior teen diver gymnast juggler "
    "clown farmer welder carpenter mechanic barber hairdresser photographer reporter speaker motorcyclist bicycler "
    "jockey kayaker rower sailor lifeguard guard protester marcher graduate bystander employee wakeboarder bmxer "
    "racer acrobat scientist adventurer toddler baseball-player construction-worker hockey-player member orchestra "
    "choir lot pair trio gathering operator conductor preacher bartender butcher cheerleader golfer bowler scout "
    "trumpeter violinist actor model passerby traveler camper explorer browser reader patron diner crew troop army "
    "club class congregation parade stander sitter walker laborer"
)
_GROUPS = frozenset(
    "people crowd group family couple team band audience police orchestra choir pair trio gathering crew troop army "
    "club class congregation lot parade".split()
)
# Words that say no more than person.
_ANYBODY = frozenset(
    "person people someone somebody individual human group crowd friend pair trio gathering lot member "
    "pedestrian".split()
)

MALE, FEMALE, CHILDREN, ADULTS = (frozenset(words.split()) for words in (_MALE, _FEMALE, _CHILDREN, _ADULTS))
PEOPLE = frozenset(_OTHERS.split()) | MALE | FEMALE | CHILDREN | ADULTS

CLOTHING = frozenset(
    "shirt t-shirt tshirt tee top blouse pants trousers jeans shorts skirt dress suit jacket coat hat cap helmet "
    "vest sweater sweatshirt hoodie uniform outfit costume clothes clothing attire shoe sneaker boot sandal sock "
    "glove mitten scarf tie necktie glasses sunglasses goggles apron robe gown jersey swimsuit bikini trunks "
    "overalls mask headband bandanna bandana gear backpack belt necklace earring bracelet watch headphones wig hood "
    "headscarf turban wetsuit tuxedo leotard kilt kimono sari poncho cardigan raincoat pajamas khakis tank tights "
    "stockings slacks sunhat visor beret lei veil jumpsuit tutu cape cloak shawl bib diaper jean short heel garb "
    "overall eyeglasses".split()
)
BODY = frozenset(
    "hair face head hand arm leg foot eye mouth nose ear beard mustache shoulder back finger knee lap neck tongue "
    "teeth tooth chest stomach body lip cheek chin tail paw ponytail braid thumb toe hip waist fist forehead tattoo "
    "wrist ankle elbow pigtail dreadlock mohawk moustache goatee palm belly".split()
)
# The surroundings: pictures have much of them, and two people mean different parts of it.
SURROUNDINGS = frozenset(
    "water grass snow sand sky ground dirt field street road sidewalk building wall tree food window house city "
    "beach floor mountain hill forest woods park background area scene place way side front top room air sun light "
    "crowd flower bush rock hand head foot leg arm eye paper stage equipment path trail sign bridge store shop yard "
    "something thing object item game picture camera distance day night time ice lake river ocean sea town market "
    "playground court track lot step stair plant table car boat structure".split()
)
COLOURS = {
    word: colour
    for colour, words in {
        "black": "black dark-colored", "white": "white", "gray": "gray grey silver",
        "red": "red maroon crimson burgundy",
        "orange": "orange", "yellow": "yellow gold golden", "green": "green olive lime",
        "blue": "blue navy turquoise teal",
        "purple": "purple violet lavender", "pink": "pink", "brown": "brown tan beige khaki",
        "blond": "blond blonde blond-haired blonde-haired", "plaid": "plaid checkered", "striped": "striped stripe",
    }.items()
    for word in words.split()
}  # fmt: skip
# Adjectives that cannot both be said of one thing.
OPPOSITES = [
    {word: side for side, words in enumerate(line.split("|")) for word in words.split()}
    for line in (
        "young little small|old elderly older aged senior",
        "big large huge giant tall|small little tiny short",
        "male|female",
        "wooden|metal plastic stone brick",
        "long|short",
        "left|right",
    )
]


@functools.cache
def _synonyms() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for line in _SYNONYMS.strip().splitlines():
        words = line.split()
        for word in words:
            table.setdefault(word, set()).update(words)
    return {word: frozenset(others) for word, others in table.items()}


@functools.cache
def _kinds() -> dict[str, frozenset[str]]:
    table = {}
    for line in _KINDS.strip().splitlines():
        kind, members = line.split(":")
        table[kind] = frozenset(members.split())
    return table


@functools.lru_cache(maxsize=262_144)
def relation(a: str, b: str, parser: ParserName) -> Relation:
    """How two lemmas that name no people are related; the order does not matter."""
    if a == b:
        return "same"
    if b in _synonyms().get(a, ()):
        return "synonym"
    if b in _kinds().get(a, ()) or a in _kinds().get(b, ()):
        return "kind"
    return _wordnet_relation(a, b) if parser == "nltk" else "none"


def is_kind(lemma: str, kind: str) -> bool:
    """Whether the table has a lemma among those of a kind."""
    return lemma in _kinds().get(kind, ())


def is_below(lemma: str, kind: str) -> bool:
    """Whether WordNet has the first sense of a lemma as the first of another, or up to two steps below it."""
    return bool(set(_senses(kind)[:1]) & (_above(lemma) | set(_senses(lemma)[:1])))


def _wordnet_relation(a: str, b: str) -> Relation:
    """Whether the first senses of two nouns are one, or one is a kind of the other up to two steps."""
    senses_a, senses_b = _senses(a), _senses(b)
    if not senses_a or not senses_b:
        return "none"
    if set(senses_a) & set(senses_b):
        return "wordnet"
    return "wordnet" if _above(a) & set(senses_b[:1]) or _above(b) & set(senses_a[:1]) else "none"


@functools.lru_cache(maxsize=65536)
def _senses(lemma: str) -> tuple[str, ...]:
    from nltk.corpus import wordnet

    return tuple(sense.name() for sense in wordnet.synsets(lemma.replace(" ", "_"), pos="n")[:2])


@functools.lru_cache(maxsize=65536)
def _above(lemma: str) -> frozenset[str]:
    """The first sense's kinds, two steps up."""
    from nltk.corpus import wordnet

    names = set()
    for sense in wordnet.synsets(lemma.replace(" ", "_"), pos="n")[:1]:
        for kind in sense.hypernyms():
            names |= {kind.name(), *(k.name() for k in kind.hypernyms())}
    return frozenset(names)


def is_person(lemma: str) -> bool:
    """Whether a lemma names people, alone or as a group."""
    return lemma in PEOPLE or (lemma.endswith(("man", "woman")) and len(lemma) > 5 and lemma not in _NOT_MEN)


_NOT_MEN = frozenset("snowman human mailman caiman talisman ottoman walkman".split())


def is_group(lemma: str) -> bool:
    """Whether a singular lemma names several people."""
    return lemma in _GROUPS


def is_anybody(lemma: str) -> bool:
    """Whether a lemma says no more than that it is a person."""
    return lemma in _ANYBODY


def gender(lemma: str, before: frozenset[str] = frozenset()) -> str:
    """`m`, `f` or nothing, from a lemma that names people and the words before it."""
    if lemma in FEMALE or lemma.endswith("woman") or before & {"female", "woman", "girl"}:
        return "f"
    return "m" if lemma in MALE or lemma.endswith("man") or before & {"male", "man", "boy"} else ""


def age(lemma: str, before: frozenset[str] = frozenset()) -> str:
    """`child`, `adult` or nothing, from a lemma that names people and the words before it."""
    if lemma in CHILDREN or before & {"little", "small"}:
        return "child"
    return "adult" if lemma in ADULTS or before & {"old", "older", "elderly", "adult"} else ""
