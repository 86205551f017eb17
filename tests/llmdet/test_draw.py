"""What is drawn, read back from the pixels."""

import numpy as np
import pytest
from PIL import Image

from llmdet.draw import PALETTE, _system_fonts, _written, colours_of, draw_boxes, ink_on

GREY = (128, 128, 128)


def picture(width: int = 640, height: int = 480) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def has(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(image) == colour).all(axis=-1)


def test_line_follows_the_box_in_the_colour_of_the_phrase():
    drawn = draw_boxes(picture(), [[100, 200, 300, 400]], ["dog"])
    colour = PALETTE[colours_of(["dog"])["dog"]]
    for point in ((101, 300), (298, 300), (200, 398)):  # left, right, lower line, inside the dark rim
        assert drawn.getpixel(point) == colour
    assert drawn.getpixel((200, 300)) == GREY


def test_label_stands_inside_the_picture_for_boxes_at_every_edge():
    for box in ((0, 0, 30, 30), (610, 0, 640, 30), (0, 450, 30, 480), (610, 450, 640, 480), (0, 0, 640, 480)):
        drawn = draw_boxes(picture(), [box], ["a rather long phrase of a caption"])
        rows, columns = np.nonzero(
            has(drawn, PALETTE[colours_of(["a rather long phrase of a caption"])["a rather long phrase of a caption"]])
        )
        filled = columns.max() - columns.min()
        assert filled > 200, box  # the label is far wider than the box and not cut at the edge
        assert rows.min() >= 0
        assert columns.max() <= 639


def test_label_longer_than_the_picture_is_cut():
    drawn = draw_boxes(picture(500, 100), [[10, 50, 60, 90]], ["word " * 100])
    assert drawn.size == (500, 100)
    assert has(drawn, PALETTE[next(iter(colours_of(["word " * 100]).values()))]).any()


def test_small_picture_is_enlarged_by_a_whole_factor_and_its_boxes_with_it():
    drawn = draw_boxes(picture(128, 128), [[32, 32, 96, 96]], ["dog"])
    assert drawn.size == (512, 512)
    assert drawn.getpixel((129, 256)) == PALETTE[colours_of(["dog"])["dog"]]


def test_large_picture_keeps_its_size_and_has_thicker_lines():
    colour = PALETTE[colours_of(["dog"])["dog"]]
    thick = draw_boxes(picture(3000, 2000), [[500, 500, 2500, 1500]], ["dog"])
    assert thick.size == (3000, 2000)
    assert has(thick, colour)[1000, 490:520].sum() == 9  # 3000 / 320


def test_box_is_clipped_and_one_outside_is_not_drawn():
    drawn = draw_boxes(picture(), [[-50, 100, 200, 700]], ["dog"])
    assert drawn.getpixel((1, 300)) == PALETTE[colours_of(["dog"])["dog"]]
    untouched = draw_boxes(picture(), [[700, 100, 800, 200], [float("nan"), 0, 10, 10]], ["dog", "cat"])
    assert (np.asarray(untouched) == GREY).all()


def test_colour_belongs_to_the_phrase_whatever_its_case_and_place():
    assert colours_of(["dog"])["dog"] == colours_of(["Dog"])["Dog"]
    assert colours_of(["cat", "dog"])["dog"] == colours_of(["dog", "cat"])["dog"]


def test_phrases_of_one_picture_get_different_colours_while_the_palette_lasts():
    phrases = [f"thing {i}" for i in range(len(PALETTE))]
    assert len(set(colours_of(phrases).values())) == len(PALETTE)
    assert len(colours_of([*phrases, "one more"])) == len(PALETTE) + 1


def test_ink_contrasts_with_every_colour_of_the_palette():
    assert ink_on((255, 255, 255)) == (0, 0, 0)
    assert ink_on((0, 0, 0)) == (255, 255, 255)
    assert {ink_on(colour) for colour in PALETTE} == {(0, 0, 0), (255, 255, 255)}


def test_labels_of_neighbours_do_not_cover_each_other():
    from llmdet.draw import _Pen

    pen = _Pen(picture())
    for i in range(6):
        box = (200 + 30 * i, 200, 260 + 30 * i, 260)
        pen.label(box, (f"{i} a person standing", str(i)), PALETTE[i])
    apart = [a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1] for a in pen.labels for b in pen.labels if a != b]
    assert len(apart) == 6 * 5
    assert all(apart)


def test_score_and_odd_characters_do_not_stop_the_drawing():
    labels = ["line\nbreak", "\u202ebidi", "", "狗"]
    drawn = draw_boxes(picture(), [[10, 100, 90, 190]] * 4, labels, [0.5, None, 1.0, 0.0])
    assert drawn.mode == "RGB"
    assert not (np.asarray(drawn) == GREY).all()


def test_a_letter_that_no_font_has_is_written_plainly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmdet.draw._SYSTEM_FONTS", ())
    for cached in (_written, _system_fonts):
        cached.cache_clear()
    assert _written("caf\u00e9 \u0130stanbul", 20)[1] == "cafe Istanbul"
    assert _written("\u732b dog", 20)[1] == "? dog"
    assert _written("dog", 20)[1] == "dog"
    for cached in (_written, _system_fonts):
        cached.cache_clear()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_mode_becomes_rgb(mode):
    assert draw_boxes(Image.new(mode, (640, 480)), [], []).mode == "RGB"


def test_input_is_left_as_it_was():
    image = picture()
    draw_boxes(image, [[10, 10, 200, 200]], ["dog"])
    assert (np.asarray(image) == GREY).all()


def test_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 boxes came with 1 labels"):
        draw_boxes(picture(), [[0, 0, 1, 1], [0, 0, 2, 2]], ["dog"])
