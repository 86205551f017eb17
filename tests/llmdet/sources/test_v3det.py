"""V3Det: 50 names in lower case, frozen, none of them above or below a name of the photo where the tree is given."""

import gzip
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmdet.errors import FormatError
from llmdet.record import Record
from llmdet.sources.v3det import V3Det
from llmdet.validate import faults

IMAGE = {"id": 42, "file_name": "images/n07745046/21_371_c.jpg", "width": 100, "height": 80}
BOX = {"id": 99, "image_id": 42, "category_id": 2, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0}
CATEGORIES = [
    {
        "id": 1,
        "name": "animal",
        "name_zh": "x",
        "cat_info": "moves",
        "novel": False,
        "cat_info_gpt4": "long",
        "exemplar_image": "e",
    },
    {"id": 2, "name": "Cricket (insect)"},
    {"id": 3, "name": "wild_hyacinth"},
    {"id": 4, "name": "House Cricket"},
    {"id": 5, "name": "battery"},
    {"id": 6, "name": "Battery"},
]
TREE = {
    "categoryid2treeid": {"1": "n1", "2": "n2", "3": "n3", "4": "n4", "5": "n5"},
    "descendant2ancestor": {"n2": ["n1", "n0"], "n4": ["n2", "n1"]},
    "ancestor2descendant": {"n1": ["n2", "n4"], "n2": ["n4", 7], "n5": "x"},
}


def reader(folder: Path, *annotations: Any, categories: Any = CATEGORIES, **fields: Any) -> V3Det:
    path = folder / "v3det.json"
    path.write_bytes(orjson.dumps({"images": [IMAGE], "annotations": annotations, "categories": categories}))
    return V3Det(annotations=str(path), images=str(folder), **fields)


def record(source: V3Det) -> Record:
    (found,) = source.read()
    assert isinstance(found, Record)
    assert faults(found) == []
    return found


def test_names_are_in_lower_case_and_stand_once(tmp_path: Path) -> None:
    found = record(reader(tmp_path, BOX))
    assert sorted(found.text.split(". ")) == [
        "",
        "animal",
        "battery",
        "cricket (insect)",
        "house cricket",
        "wild hyacinth",
    ]
    assert (found.image, found.regions[0].phrases, found.regions[0].category_id) == (
        IMAGE["file_name"],
        ("cricket (insect)",),
        2,
    )
    assert found.regions[0].boxes[0].xyxy == (10.0, 20.0, 40.0, 60.0)
    assert len(found.negatives) == 4


def test_categories_keep_their_names_and_lose_only_what_the_docstring_says(tmp_path: Path) -> None:
    first, second = reader(tmp_path, BOX).info().categories[:2]
    assert (first.name, first.extra) == (
        "animal",
        {"name_zh": "x", "cat_info": "moves", "novel": False, "original_name": "animal"},
    )
    assert (second.name, second.extra) == ("cricket (insect)", {"original_name": "Cricket (insect)"})


def test_names_above_and_below_are_not_drawn(tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text(json.dumps(TREE))
    found = record(reader(tmp_path, BOX, tree=str(tmp_path / "tree.json")))
    assert sorted(found.text.split(". ")) == ["", "battery", "cricket (insect)", "wild hyacinth"]


@pytest.mark.parametrize("tree", [[], {}, {**TREE, "descendant2ancestor": []}])
def test_another_file_is_no_tree(tmp_path: Path, tree: Any) -> None:
    (tmp_path / "tree.json").write_text(json.dumps(tree))
    with pytest.raises(FormatError, match="category tree"):
        list(reader(tmp_path, BOX, tree=str(tmp_path / "tree.json")).read())


def test_a_list_of_categories_as_in_an_internal_layout_is_left_out(tmp_path: Path) -> None:
    items = list(reader(tmp_path, {**BOX, "category_id": [2]}).read())
    assert [item.reason for item in items if not isinstance(item, Record)] == ["category_unknown"]


def test_fifty_of_13204_real_names(samples: Path, tmp_path: Path) -> None:
    with gzip.open(samples / "v3det" / "v3det_2023_v1_train_cat_info.json.gz") as file:
        categories = json.load(file)
    listed = [category["name"] for category in categories]
    lines = (samples / "v3det" / "category_name_13204_v3det_2023_v1.txt").read_text().splitlines()
    assert len(listed) == len(lines) == 13204
    assert sum(name == line for name, line in zip(listed, lines, strict=True)) == 13164  # 40 were renamed in the list
    boxes = [{**BOX, "id": number, "category_id": number} for number in (1, 2000, 13204)]
    source = reader(tmp_path, *boxes, categories=categories)
    assert [category.extra["original_name"] for category in source.info().categories] == listed
    found = record(source)
    said = found.text.removesuffix(". ").split(". ")
    assert len(said) == len(set(said)) == 50
    assert set(said) <= {name.lower().replace("_", " ") for name in listed}
    assert {listed[number - 1].lower() for number in (1, 2000, 13204)} <= set(said)
    assert found.text == found.text.lower()
    assert record(reader(tmp_path, *boxes, categories=categories)).text == found.text
    assert record(reader(tmp_path, *boxes, categories=categories, seed=1)).text != found.text
