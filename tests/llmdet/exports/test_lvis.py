import json
from pathlib import Path

import numpy as np
import pytest

from llmdet.exports.lvis import Lvis
from llmdet.exports.odvg import Odvg
from llmdet.record import Box, Record, Region, to_batch
from llmdet.sources.lvis import Lvis as LvisSource
from llmdet.sources.source import Category, SourceInfo
from tests.llmdet.example_records import FULL, PETS


def test_what_was_searched_for_comes_from_the_names_where_the_source_does_not_say(tmp_path: Path) -> None:
    Lvis().write([to_batch([FULL])], str(tmp_path), {"pets": PETS})
    document = json.loads((tmp_path / "lvis_v1.json").read_bytes())
    assert document["images"] == [
        {
            "id": 12,
            "height": 80,
            "width": 100,
            "coco_url": "http://images.cocodataset.org/train2017/12.jpg",
            "neg_category_ids": [9],
            "not_exhaustive_category_ids": [],
        }
    ]
    assert [sorted(row) for row in document["annotations"]][1] == [
        "area", "bbox", "category_id", "id", "image_id", "segmentation"
    ]  # fmt: skip
    assert document["categories"][1] == {
        "id": 7, "name": "dog", "synset": "", "synonyms": ["dog"], "def": "",
        "frequency": "r", "image_count": 1, "instance_count": 2,
    }  # fmt: skip


def test_crowd_box_is_left_out_and_makes_its_category_not_exhaustive(tmp_path: Path) -> None:
    boxes = (Box((0.0, 0.0, 9.0, 9.0), crowd=True), Box((1.0, 1.0, 5.0, 5.0), 1))
    region = Region(("dog",), ((0, 3),), boxes, 7)
    record = Record(
        "p/1/0", "pets", "1", "0", "detection", "1.jpg", "pets", 10, 20, "dog. ", (region,), exhaustive=True
    )
    outcome = Lvis().write([to_batch([record])], str(tmp_path), {"pets": PETS})
    document = json.loads((tmp_path / "lvis_v1.json").read_bytes())
    assert document["images"][0]["not_exhaustive_category_ids"] == [7]
    assert document["images"][0]["coco_url"] == "http://images.cocodataset.org/1.jpg"
    assert (outcome.boxes, outcome.lost) == (1, {"crowd boxes": 1})


@pytest.mark.parametrize("name", ["lvis_v1_style_part_a.json", "lvis_val_part_a.json"])
def test_real_annotations_come_back_as_identical_records(name: str, samples: Path, tmp_path: Path) -> None:
    source = LvisSource(annotations=str(samples / "lvis" / name), images="")
    before = [item for item in source.read() if isinstance(item, Record)]
    Lvis().write([to_batch(before)], str(tmp_path), {"lvis": source.info()})
    again = LvisSource(annotations=str(tmp_path / "lvis_v1.json"), images="")
    assert [item for item in again.read() if isinstance(item, Record)] == before
    assert again.info().categories == source.info().categories


def test_odvg_of_lvis_equals_mmdets_conversion(samples: Path, tmp_path: Path) -> None:
    source = LvisSource(annotations=str(samples / "lvis/lvis_v1_style_part_a.json"), images="")
    batch = to_batch([item for item in source.read() if isinstance(item, Record)])
    outcome = Odvg(form="od").write([batch], str(tmp_path), {"lvis": source.info()})
    reference = [json.loads(line) for line in (samples / "odvg/lvis_v1_style_part_a_od.jsonl").open()]
    assert outcome.boxes == 353
    assert [json.loads(line) for line in (tmp_path / "odvg.jsonl").open()] == reference
    label_map = json.loads((samples / "odvg/lvis_v1_label_map.json").read_text())
    assert json.loads((tmp_path / "label_map.json").read_text()) == label_map


def test_lvis_api_loads_the_export(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for alias, kind in (("float", float), ("int", int)):
        monkeypatch.setattr(np, alias, kind, raising=False)  # lvis 0.5.3 is older than numpy 1.24
    lvis = pytest.importorskip("lvis")
    original = samples / "lvis/lvis_v1_style_part_a.json"
    source = LvisSource(annotations=str(original), images="")
    Lvis().write(
        [to_batch([i for i in source.read() if isinstance(i, Record)])], str(tmp_path), {"lvis": source.info()}
    )
    ours, theirs = lvis.LVIS(str(tmp_path / "lvis_v1.json")), lvis.LVIS(str(original))
    assert ours.get_cat_ids() == theirs.get_cat_ids()
    assert sorted(ours.get_ann_ids()) == sorted(theirs.get_ann_ids())
    assert {key: (row["neg_category_ids"], row["not_exhaustive_category_ids"]) for key, row in ours.imgs.items()} == {
        key: (row["neg_category_ids"], row["not_exhaustive_category_ids"]) for key, row in theirs.imgs.items()
    }


def test_category_keeps_the_spelling_of_its_source(tmp_path: Path) -> None:
    bows = SourceInfo(
        "lvis", "lvis", "", "", "", (Category(3, "bow", {"original_name": "bow_(weapon)", "frequency": "c"}),)
    )
    region = Region(("bow",), ((0, 3),), (Box((1.0, 1.0, 5.0, 5.0)),), 3)
    record = Record("lvis/1/0", "lvis", "1", "0", "detection", "1.jpg", "lvis", 10, 20, "bow. ", (region,))
    Lvis().write([to_batch([record])], str(tmp_path), {"lvis": bows})
    category = json.loads((tmp_path / "lvis_v1.json").read_bytes())["categories"][0]
    assert (category["name"], category["frequency"], "original_name" in category) == ("bow_(weapon)", "c", False)
