"""Frames: sizes and tokens as transformers' own processors have them, boxes as each family writes them."""

import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from llmdet.errors import ImageError, SettingError
from llmdet.prompts.frames import FAMILIES, Frame, frame_of

SIDES = st.integers(1, 9000)
PATCHES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]


@settings(deadline=None)  # the first example imports torch
@given(width=SIDES, height=SIDES, family=st.sampled_from(PATCHES), most=st.sampled_from([1, 2, 5, 64]))
def test_sizes_are_those_of_smart_resize(width: int, height: int, family: str, most: int) -> None:
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    frame = FAMILIES[family]
    frame = replace(frame, max_pixels=frame.min_pixels * most)
    limits = {"factor": frame.factor, "min_pixels": frame.min_pixels, "max_pixels": frame.max_pixels}
    try:
        high, wide = processing.smart_resize(height, width, **limits)
        processing.smart_resize(high, wide, factor=frame.factor, max_pixels=10**9)  # what the model's own does with it
    except ValueError:
        with pytest.raises(ImageError, match="image_too_narrow"):
            frame.resized(width, height)
        return
    assert frame.resized(width, height) == (wide, high)
    assert frame.image_tokens(width, height) == (wide // frame.factor) * (high // frame.factor)


@given(width=SIDES, height=SIDES, family=st.sampled_from(sorted(FAMILIES)))
def test_resizing_twice_changes_nothing_and_stays_within_the_limit(width: int, height: int, family: str) -> None:
    frame = FAMILIES[family]
    assume(max(width, height) / min(width, height) < 150)
    size = frame.resized(width, height)
    assert frame.resized(*size) == size
    assert size[0] * size[1] <= frame.max_pixels


@pytest.mark.parametrize(
    ("family", "size", "resized", "tokens"),
    [
        ("qwen2_vl", (448, 448), (448, 448), 256),
        ("qwen2_vl", (640, 480), (644, 476), 23 * 17),
        ("qwen2_5_vl", (640, 480), (644, 476), 23 * 17),
        ("qwen3_vl", (640, 480), (640, 480), 20 * 15),
        ("qwen3_vl", (100, 50), (384, 192), 12 * 6),  # at least 65,536 pixels
        ("qwen2_vl", (4000, 3000), (1148, 840), 41 * 30),  # at most 1,003,520 pixels
        ("llava_onevision", (384, 384), (384, 384), 729 + 27 * 28),
        ("internvl", (448, 448), (448, 448), 258),
        ("internvl", (896, 448), (896, 448), 3 * 256 + 2),
        ("some_other", (640, 480), (640, 480), 23 * 18),
    ],
)
def test_known_sizes(family: str, size: tuple[int, int], resized: tuple[int, int], tokens: int) -> None:
    frame = frame_of(family)
    assert frame.resized(*size) == resized
    assert frame.image_tokens(*size) == tokens


def test_tokens_of_tiles_are_those_of_transformers() -> None:
    onevision = pytest.importorskip("transformers.models.llava_onevision.processing_llava_onevision")
    tiling = pytest.importorskip("transformers.models.got_ocr2.image_processing_pil_got_ocr2")
    sides = range(1, 7)
    pinpoints = [[384 * rows, 384 * columns] for rows in sides for columns in sides]
    self = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=pinpoints),
        num_image_tokens=729,
        vision_aspect_ratio="anyres_max_9",
    )
    processor = onevision.LlavaOnevisionProcessor
    self._get_unpadded_features = lambda *sizes: processor._get_unpadded_features(self, *sizes)
    for width in range(20, 1000, 97):
        for height in range(20, 1000, 83):
            expected = processor._get_number_of_features(self, height, width, 384, 384)
            assert FAMILIES["llava_onevision"].image_tokens(width, height) == expected
            columns, rows = tiling.get_optimal_tiled_canvas((height, width), (448, 448), 1, 12)
            count = columns * rows + (columns * rows > 1)
            assert FAMILIES["internvl"].image_tokens(width, height) == 2 + 256 * count


@pytest.mark.parametrize(("family", "patch"), [("qwen2_vl", 14), ("qwen2_5_vl", 14), ("qwen3_vl", 16)])
def test_the_real_processor_leaves_a_fitted_picture_alone_and_counts_the_same(family: str, patch: int) -> None:
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    frame = FAMILIES[family]
    wide = {"shortest_edge": frame.factor**2, "longest_edge": 1 << 26}
    processor = processing.Qwen2VLImageProcessorPil(size=wide, patch_size=patch)
    for size in ((640, 480), (1500, 900), (37, 500), (3000, 200), (50, 40)):
        fitted = frame.fit(Image.new("RGB", size, (9, 99, 199)))
        _, rows, columns = processor(images=[fitted])["image_grid_thw"][0].tolist()
        assert (columns * patch, rows * patch) == fitted.size
        assert frame.image_tokens(*size) == rows * columns // 4


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_strip_is_refused_with_a_word(family: str) -> None:
    with pytest.raises(ImageError) as caught:
        FAMILIES[family].resized(4020, 20)
    assert caught.value.reason == "image_too_narrow"
    with pytest.raises(ImageError):
        FAMILIES[family].resized(0, 20)


