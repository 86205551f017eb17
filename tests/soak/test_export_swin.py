"""Swin-T in full depth with random weights, exported at the command's own check; a quarter of an hour, 6 GB."""

from __future__ import annotations

from pathlib import Path

import pytest

from detector import checkpoint, export
from detector.config import ModelSettings
from llmdet.errors import FormatError
from pipelines.export_model import CHECKED, TIED, TOLERANCE, accept, export_model
from tests.detector.onnx_files import with_weight_off

WEIGHT = "model.decoder.layers.0.fc1.weight"


@pytest.fixture(scope="module")
def swin_t(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swin_t")
    checkpoint.write_model(folder, checkpoint.start(ModelSettings(start="swin-t", short_side=256, long_side=320), 0))
    return folder


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_whole_swin_t_is_exported_and_one_with_a_wrong_weight_is_not(
    suffix: str, swin_t: Path, tmp_path: Path
) -> None:
    outcome = export_model(str(swin_t), str(tmp_path / f"swin_t{suffix}"))
    print(outcome)
    assert max(outcome.score_difference, outcome.box_difference) < TOLERANCE
    assert outcome.tie < TIED
    assert outcome.queries == 3 * 900
    if suffix == ".onnx":
        model = checkpoint.read(swin_t).model.eval()
        wrong = with_weight_off(Path(outcome.model), model.get_parameter(WEIGHT), tmp_path / "wrong.onnx", 1.1)
        agreement = export.check(wrong, "onnx", model, CHECKED)
        print(agreement)
        with pytest.raises(FormatError, match="nothing was written"):
            accept(agreement, str(swin_t))
