"""mmdet's own ODVGDataset reads what was exported. It lives in an environment of its own: LLMDET_MMDET_PYTHON."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from llmdet.exports.mmdet_config import MmdetConfig
from llmdet.record import Record, to_batch
from llmdet.sources.coco import Coco
from llmdet.sources.mdetr import MdetrJson
from llmdet.sources.source import SourceInfo

pytestmark = pytest.mark.mmdet
PYTHON = "LLMDET_MMDET_PYTHON"


def read_with_mmdet(out: Path) -> dict:
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"{PYTHON} is not set: it names a Python that has mmdet")
    script = Path(__file__).with_name("mmdet_reader.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, str(script), str(out / "mm_grounding_dino.py")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_detection_lines_give_mmdet_the_same_boxes_and_labels(samples: Path, tmp_path: Path) -> None:
    folder = samples / "coco/coco_tiny_val"
    source = Coco(annotations=str(folder / "annotations/instances_val2017.json"), images=str(folder / "val2017"))
    records = [item for item in source.read() if isinstance(item, Record)]
    MmdetConfig(form="od").write([to_batch(records)], str(tmp_path), {"coco": source.info()})
    read = read_with_mmdet(tmp_path)
    assert read["model"] == "GroundingDINO"
    assert "RandomSamplingNegPos" in read["steps"]
    assert len(read["records"]) == 80
    names = [category.name for category in source.info().categories]
    for held, record in zip(read["records"], records, strict=True):
        assert Path(held["img_path"]).exists()
        pairs = sorted(
            (box.order, list(box.xyxy), names.index(region.phrases[0]))
            for region in record.regions
            for box in region.boxes
        )
        assert [(row["bbox"], row["bbox_label"]) for row in held["instances"]] == [pair[1:] for pair in pairs]
        assert held["text"]["0"] == "person"


def test_grounding_lines_give_mmdet_the_same_phrases_and_spans(samples: Path, tmp_path: Path) -> None:
    original = samples / "goldg/final_flickr_separateGT_train.json"
    records = list(MdetrJson(annotations=str(original), name="flickr", licence="", address="").read())
    images = str(samples / "flickr30k")
    MmdetConfig().write([to_batch(records)], str(tmp_path), {"flickr": SourceInfo("flickr", "", "", "", images)})
    read = read_with_mmdet(tmp_path)
    assert len(read["records"]) == 40
    for held, record in zip(read["records"], records, strict=True):
        assert held["text"] == record.text
        assert [row["bbox"] for row in held["instances"]] == [
            list(box.xyxy) for region in record.regions for box in region.boxes
        ]
        for row in held["instances"]:
            phrase, region = held["phrases"][str(row["bbox_label"])], record.regions[row["bbox_label"]]
            assert phrase["tokens_positive"] == [list(span) for span in region.spans]
            assert phrase["phrase"] == (region.phrases[0] if len(region.phrases) == 1 else list(region.phrases))