def test_a_lower_limit_of_aspect_can_be_set() -> None:
    frame = replace(FAMILIES["qwen3_vl"], max_aspect=4.0)
    assert frame.resized(1280, 320) == (1280, 320)
    with pytest.raises(ImageError, match="1320x320 is narrower than 1 to 4"):
        frame.resized(1320, 320)


@pytest.mark.parametrize(
    ("family", "written"),
    [
        ("qwen2_vl", "<|box_start|>(100,250),(500,1000)<|box_end|>"),
        ("qwen2_5_vl", "[101, 168, 504, 672]"),  # of 1008 x 672
        ("qwen3_vl", "[100, 250, 500, 1000]"),
        ("llava_onevision", "[0.10, 0.25, 0.50, 1.00]"),
        ("internvl", "<box>[[100, 250, 500, 1000]]</box>"),
        ("some_other", "[100, 250, 500, 1000]"),
    ],
)
def test_a_box_is_written_as_the_family_does(family: str, written: str) -> None:
    frame = frame_of(family)
    assert frame.write((100.0, 166.666, 500.0, 999.0), 1000, 666) == written  # the lower edge is cut to the picture


@pytest.mark.parametrize(
    ("family", "box", "units"),
    [
        ("qwen3_vl", (0.0, 0.0, 1.2, 1.2), (0, 0, 1, 1)),
        ("qwen3_vl", (3998.0, 10.0, 4000.0, 11.0), (999, 3, 1000, 4)),
        ("qwen2_5_vl", (3999.0, 2999.0, 4000.0, 3000.0), (1147, 839, 1148, 840)),
        ("llava_onevision", (-50.0, 1500.0, 2.0, 1501.0), (0, 50, 1, 51)),
    ],
)
def test_a_small_box_keeps_an_area(
    family: str, box: tuple[float, float, float, float], units: tuple[int, int, int, int]
) -> None:
    assert FAMILIES[family].place(box, 4000, 3000) == units


@given(
    st.tuples(*[st.floats(-100, 1100)] * 4),
    st.integers(20, 1000),
    st.integers(20, 1000),
    st.sampled_from(["qwen2_5_vl", "internvl"]),
)
def test_places_are_inside_and_near(
    ends: tuple[float, float, float, float], width: int, height: int, family: str
) -> None:
    x1, x2 = sorted(ends[:2])
    y1, y2 = sorted(ends[2:])
    frame = FAMILIES[family]
    wide, high = frame.resized(width, height) if frame.unit == "pixel" else (1000, 1000)
    left, top, right, bottom = frame.place((x1, y1, x2, y2), width, height)
    assert 0 <= left < right <= wide
    assert 0 <= top < bottom <= high
    assert math.isclose(left / wide * width, min(max(x1, 0), width), abs_tol=1.5 * width / wide)
    assert math.isclose(bottom / high * height, min(max(y2, 0), height), abs_tol=1.5 * height / high)


def test_the_legend_says_the_size_the_model_sees() -> None:
    assert FAMILIES["qwen2_5_vl"].legend(640, 480) == "in pixels of the picture, which is 644 wide and 476 high"
    assert "0 to 1000" in FAMILIES["qwen3_vl"].legend(640, 480)
    assert "0 to 1" in FAMILIES["llava_onevision"].legend(640, 480)


@pytest.mark.parametrize("family", [*sorted(FAMILIES), "some_other"])
def test_fit_gives_the_size_and_leaves_a_fitting_picture_alone(family: str) -> None:
    frame = frame_of(family)
    image = Image.new("RGB", (1500, 900), (10, 200, 30))
    fitted = frame.fit(image)
    assert fitted.size == frame.resized(1500, 900)
    assert fitted.getpixel((5, 5)) == (10, 200, 30)
    assert frame.fit(fitted) is fitted


def test_fit_is_bicubic() -> None:
    image = Image.radial_gradient("L").convert("RGB")
    frame = replace(FAMILIES["qwen2_vl"], min_pixels=28 * 28, max_pixels=112 * 112)
    assert frame.fit(image).tobytes() == image.resize((112, 112), Image.Resampling.BICUBIC).tobytes()


def test_a_frame_survives_json_and_refuses_limits_that_cross() -> None:
    frame = FAMILIES["qwen2_vl"]
    assert Frame.of(orjson.loads(orjson.dumps(asdict(frame)))) == frame
    assert Frame.of(frame) is frame
    with pytest.raises(SettingError, match="min_pixels 9999"):
        replace(frame, min_pixels=9999, max_pixels=9000)
    with pytest.raises(SettingError):
        replace(frame, min_pixels=5)
