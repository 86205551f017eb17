"""ODinW13 and ODinW35: object detection in the wild, their sets, how some names are asked for, and the mean AP.

https://github.com/microsoft/GLIP (Li et al. 2022). Names of sets, files and prompts are those of MM-Grounding-DINO's
evaluation, which LLMDet shares; it prints the AP of each set and leaves the mean to the reader. Its 35 sets have
rewritten annotation files for rabbits, mushrooms and chess pieces (`new_annotations_without_background.json`): with the
original files of rabbits and mushrooms the prompts here ask for the same words; chess pieces need the rewritten file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from detector.asked import Asked
from detector.metrics import several

Benchmark = Literal["odinw13", "odinw35"]

_FLAT = ("boggleBoards", "dice", "pistols", "selfdrivingCar")  # photos and annotations in one folder

# Folder of each set below the root of ODinW.
ODINW35 = {
    "AerialMaritimeDrone_large": "AerialMaritimeDrone/large",
    "AerialMaritimeDrone_tiled": "AerialMaritimeDrone/tiled",
    "AmericanSignLanguageLetters": "AmericanSignLanguageLetters/American Sign Language Letters.v1-v1.coco",
    "Aquarium": "Aquarium/Aquarium Combined.v2-raw-1024.coco",
    "BCCD": "BCCD/BCCD.v3-raw.coco",
    "boggleBoards": "boggleBoards/416x416AutoOrient/export",
    "brackishUnderwater": "brackishUnderwater/960x540",
    "ChessPieces": "ChessPieces/Chess Pieces.v23-raw.coco",
    "CottontailRabbits": "CottontailRabbits",
    "dice": "dice/mediumColor/export",
    "DroneControl": "DroneControl/Drone Control.v3-raw.coco",
    "EgoHands_generic": "EgoHands/generic",
    "EgoHands_specific": "EgoHands/specific",
    "HardHatWorkers": "HardHatWorkers/raw",
    "MaskWearing": "MaskWearing/raw",
    "MountainDewCommercial": "MountainDewCommercial",
    "NorthAmericaMushrooms": "NorthAmericaMushrooms/North American Mushrooms.v1-416x416.coco",
    "openPoetryVision": "openPoetryVision/512x512",
    "OxfordPets_by_breed": "OxfordPets/by-breed",
    "OxfordPets_by_species": "OxfordPets/by-species",
    "PKLot": "PKLot/640",
    "Packages": "Packages/Raw",
    "PascalVOC": "PascalVOC",
    "pistols": "pistols/export",
    "plantdoc": "plantdoc/416x416",
    "pothole": "pothole",
    "Raccoons": "Raccoon/Raccoon.v2-raw.coco",
    "selfdrivingCar": "selfdrivingCar/fixedLarge/export",
    "ShellfishOpenImages": "ShellfishOpenImages/raw",
    "ThermalCheetah": "ThermalCheetah",
    "thermalDogsAndPeople": "thermalDogsAndPeople",
    "UnoCards": "UnoCards/raw",
    "VehiclesOpenImages": "VehiclesOpenImages/416x416",
    "WildfireSmoke": "WildfireSmoke",
    "websiteScreenshots": "websiteScreenshots",
}
ODINW13 = {
    "AerialMaritimeDrone": ODINW35["AerialMaritimeDrone_large"],
    "Aquarium": ODINW35["Aquarium"],
    "CottontailRabbits": ODINW35["CottontailRabbits"],
    "EgoHands": ODINW35["EgoHands_generic"],
    "NorthAmericaMushrooms": ODINW35["NorthAmericaMushrooms"],
    "Packages": ODINW35["Packages"],
    "PascalVOC": ODINW35["PascalVOC"],
    "pistols": ODINW35["pistols"],
    "pothole": ODINW35["pothole"],
    "Raccoon": ODINW35["Raccoons"],
    "ShellfishOpenImages": ODINW35["ShellfishOpenImages"],
    "thermalDogsAndPeople": ODINW35["thermalDogsAndPeople"],
    "VehiclesOpenImages": ODINW35["VehiclesOpenImages"],
}
SETS = {"odinw13": ODINW13, "odinw35": ODINW35}


PROMPTS = {
    "CottontailRabbits": {"Cottontail-Rabbit": Asked("rabbit")},
    "EgoHands": {"hand": Asked("hand", suffix=" of a person")},
    "EgoHands_generic": {"hand": Asked("hand", suffix=" of a person")},
    "NorthAmericaMushrooms": {"CoW": Asked("flat mushroom"), "chanterelle": Asked("yellow mushroom")},
    "Packages": {"package": Asked("package", "there is a ", " on the porch")},
    "pothole": {"pothole": Asked("holes", "there are some ", " on the road")},
}


def prompts(name: str, categories: Sequence[str]) -> list[Asked]:
    """How the categories of a set are asked for: by their names, but for those of PROMPTS."""
    own = PROMPTS.get(name, {})
    return [own.get(category, Asked(category)) for category in categories]


def annotation_file(name: str, rewritten: bool = False) -> str:
    """Annotation file of a set, from its folder; its photos lie beside it. `rewritten`: the one with other names."""
    return f"{'val_' if name in _FLAT else 'valid/'}{'new_' * rewritten}annotations_without_background.json"


def evaluate(benchmark: Benchmark, sets: several.Sets) -> dict[str, float]:
    """`AP`, the mean of the 13 or 35 sets, and `<set>/AP` and so on, 0..1; takes (truth, detections) by set.

    Raises FormatError where a set is missing.
    """
    return several.evaluate(tuple(SETS[benchmark]), sets, benchmark)
