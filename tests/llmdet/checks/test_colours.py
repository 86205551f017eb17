"""Colour words against pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from llmdet.checks.colours import checkable, claimed, contradiction
from llmdet.record import Record
from tests.llmdet.checks.scenes import LEFT, RIGHT, reading, scene

GREY, RED, YELLOW = (128, 128, 128), (220, 20, 20), (235, 220, 20)
BUSES = scene({"bus": [LEFT], "car": [RIGHT]})


def picture(left: tuple[int, int, int] = RED, right: tuple[int, int, int] = YELLOW) -> NDArray[np.uint8]:
    pixels = np.full((100, 100, 3), GREY, np.uint8)
    pixels[40:60, 5:25] = left
    pixels[40:60, 75:95] = right
    return pixels


@pytest.mark.parametrize(
    ("text", "colours"),
    [
        ("A red bus waits.", ("red",)),
        ("The bus is red.", ("red",)),
        ("The bus is red and white.", ("red", "white")),
        ("A red and white bus.", ("red", "white")),
        ("A bus in red stands out.", ("red",)),
        ("A bus painted in red.", ("red",)),
        ("A bus, red all over, waits.", ("red",)),
        ("The colour of the bus is grey.", ("gray",)),
        ("A bus of a deep red colour.", ("red",)),
        ("The bus in the picture is red.", ("red",)),
        ("The bus parked by the road is red.", ("red",)),
        ("The bus, which stands on the grass, is red.", ("red",)),
        ("A dark-red bus.", ("red",)),
        ("A red-and-white bus.", ("red", "white")),
        ("A red-painted bus.", ("red",)),
        ("The bus sports a red paint job.", ("red",)),
        ("The bus boasts a vivid red color.", ("red",)),
        ("The bus's red paint gleams.", ("red",)),
        ("Painted red, the bus stands out.", ("red",)),
        ("Red and boxy, the bus waits.", ("red",)),
        ("Bright red covers the bus.", ("red",)),
        ("A coat of red covers the bus.", ("red",)),
        ("A bus is here. It is red.", ("red",)),
        ("A bus is here, and it has a red body.", ("red",)),
        ("The bus in the picture has a striking red hue.", ("red",)),
        ("The bus stands out thanks to its red color.", ("red",)),
        ("Red is the colour of the bus.", ("red",)),
        ("Somebody painted the bus red.", ("red",)),
        ("The surface of the bus is red.", ("red",)),
        ("With its red exterior, the bus is easy to notice.", ("red",)),
        ("A bus is here. It stands beside a red car.", ()),
        ("A bus is here. Its driver is red.", ()),
        ("A bus waits for a man. It is a red day.", ()),
        ("The bus is never red.", ()),
        ("The roof of the bus is red.", ()),
        ("The bus, its roof red, waits.", ()),
        ("A red-roofed bus.", ()),
        ("The bus's red lights glow.", ()),
        ("Lit by red light, the bus waits.", ()),
        ("Unlike red ones, the bus is new.", ()),
        ("Everything but the bus is red.", ()),
        ("The bus is next to a sign that is red.", ()),
        ("A driver of the bus looks red.", ()),
        ("A bus that is not red.", ()),
        ("A bus with a red roof.", ()),
        ("A bus waits beside red flowers.", ()),
        ("A bus waits. Red is a colour.", ()),
    ],
)
def test_which_colours_are_said_of_a_noun(text: str, colours: tuple[str, ...]) -> None:
    said, _, where = reading(BUSES, text)
    (bus,) = [ground for ground in where if "bus" in ground.noun.meant]
    assert claimed(said, bus.noun) == colours


def found(text: str, pixels: NDArray[np.uint8], record: Record = BUSES) -> list[str]:
    said, _, where = reading(record, text)
    findings = [contradiction(said, ground, record, pixels) for ground in checkable(said, where)]
    return [finding.detail for finding in findings if finding]


def test_a_colour_that_the_box_does_not_show_is_found() -> None:
    assert found("A green bus and a yellow car.", picture()) == ["'A green bus' green: red in the picture"]
    assert found("The car is blue.", picture()) == ["'The car' blue: yellow in the picture"]


def test_a_colour_that_the_box_shows_is_left_alone() -> None:
    assert found("A red bus and a yellow car.", picture()) == []
    assert found("A red and green bus.", picture()) == []


def test_a_near_colour_is_left_alone() -> None:
    assert found("An orange bus.", picture()) == []
    assert found("A black bus.", picture(left=(60, 62, 66))) == []


def test_a_mask_says_which_pixels_of_a_box_count() -> None:
    pixels = picture(left=GREY)
    pixels[40:45, 5:25] = (20, 160, 40)
    record = replace(
        BUSES,
        regions=(
            replace(BUSES.regions[0], boxes=(replace(BUSES.regions[0].boxes[0], mask="[[5,40,25,40,25,45,5,45]]"),)),
        ),
    )
    assert found("A red bus.", pixels, record) == ["'A red bus' red: green in the picture"]
    assert found("A green bus.", pixels, record) == []


def test_people_and_several_boxes_are_not_judged() -> None:
    record = scene({"person": [LEFT], "dog": [LEFT, RIGHT]})
    assert found("A green man and a green dog.", picture(), record) == []


def test_a_tiny_box_is_not_judged() -> None:
    assert found("A green cup.", picture(), scene({"cup": [(5, 40, 10, 45)]})) == []
