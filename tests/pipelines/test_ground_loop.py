"""The loop closes: a detector is trained, labels new scenes, and a second one is trained on both."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file

from detector.config import ModelSettings, quickstart_settings
from detector.data import TrainData
from detector.train import train
from llmdet.errors import SettingError
from llmdet.record import Record
from llmdet.template import facts_of, image_caption
from llmdet.workspace import Workspace
from llmdet.world import write_world
from pipelines.ingest import ingest
from pipelines.merge import merge
from pipelines.readers import source_of
from pipelines.recipe import Recipe, recipe_of
from pipelines.run import run

WORLD: dict[str, Any] = {
    "format": "coco",
    "annotations": "world/annotations.json",
    "images": "world/images",
    "negatives": 8,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled scenes, others of which only captions are known, and a set to evaluate on."""
    place = tmp_path_factory.mktemp("data")
    for seed, (name, count) in enumerate((("world", 6), ("scenes", 4), ("held_out", 4))):
        write_world(place / name, count, seed)
    scenes = {**WORLD, "annotations": "scenes/annotations.json", "images": "scenes/images"}
    records = [item for item in source_of("s", scenes, str(place)).read() if isinstance(item, Record)]
    lines = [{"file_name": one.image, "text": image_caption(facts_of(one))} for one in records]
    (place / "scenes/images/captions.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return place


def recipe(data: Path, workspace: Path, **sections: Any) -> Recipe:
    """The labelled scenes, two steps of training, and figures on held-out scenes."""
    values = {
        "workspace": str(workspace),
        "data_root": str(data),
        "sources": {"world": WORLD},
        "refine": {"rules": {"debris": {}}},
        "train": {"settings": {**asdict(quickstart_settings(2)), "batch_size": 2}},
        "evaluate": [{"name": "held_out", "annotations": "held_out/annotations.json", "images": "held_out/images"}],
        "report": {"gallery": 0},
        **sections,
    }
    return recipe_of(values)


def first_detector(data: Path, workspace: Workspace, out: Path) -> str:
    """A detector that has seen the labelled scenes only."""
    ingest(workspace, source_of("world", WORLD, str(data)))
    merge(workspace)
    place = TrainData(workspace.groundingcap().url, {"world": str(data / "world/images")})
    settings = replace(quickstart_settings(2), batch_size=2)
    train(settings, ModelSettings(short_side=64, long_side=64), place, str(out))
    return str(out)


@pytest.mark.slow
def test_a_detector_labels_what_the_next_one_learns_from(
    local: None, data: Path, tmp_path: Path, workspace: Workspace
) -> None:
    first = first_detector(data, workspace, tmp_path / "first")
    sources = {"world": WORLD, "scenes": {"format": "folder", "annotations": "", "images": "scenes/images"}}
    ground = {
        "sources": ["scenes"],
        "checkpoint": first,
        "settings": {"parser": "pattern", "min_score": 0.0, "min_boxes": 1},
    }
    learn = {"start": first, "settings": {**asdict(quickstart_settings(2)), "batch_size": 2}}
    again = run(recipe(data, tmp_path / "again", sources=sources, ground=ground, train=learn))
    assert again.records == 10
    assert again.stages["ground scenes"]["records"] == 4
    merged = list(Workspace.at(again.workspace).groundingcap().records())
    pseudo = [one for one in merged if one.source == "scenes"]
    assert {box.origin for one in pseudo for box in one.boxes} == {"pseudo"}
    assert all(box.caption for one in pseudo for box in one.boxes)  # region captions come after the boxes
    assert {caption.provenance.origin for one in pseudo for caption in one.captions} == {"source", "template"}
    # Training began with the first detector, so the figures before it are those of the first.
    assert again.metrics.keys() == {"held_out-untrained", "held_out"}
    assert all(0 <= figures["AP"] <= 1 for figures in again.metrics.values())
    weights = [load_file(Path(folder) / "model.safetensors") for folder in (first, again.checkpoint)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_ground_section_is_checked_before_anything_runs(data: Path, tmp_path: Path) -> None:
    for section, message in (
        ({"sources": ["scene"], "checkpoint": "m"}, r"ground\.sources names 'scene'; the recipe has: world"),
        ({"sources": ["world"]}, "checkpoint"),
        ({"sources": ["world"], "checkpoint": "m", "settings": {"min_scor": 1}}, "did you mean min_score?"),
        ({"sources": ["world"], "checkpoint": "m", "settings": {"nms_iou": 2}}, "nms_iou must be from 0 to 1"),
    ):
        with pytest.raises(SettingError, match=message):
            recipe(data, tmp_path, ground=section)
    asks = {"sources": ["world"], "checkpoint": "m", "settings": {"caption": "lmm"}}
    with pytest.raises(SettingError, match="needs a caption section"):
        recipe(data, tmp_path, ground=asks, caption=None)
