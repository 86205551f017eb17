import re
from pathlib import Path

import pytest

from llmdet.errors import SettingError
from llmdet.exports.mmdet_config import MmdetConfig
from llmdet.record import to_batch
from llmdet.sources.source import SourceInfo
from tests.llmdet.example_records import FULL, PETS, SENTENCE


def values(path: Path) -> dict:
    """The configuration as Python, with a text where mmengine puts a value of the base file."""
    scope: dict = {}
    exec(re.sub(r"\{\{(\S+)\}\}", r"'\1'", path.read_text()), scope)
    return scope


def test_configuration_points_at_the_lines_beside_it(tmp_path: Path) -> None:
    outcome = MmdetConfig(form="od", load_from="tiny.pth").write([to_batch([FULL])], str(tmp_path), {"pets": PETS})
    assert outcome.files == ("odvg.jsonl", "label_map.json", "mm_grounding_dino.py")
    config = values(tmp_path / "mm_grounding_dino.py")
    dataset = config["train_dataloader"]["dataset"]
    assert Path(dataset["data_root"], dataset["ann_file"]).read_bytes() == (tmp_path / "odvg.jsonl").read_bytes()
    assert dataset["label_map_file"] == "label_map.json"
    assert dataset["data_prefix"] == {"img": "/data/pets/"}
    assert dataset["pipeline"] == "_base_.train_pipeline"
    assert config["load_from"] == "tiny.pth"
    assert config["_base_"].startswith("mmdet::mm_grounding_dino/")


def test_lines_with_texts_have_no_label_map(tmp_path: Path) -> None:
    MmdetConfig().write([to_batch([FULL])], str(tmp_path), {"pets": PETS})
    assert values(tmp_path / "mm_grounding_dino.py")["train_dataloader"]["dataset"]["label_map_file"] is None


def test_several_picture_folders_need_copies_or_links(tmp_path: Path) -> None:
    flickr = SourceInfo("flickr", "flickr30k", "", "", "/data/flickr")
    with pytest.raises(SettingError, match="--images link"):
        MmdetConfig().write([to_batch([FULL, SENTENCE])], str(tmp_path), {"pets": PETS, "flickr": flickr})
    MmdetConfig(images="copy").write([to_batch([FULL, SENTENCE])], str(tmp_path), {"pets": PETS, "flickr": flickr})
    dataset = values(tmp_path / "mm_grounding_dino.py")["train_dataloader"]["dataset"]
    assert dataset["data_prefix"] == {"img": "images/"}
