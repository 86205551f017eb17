from __future__ import annotations

from pathlib import Path

import pytest

from detector.config import tiny_captions
from pipelines.quickstart import quickstart_recipe
from pipelines.recipe import load


def test_the_quickstart_learns_from_captions_unless_told_otherwise(tmp_path: Path) -> None:
    on = quickstart_recipe(str(tmp_path), steps=7).train
    off = quickstart_recipe(str(tmp_path), steps=7, captions=False).train
    assert on is not None
    assert off is not None
    assert on.build_settings().captions == tiny_captions()
    assert off.build_settings().captions is None
    assert on.build_settings().steps == off.build_settings().steps == 7


@pytest.mark.parametrize("name", ["quickstart", "coco_tiny"])
def test_the_small_recipes_learn_from_captions_of_images_and_regions(name: str) -> None:
    train = load(name).train
    assert train is not None
    captions = train.build_settings().captions
    assert captions is not None
    assert captions.image_weight > 0
    assert captions.region_weight > 0
