"""How captions say the names of a vocabulary: plurals, other words for the same thing, words for a kind of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmdet.lemmas import singular
from llmdet.nouns import plural

# name: the name itself or an equal word; kind: a narrower word ("puppy"); part: only its last noun ("table" of "dining
# table"), which can support a claim and never contradict one.
Fit = Literal["name", "kind", "part"]

# In these tables an underscore joins the words of one item. A word that stands in several rows can mean any of them.
_EQUAL = {
    "person": "people human individual persons",
    "bicycle": "bike cycle",
    "motorcycle": "motorbike bike",
    "car": "automobile",
    "airplane": "plane aeroplane jet airliner jetliner aircraft",
    "truck": "lorry",
    "boat": "ship vessel",
    "traffic light": "stoplight traffic_signal stop_light",
    "fire hydrant": "hydrant",
    "cat": "kitty",
    "dog": "doggy",
    "cow": "cattle",
    "backpack": "rucksack knapsack back_pack",
    "umbrella": "parasol",
    "handbag": "purse hand_bag",
    "tie": "necktie bowtie bow_tie",
    "suitcase": "luggage suit_case",
    "skis": "ski",
    "sports ball": "football baseball basketball volleyball soccer_ball tennis_ball",
    "tennis racket": "racket racquet tennis_racquet",
    "skateboard": "skate_board",
    "surfboard": "surf_board",
    "couch": "sofa loveseat settee",
    "potted plant": "houseplant house_plant flower_pot",
    "tv": "television tv_set television_set tv_screen",
    "laptop": "notebook_computer laptop_computer",
    "mouse": "computer_mouse",
    "remote": "remote_control remote_controller",
    "cell phone": "cellphone phone mobile_phone smartphone smart_phone iphone telephone",
    "refrigerator": "fridge",
    "donut": "doughnut",
    "sandwich": "burger hamburger",
    "hair drier": "hair_dryer hairdryer blow_dryer",
    "toothbrush": "tooth_brush",
    "wine glass": "wineglass",
    "teddy bear": "teddy stuffed_bear",
}
# Words for one kind of what a name means.
_KINDS = {
    "person": (
        "man woman boy girl child kid baby toddler infant lady gentleman guy teenager adult male female skier surfer "
        "skateboarder snowboarder batter pitcher catcher umpire cyclist bicyclist motorcyclist pedestrian rider chef "
        "waiter waitress policeman policewoman soldier bride groom worker player couple crowd spectator passenger "
        "tourist student athlete driver fisherman fireman firefighter father mother son daughter brother sister "
        "friend family grandmother grandfather audience team"
    ),
    "car": "sedan hatchback taxi cab suv minivan van",
    "truck": "pickup pickup_truck van semi",
    "bus": "coach minibus",
    "train": "locomotive",
    "boat": "sailboat canoe kayak rowboat motorboat yacht ferry",
    "bird": "seagull pigeon duck goose parrot owl swan sparrow eagle gull crow rooster chicken hen flamingo penguin",
    "cat": "kitten",
    "dog": "puppy pup poodle labrador terrier husky bulldog retriever chihuahua dachshund",
    "horse": "pony foal mare stallion colt",
    "sheep": "lamb ewe ram",
    "cow": "bull calf heifer ox steer",
    "elephant": "calf",
    "chair": "armchair stool",
    "cup": "mug",
    "clock": "wristwatch",
    "orange": "tangerine clementine mandarin",
}
# Wider words and parts: they stand for a name that is there, and claim none.
_WIDER = {
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe",
    "pet": "dog cat",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "fruit": "banana apple orange",
    "vegetable": "broccoli carrot",
    "produce": "banana apple orange broccoli carrot",
    "food": "banana apple sandwich orange broccoli carrot hot_dog pizza donut cake",
    "meal": "sandwich pizza broccoli hot_dog",
    "furniture": "chair couch bed dining_table",
    "seat": "chair couch bench",
    "desk": "dining_table",
    "computer": "laptop keyboard tv mouse",
    "monitor": "tv",
    "screen": "tv laptop",
    "plant": "potted_plant",
    "flower": "potted_plant vase",
    "bag": "handbag backpack suitcase",
    "utensil": "fork knife spoon",
    "dish": "bowl cup",
    "toy": "teddy_bear",
    "doll": "teddy_bear",
    "stove": "oven",
    "appliance": "oven microwave refrigerator toaster",
    "ball": "sports_ball",
    "glass": "cup wine_glass",
    "hand": "person",
    "face": "person",
}
# The last word is no thing of the kind that it names alone.
_OTHER = frozenset(
    "hot_dog corn_dog prairie_dog teddy_bear gummy_bear stuffed_bear rocking_horse saw_horse sea_horse guinea_pig "
    "cable_car rail_car railway_car train_car subway_car box_car street_car bumper_car toilet_bowl flower_bed "
    "truck_bed dog_bed cat_bed river_bed tanning_bed world_cup super_bowl pool_table computer_mouse "
    "bow_tie hair_tie".split()
)


@dataclass(frozen=True)
class Names:
    """An index of a vocabulary by the last word of everything that a caption may call it."""

    forms: Mapping[str, tuple[tuple[tuple[str, ...], Mapping[str, Fit]], ...]]  # last word -> longest first

    def at(self, words: tuple[str, ...]) -> tuple[int, Mapping[str, Fit]]:
        """What the words, lower case and the last one singular, end with: how many of them, and what they can mean.

        (0, {}) where it is none of the names.
        """
        for form, meant in self.forms.get(words[-1], ()):
            if words[-len(form) :] == form:
                longer = "_".join(words[-2:]) if len(form) == 1 else ""
                return (0, {}) if longer in _OTHER else (len(form), meant)
        return 0, {}


@functools.lru_cache(maxsize=1024)
def names_index(names: tuple[str, ...]) -> Names:
    """The index of a vocabulary."""
    found: dict[tuple[str, ...], dict[str, Fit]] = {}
    for name in names:
        for form, fit in _forms(name):
            meant = found.setdefault(form, {})
            if meant.get(name) != "name":
                meant[name] = fit
    by_last: dict[str, list[tuple[tuple[str, ...], Mapping[str, Fit]]]] = {}
    for form, meant in sorted(found.items(), key=lambda item: -len(item[0])):
        by_last.setdefault(form[-1], []).append((form, meant))
    return Names({last: tuple(forms) for last, forms in by_last.items()})


@functools.lru_cache(maxsize=65536)
def _forms(name: str) -> tuple[tuple[tuple[str, ...], Fit], ...]:
    own = words_of(name)
    if not own:
        return ()
    forms: dict[tuple[str, ...], Fit] = {}
    if len(own) > 1 and "_".join(own[-2:]) not in _OTHER:
        forms[own[-1:]] = "part"
    key = " ".join(own)
    forms |= {words_of(wider): "part" for wider, names in _WIDER.items() if key in _items(names)}
    forms |= {words_of(one): "kind" for one in _items(_KINDS.get(key, ""))}
    forms |= {words_of(one): "name" for one in _items(_EQUAL.get(key, ""))}
    forms |= {words: "name" for one in name.split("/") if (words := words_of(one))}
    forms[(*own[:-1], plural(own[-1]))] = "name"  # "tvs", which is too short for a rule to undo
    return tuple(forms.items())


def words_of(name: str) -> tuple[str, ...]:
    """The words of a class name as captions say it, the last one singular: `bow_(weapon)` is `bow`."""
    words = name.lower().replace("_", " ").split("(")[0].split()
    return (*words[:-1], singular(words[-1])) if words else ()


@functools.cache
def can_mean(words: tuple[str, ...]) -> frozenset[str]:
    """The names that a word of our tables can mean, whether or not the vocabulary at hand has them."""
    tables = (*_EQUAL.items(), *_KINDS.items())
    return frozenset([name for name, said in tables if words in [words_of(one) for one in _items(said)]])


def _items(text: str) -> list[str]:
    return [one.replace("_", " ") for one in text.split()]
