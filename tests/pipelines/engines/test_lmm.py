"""What all engines with a language model share: what is part of a ledger's name, and what pictures they get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmdet.errors import ImageError
from llmdet.prompts.frames import FAMILIES, GENERAL
from llmdet.prompts.prompt import View
from pipelines.engines.engine import Job, fingerprint_of
from pipelines.engines.lmm import Pictures
from pipelines.engines.vllm import VllmEngine
from tests.pipelines.fakes import record


def photo(folder: Path, size: tuple[int, int], turn: int = 1) -> str:
    """A photo whose left upper corner, as stored, is white."""
    exif = Image.Exif()
    exif[0x0112] = turn
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (0, 0, 20, 20))
    image.save(folder / "0.png", exif=exif)
    return str(folder / "0.png")


def test_a_model_gets_the_orientation_that_has_the_annotated_size(tmp_path: Path) -> None:
    url = photo(tmp_path, (80, 100), turn=6)  # a quarter turn clockwise
    one = replace(record(0), width=100, height=80)
    for orientation in ("stored", "applied"):
        shown = Pictures(Job(replace(one, orientation=orientation), url, ()), GENERAL).of(View())
        assert isinstance(shown, Image.Image)
        assert shown.size == (100, 80)
        assert shown.getpixel((95, 5)) == (255, 255, 255)


def test_boxes_are_not_asked_about_in_a_photo_of_another_size(tmp_path: Path) -> None:
    url = photo(tmp_path, (200, 160))
    with pytest.raises(ImageError, match=r"annotations say 100x80, .* is 200x160") as caught:
        Pictures(Job(record(0), url, ()), GENERAL)
    assert caught.value.reason == "size_mismatch"


def test_a_view_that_is_too_narrow_harms_no_other(tmp_path: Path) -> None:
    one = replace(record(0), width=300, height=300)
    pictures = Pictures(Job(one, photo(tmp_path, (300, 300)), ()), FAMILIES["qwen2_vl"])
    narrow = pictures.of(View("crop", ((0.0, 0.0, 1.0, 300.0),)))
    assert isinstance(narrow, ImageError)
    assert narrow.reason == "image_too_narrow"
    assert isinstance(pictures.of(View()), Image.Image)


@pytest.mark.parametrize(
    "change",
    [
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"engine_args": {"hf_overrides": {"rope_scaling": 2}}},
        {"preset": "72b-fp8"},
        {"quantization": "fp8"},
        {"max_pixels": 56 * 56},
    ],
    ids=str,
)
def test_what_changes_the_answers_of_vllm_changes_its_ledger(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    engine = VllmEngine(model=str(tmp_path), min_pixels=28 * 28)
    assert _ledger(engine) != _ledger(replace(engine, **change))
    assert _ledger(engine) == _ledger(replace(engine, max_num_seqs=8, environment={"A": "b"}, replicas=3))


def _ledger(engine: VllmEngine) -> str:
    return fingerprint_of(engine.prompts()["image"], engine.identity())
