"""The training configuration that we write: mmengine parses it, mmdet builds its data set and takes a step with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest

from llmdet.exports.mmdet_config import MmdetConfig
from llmdet.record import Record, to_batch
from llmdet.sources.coco import Coco
from llmdet.world import write_world
from tests.consumers.conftest import Mmdet

pytestmark = pytest.mark.mmdet


@pytest.mark.parametrize("form", ["vg", "od"])
def test_mmdet_takes_a_training_step_with_the_configuration(
    form: Literal["vg", "od"], mmdet: Mmdet, tmp_path: Path
) -> None:
    annotations = write_world(tmp_path / "world", 6, 3)
    source = Coco(annotations=str(annotations), images=str(tmp_path / "world/images"))
    records = [item for item in source.read() if isinstance(item, Record)]
    exporter = MmdetConfig(form=form, batch_size=2, epochs=3, learning_rate=2e-4, load_from="start.pth")
    exporter.write([to_batch(records)], str(tmp_path / "out"), {"coco": source.info()})
    built = mmdet.ask("config", path=tmp_path / "out/mm_grounding_dino.py", train=True)
    assert (built["class"], built["length"], built["model"]) == ("ODVGDataset", 6, "GroundingDINO")
    assert built["steps"][0] == "LoadImageFromFile"
    assert "RandomSamplingNegPos" in built["steps"]
    assert (built["batch_size"], built["epochs"], built["learning_rate"]) == (2, 3, 2e-4)
    assert built["load_from"] == "start.pth"
    for record, text in zip(records[:2], built["texts"], strict=True):
        assert all(phrase in text for region in record.regions for phrase in region.phrases)
    # Random crops may lose a box, never add one.
    assert all(0 < boxes <= len(record.boxes) for record, boxes in zip(records[:2], built["boxes"], strict=True))
    assert {"loss", "loss_cls", "loss_bbox", "dn_loss_cls", "enc_loss_cls"} <= set(built["losses"])
    assert all(math.isfinite(value) for value in built["losses"].values())
    assert built["losses"]["loss_bbox"] > 0
    assert built["learning"] > 100  # parameters with a gradient


def test_pictures_beside_the_configuration_are_found(mmdet: Mmdet, tmp_path: Path) -> None:
    annotations = write_world(tmp_path / "world", 3, 5)
    source = Coco(annotations=str(annotations), images=str(tmp_path / "world/images"))
    records = [item for item in source.read() if isinstance(item, Record)]
    MmdetConfig(images="copy").write([to_batch(records)], str(tmp_path / "out"), {"coco": source.info()})
    (tmp_path / "world").rename(tmp_path / "elsewhere")
    built = mmdet.ask("config", path=tmp_path / "out/mm_grounding_dino.py")
    assert built["length"] == 3
    assert built["texts"] == [record.text.strip() for record in records[:2]]
