"""Views: what of a picture a question shows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llmdet.prompts.prompt import View
from llmdet.prompts.views import crop_of, view_of, view_size

GREY = (90, 90, 90)


def picture(width: int = 200, height: int = 100) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def test_the_whole_is_the_picture_itself() -> None:
    image = picture()
    assert view_of(image, View()) is image
    assert view_size(View(), 200, 100) == (200, 100)


def test_a_crop_has_the_pixels_of_its_part() -> None:
    ramp = Image.fromarray(np.arange(200, dtype=np.uint8)[None].repeat(100, 0)).convert("RGB")
    view = crop_of((50.0, 10.0, 70.0, 30.0), 200, 100, padding=0.25)
    assert view == View("crop", ((45, 5, 75, 35),))
    shown = np.asarray(view_of(ramp, view))
    assert shown.shape == (30, 30, 3)
    assert shown[0, :, 0].tolist() == list(range(45, 75))
    assert view_size(view, 200, 100) == (30, 30)


@pytest.mark.parametrize(
    ("box", "padding", "part"),
    [
        ((10.2, 20.7, 30.5, 40.1), 0.0, (10, 20, 31, 41)),  # whole pixels around it
        ((0.0, 0.0, 40.0, 40.0), 0.5, (0, 0, 60, 60)),  # cut to the picture
        ((-50.0, -50.0, 500.0, 500.0), 0.0, (0, 0, 200, 100)),
        ((199.5, 99.5, 200.0, 100.0), 0.0, (199, 99, 200, 100)),
        ((200.0, 100.0, 200.0, 100.0), 0.0, (199, 99, 200, 100)),  # never without area
        ((0.0, 50.0, 0.0, 50.0), 0.0, (0, 50, 1, 51)),
    ],
)
def test_a_crop_is_inside_the_picture(
    box: tuple[float, float, float, float], padding: float, part: tuple[int, int, int, int]
) -> None:
    assert crop_of(box, 200, 100, padding).boxes == (part,)


@given(st.tuples(*[st.floats(-50, 300)] * 4), st.integers(1, 300), st.integers(1, 300), st.floats(0, 10))
def test_every_crop_can_be_made(
    ends: tuple[float, float, float, float], width: int, height: int, padding: float
) -> None:
    (x1, x2), (y1, y2) = sorted(ends[:2]), sorted(ends[2:])
    view = crop_of((x1, y1, x2, y2), width, height, padding)
    left, top, right, bottom = view.boxes[0]
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert view_of(picture(width, height), view).size == view_size(view, width, height)


def test_marks_are_drawn_where_the_boxes_are_each_in_its_colour() -> None:
    image = picture(400, 300)
    view = View("mark", ((20.0, 60.0, 120.0, 160.0), (200.0, 100.0, 380.0, 280.0)), (1, 2))
    shown = view_of(image, view)
    assert shown.size == view_size(view, 400, 300) == (400, 300)
    assert image.getcolors() == [(120_000, GREY)]  # the photo itself is left alone
    changed = (np.asarray(shown) != GREY).any(axis=2)
    assert [changed[at] for at in ((60, 30), (100, 20), (279, 300))] == [True] * 3
    assert [changed[at] for at in ((100, 70), (200, 290), (20, 300))] == [False] * 3
    assert shown.getpixel((21, 120)) != shown.getpixel((201, 200))


def test_the_number_is_the_one_that_is_given() -> None:
    box = ((50.0, 50.0, 150.0, 90.0),)
    first, second = (view_of(picture(), View("mark", box, (number,))) for number in (4, 4 + 16))
    # The same colour: what differs is the label, 4 or 20.
    differs = np.argwhere((np.asarray(first) != np.asarray(second)).any(axis=2))
    assert 0 < len(differs) < 900
    assert view_of(picture(), View("mark", box, (4,))).tobytes() == first.tobytes()


def test_a_mark_without_area_or_outside_is_no_trouble() -> None:
    view = View("mark", ((0.0, 0.0, 0.0, 0.0), (199.0, 99.0, 300.0, 300.0), (-9.0, -9.0, 0.5, 0.5)), (1, 2, 3))
    assert view_of(picture(), view).size == (200, 100)
    assert view_of(Image.new("L", (3, 2)), View("mark", ((0.0, 0.0, 3.0, 2.0),), (1,))).mode == "RGB"
