"""Thresholds of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector.thresholds import threshold_of
from llmdet.errors import FormatError


def test_families_have_those_of_their_makers() -> None:
    assert threshold_of("iSEE-Laboratory/llmdet_tiny", "detection") == 0.4
    assert threshold_of("iSEE-Laboratory/llmdet_tiny", "grounding") == 0.35
    assert threshold_of("openmmlab-community/mm_grounding_dino_tiny", "detection") == 0.3


def test_a_checkpoint_may_say_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert threshold_of(str(tmp_path), "detection") == 0.3
    (tmp_path / "thresholds.json").write_text('{"detection": 0.25}')
    assert threshold_of(str(tmp_path), "detection") == 0.25
    assert threshold_of(str(tmp_path), "grounding") == 0.3


@pytest.mark.parametrize("wrong", ["[]", '{"detection": 2}', '{"detection": "x"}', '{"detection": null}'])
def test_a_damaged_file_is_told(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "thresholds.json").write_text(wrong)
    with pytest.raises(FormatError, match="must be an object of modes"):
        threshold_of(str(tmp_path), "detection")
