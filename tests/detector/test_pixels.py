"""Pixels as transformers' own processor makes them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GroundingDinoImageProcessorPil

from detector.pixels import Pixels, pad_pixels


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("short", "long"), [(128, 128), (60, 100), (64, 1000)])
def test_values_equal_those_of_the_processor(short: int, long: int) -> None:
    pixels = Pixels(short, long)
    images = [picture(128, 128), picture(97, 200), picture(301, 77)]
    for image in images:
        expected = pixels.processor()(images=image, return_tensors="pt")
        found, mask = pad_pixels([pixels(image)])
        assert found.shape == expected["pixel_values"].shape
        assert torch.allclose(found, expected["pixel_values"], atol=1e-5)
        assert torch.equal(mask, expected["pixel_mask"])


def test_a_batch_is_padded_with_zeros_right_and_below() -> None:
    values, mask = pad_pixels([np.ones((3, 2, 4), np.float32), np.full((3, 3, 1), 2, np.float32)])
    assert values.shape == (2, 3, 3, 4)
    assert mask.sum((1, 2)).tolist() == [8, 3]
    assert values.sum((1, 2, 3)).tolist() == [24.0, 18.0]
    assert values[1, :, :, 1:].abs().max() == 0


def test_settings_survive_a_saved_processor(tmp_path: pytest.TempPathFactory) -> None:
    pixels = Pixels(60, 100, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    pixels.processor().save_pretrained(str(tmp_path))
    assert Pixels.of(GroundingDinoImageProcessorPil.from_pretrained(str(tmp_path))) == pixels


def test_a_strip_is_stretched_to_what_the_queries_need() -> None:
    """2000 x 3 pixels would be 1333 x 2; 3000 x 1 would have no height."""
    for width, height, tall in ((2000, 3, 64), (3000, 1, 64), (2000, 150, 100)):
        assert Pixels()(picture(width, height)).shape[1] == tall
        assert Pixels()(picture(height, width)).shape[2] == tall
    assert Pixels()(picture(2000, 3)).shape[2] == 1333
    assert Pixels()(picture(1, 1)).shape == (3, 800, 800)
    assert Pixels(10, 100)(picture(300, 1)).shape[1] == 1
