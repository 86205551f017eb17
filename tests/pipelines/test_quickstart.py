from __future__ import annotations

import json
import os
import statistics
from pathlib import Path

import pytest

from detector.config import tiny_captions
from pipelines.quickstart import quickstart_recipe
from pipelines.recipe import load
from pipelines.train_log import curve


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


@pytest.mark.skipif("LLMDET_QUICKSTART" not in os.environ, reason="LLMDET_QUICKSTART names no finished quickstart")
def test_a_finished_quickstart_has_learned_boxes_and_words() -> None:
    """The bounds are far below what three seeds gave, see benchmarks/README.md."""
    folder = Path(os.environ["LLMDET_QUICKSTART"], "detector", "quickstart")
    for name in ("seen", "unseen"):
        figures = json.loads((folder / "evaluations" / f"{name}_metrics.json").read_bytes())
        assert figures["metrics"]["AP50"] > 0.6
    rows, _ = curve(str(folder))
    for loss, share in (("caption_image", 0.9), ("caption_region", 0.7), ("decoder", 0.5)):
        first, last = (statistics.mean(row[f"loss/{loss}"] for row in part) for part in (rows[:90], rows[-90:]))
        assert last < share * first
