"""COCO-O and ODinW: the mean over sets, their names and prompts."""

from collections.abc import Sequence
from typing import Any

import pytest

from detector.metrics import coco, coco_o, odinw, several
from llmdet.errors import FormatError


def one_set(found: bool, boxes: int = 1) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A set of one category whose every box is found, or none."""
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": number + 1, "image_id": 1, "category_id": 1, "bbox": [30 * number, 0, 20, 20], "area": 400}
            for number in range(boxes)
        ],
    }
    rows = [{"image_id": 1, "category_id": 1, "bbox": row["bbox"], "score": 0.9} for row in truth["annotations"]]
    return truth, rows if found else []


def sets(names: Sequence[str], found: int) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    return {name: one_set(number < found, boxes=1 + number % 3) for number, name in enumerate(names)}


def test_coco_o_is_the_plain_mean_of_six_domains() -> None:
    assert coco_o.DOMAINS == ("cartoon", "handmake", "painting", "sketch", "tattoo", "weather")
    figures = coco_o.evaluate(sets(coco_o.DOMAINS, found=3))
    assert figures["AP"] == pytest.approx(0.5, abs=1e-9)
    assert figures["cartoon/AP"] == pytest.approx(1, abs=1e-9)
    assert figures["weather/AP"] == 0
    assert len(figures) == 1 + 6 * len(coco.NAMES)


@pytest.mark.parametrize(("benchmark", "count", "found"), [("odinw13", 13, 4), ("odinw35", 35, 7)])
def test_odinw_is_the_plain_mean_of_its_sets(benchmark: odinw.Benchmark, count: int, found: int) -> None:
    names = tuple(odinw.SETS[benchmark])
    assert len(set(names)) == count
    figures = odinw.evaluate(benchmark, sets(names, found))
    assert figures["AP"] == pytest.approx(found / count, abs=1e-9)


def test_a_mean_over_some_sets_is_refused() -> None:
    some = sets(coco_o.DOMAINS[:4], found=1)
    with pytest.raises(FormatError, match="COCO-O is the mean of 6 sets; without tattoo, weather"):
        coco_o.evaluate(some)
    with pytest.raises(FormatError, match="unknown: Raccoons"):
        odinw.evaluate("odinw13", {**sets(tuple(odinw.ODINW13), 1), "Raccoons": one_set(True)})
    with pytest.raises(FormatError, match="no true boxes in sketch"):
        several.mean({"cartoon": 0.5, "sketch": -1.0})


def test_every_set_of_odinw13_is_one_of_odinw35() -> None:
    assert set(odinw.ODINW13.values()) < set(odinw.ODINW35.values())
    assert odinw.annotation_file("pistols") == "val_annotations_without_background.json"
    assert odinw.annotation_file("Aquarium") == "valid/annotations_without_background.json"


@pytest.mark.parametrize(
    ("name", "category", "text", "scored"),
    [
        ("CottontailRabbits", "Cottontail-Rabbit", "rabbit", "rabbit"),
        ("EgoHands", "hand", "hand of a person", "hand"),
        ("EgoHands_generic", "hand", "hand of a person", "hand"),
        ("NorthAmericaMushrooms", "CoW", "flat mushroom", "flat mushroom"),
        ("NorthAmericaMushrooms", "chanterelle", "yellow mushroom", "yellow mushroom"),
        ("Packages", "package", "there is a package on the porch", "package"),
        ("pothole", "pothole", "there are some holes on the road", "holes"),
        ("EgoHands_specific", "myleft", "myleft", "myleft"),
        ("PascalVOC", "tvmonitor", "tvmonitor", "tvmonitor"),
    ],
)
def test_prompts_are_those_of_mm_grounding_dino(name: str, category: str, text: str, scored: str) -> None:
    (asked,) = odinw.prompts(name, [category])
    start, end = asked.span
    assert (asked.text, asked.text[start:end]) == (text, scored)


def test_prompts_are_given_for_sets_that_exist() -> None:
    assert odinw.PROMPTS.keys() <= odinw.ODINW13.keys() | odinw.ODINW35.keys()
