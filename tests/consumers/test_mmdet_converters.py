"""Our ODVG files beside those of mmdet's own converters, from the same annotation files.

They are the same but for this, each point shown by a test below:

- A box whose file says an area of 0 or less is left out by mmdet; here the box decides, and it stays.
- mmdet measures a side as the file says it (w < 1), we as the ODVG reader of both does (x2 - x1 < 1), which differs by
  rounding: such a box mmdet writes, and its reader leaves it out.
- mmdet numbers labels by fixed tables (COCO's 80 names; id - 1 elsewhere), so a file with only some of the categories
  has other numbers there; here the label map that is written has the names of the file. The names of boxes agree.
- coco2odvg writes COCO's English names into its label map whatever the file says; ours has the file's.
- goldg2odvg cuts x2 and y2 at the edges of the picture (and x1, y1 not); we cut nothing.
- goldg2odvg sorts lines by id and leaves out captions whose boxes are all of 1 pixel or less, or that have none.
- goldg2odvg groups boxes by the letters of their phrase: the second "a dog" gets the spans of the first,
  and "a red" with "ball" those of "a red ball".
- goldg2odvg joins words one blank apart in the phrase only; we join their spans as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdet.exports.odvg import Odvg
from llmdet.record import Record, to_batch
from llmdet.sources.coco import Coco
from llmdet.sources.lvis import Lvis
from llmdet.sources.mdetr import MdetrJson
from llmdet.sources.objects365 import Objects365
from llmdet.sources.source import Source
from llmdet.sources.v3det import V3Det
from tests.consumers import odd_annotations as odd
from tests.consumers.conftest import Mmdet

pytestmark = pytest.mark.mmdet

Lines = list[dict[str, Any]]
LABEL_MAPS = {
    "coco": "coco2017_label_map.json",
    "o365v2": "o365v2_label_map.json",
    "v3det": "v3det_2023_v1_label_map.json",
    "lvis": "lvis_v1_label_map.json",
}
READERS: dict[str, Callable[..., Coco]] = {"coco": Coco, "o365v2": Objects365, "v3det": V3Det, "lvis": Lvis}


def lines_of(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def ours(source: Source, out: Path, **options: Any) -> tuple[Lines, dict[str, str]]:
    """Our lines, and the label map of the OD form."""
    records = [item for item in source.read() if isinstance(item, Record)]
    sources = {} if isinstance(source, MdetrJson) else {source.name: source.info()}
    Odvg(**options).write([to_batch(records)], str(out), sources)
    label_map = out / "label_map.json"
    return lines_of(out / "odvg.jsonl"), json.loads(label_map.read_text()) if label_map.exists() else {}


def detections(mmdet: Mmdet, annotations: Path, kind: str, out: Path) -> tuple[Lines, Lines, dict[str, str], dict]:
    """Our lines and mmdet's, our label map and mmdet's."""
    theirs = out / "theirs"
    theirs.mkdir()
    dataset = [] if kind == "lvis" else ["--dataset", kind]
    tool = "lvis2odvg.py" if kind == "lvis" else "coco2odvg.py"
    mmdet.ask("convert", tool=tool, options=[str(annotations), *dataset, "--output", str(theirs / "od.jsonl")])
    lines, label_map = ours(READERS[kind](annotations=str(annotations), images=""), out / "ours", form="od")
    return lines, lines_of(theirs / "od.jsonl"), label_map, json.loads((theirs / LABEL_MAPS[kind]).read_text())


def groundings(mmdet: Mmdet, annotations: Path, out: Path) -> tuple[Lines, Lines]:
    """Our lines and mmdet's."""
    mmdet.ask("convert", tool="goldg2odvg.py", options=[str(annotations), "--out-ann", str(out / "theirs.jsonl")])
    source = MdetrJson(annotations=str(annotations), name="goldg", licence="", address="")
    return ours(source, out / "ours")[0], lines_of(out / "theirs.jsonl")


def unlike(mine: Lines, theirs: Lines) -> list[tuple[str, str, list[float]]]:
    """(whose, file, box) of each instance that only one has; all else of the lines must agree, order included."""
    assert [shell(line) for line in mine] == [shell(line) for line in theirs]
    found = []
    for line, other in zip(mine, theirs, strict=True):
        a, b = line["detection"]["instances"], other["detection"]["instances"]
        found += [("ours", line["filename"], row["bbox"]) for row in a if row not in b]
        found += [("mmdet's", line["filename"], row["bbox"]) for row in b if row not in a]
        assert [row for row in a if row in b] == [row for row in b if row in a]
    return found


def shell(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["filename"], line["height"], line["width"]


# --- COCO -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [odd.odd_boxes, odd.crowds, odd.any_order, odd.many, odd.foreign_names])
def test_coco_lines_are_those_of_mmdet(make: Callable[[], dict[str, Any]], mmdet: Mmdet, tmp_path: Path) -> None:
    document = make()
    mine, theirs, _, _ = detections(mmdet, written(tmp_path, document), "coco", tmp_path)
    assert mine == theirs
    assert len(mine) == len(document["images"])


def test_odd_boxes_are_kept_or_left_out_one_by_one(mmdet: Mmdet, tmp_path: Path) -> None:
    mine, _, _, _ = detections(mmdet, written(tmp_path, odd.odd_boxes()), "coco", tmp_path)
    kept = {name for name, line in zip(odd.ODD_BOXES, mine, strict=False) if line["detection"]["instances"]}
    assert set(odd.ODD_BOXES) - kept == odd.UNUSABLE


def test_names_of_the_file_are_in_our_label_map(mmdet: Mmdet, tmp_path: Path) -> None:
    document = odd.foreign_names()
    mine, _, label_map, fixed = detections(mmdet, written(tmp_path, document), "coco", tmp_path)
    assert list(label_map.values()) == [row["name"] for row in document["categories"]]
    assert label_map["1"] == "自転車"
    assert fixed["1"] == "bicycle"
    assert [label_map[str(row["label"])] == row["category"] for row in mine[0]["detection"]["instances"]] == [True] * 5


def test_the_box_and_not_the_stated_area_decides(mmdet: Mmdet, tmp_path: Path) -> None:
    mine, theirs, _, _ = detections(mmdet, written(tmp_path, odd.empty_areas()), "coco", tmp_path)
    assert unlike(mine, theirs) == [("ours", "1.jpg", [1, 1, 21, 21]), ("ours", "1.jpg", [3, 3, 23, 23])]


def test_a_side_below_a_pixel_by_rounding_is_left_out_as_mmdets_reader_does(mmdet: Mmdet, tmp_path: Path) -> None:
    rows = [odd.annotation(1, 1, odd.ROUNDED_BELOW_ONE), odd.annotation(2, 1, (1, 1, 20, 20))]
    document = odd.document([odd.image(1)], rows, odd.names_of(odd.COCO_IDS))
    mine, theirs, label_map, _ = detections(mmdet, written(tmp_path, document), "coco", tmp_path)
    assert unlike(mine, theirs) == [("mmdet's", "1.jpg", [0.4, 10, 1.4, 30])]
    (sample,) = mmdet.samples(tmp_path / "theirs/od.jsonl", label_map=tmp_path / "ours/label_map.json")
    assert [row["bbox"] for row in sample["parsed"]["instances"]] == [[1, 1, 21, 21]]
    assert len(label_map) == 80


def test_labels_number_the_categories_that_the_file_has(mmdet: Mmdet, tmp_path: Path) -> None:
    mine, theirs, label_map, _ = detections(mmdet, written(tmp_path, odd.few_categories()), "coco", tmp_path)
    assert label_map == {"0": "thing 1", "1": "thing 44", "2": "thing 90"}
    assert [row["label"] for row in mine[0]["detection"]["instances"]] == [2, 1]
    assert [row["label"] for row in theirs[0]["detection"]["instances"]] == [79, 39]
    assert without_labels(mine) == without_labels(theirs)


def without_labels(lines: Lines) -> list[list[tuple[str, list[float]]]]:
    return [[(row["category"], row["bbox"]) for row in line["detection"]["instances"]] for line in lines]


# --- its relatives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "make"),
    [("o365v2", odd.objects365), ("v3det", odd.v3det), ("lvis", odd.lvis)],
    ids=lambda value: str(value),
)
def test_relatives_of_coco_give_the_lines_and_label_maps_of_mmdet(
    kind: str, make: Callable[[], dict[str, Any]], mmdet: Mmdet, tmp_path: Path
) -> None:
    mine, theirs, label_map, reference = detections(mmdet, written(tmp_path, make()), kind, tmp_path)
    assert mine == theirs
    assert label_map == reference
    assert sum(len(line["detection"]["instances"]) for line in mine) > 2


# --- sentences ------------------------------------------------------------------------------------------------------


def test_grounding_lines_are_those_of_mmdet(mmdet: Mmdet, tmp_path: Path) -> None:
    mine, theirs = groundings(mmdet, written(tmp_path, odd.sentences()), tmp_path)
    assert mine == theirs
    assert [len(line["grounding"]["regions"]) for line in mine] == [2, 1, 2]


def test_what_goldg2odvg_does_to_odd_sentences_is_not_done_here(mmdet: Mmdet, tmp_path: Path) -> None:
    mine, theirs = groundings(mmdet, written(tmp_path, odd.odd_sentences()), tmp_path)
    assert [line["filename"] for line in mine] == [f"{n}.jpg" for n in (9, 8, 7, 6, 5, 4, 3)]
    assert [line["filename"] for line in theirs] == [f"{n}.jpg" for n in (3, 4, 7, 8, 9)]
    our, their = ({line["filename"]: line["grounding"]["regions"] for line in lines} for lines in (mine, theirs))
    dog = {"phrase": "a dog", "tokens_positive": [[0, 5]]}
    assert our["9.jpg"] == [{"bbox": [90, 70, 130, 90], "phrase": "over", "tokens_positive": [[0, 4]]}]
    assert their["9.jpg"] == [{**our["9.jpg"][0], "bbox": [90, 70, 100, 80]}]
    assert our["8.jpg"] == [
        {"bbox": [1, 1, 21, 21], **dog},
        {"bbox": [50, 1, 70, 21], **dog, "tokens_positive": [[10, 15]]},
    ]
    assert their["8.jpg"] == [{"bbox": [[1, 1, 21, 21], [50, 1, 70, 21]], **dog}]
    assert our["7.jpg"] == [{"bbox": [1, 1, 21, 21], "phrase": "a red bus", "tokens_positive": [[0, 9]]}]
    assert their["7.jpg"] == [{**our["7.jpg"][0], "tokens_positive": [[0, 1], [2, 5], [6, 9]]}]
    # A box of exactly one pixel is a box, for mmdet too once another box of the caption is larger.
    assert our["6.jpg"] == [{"bbox": [1, 1, 2, 21], "phrase": "nothing", "tokens_positive": [[0, 7]]}]
    assert our["5.jpg"] == []
    assert our["4.jpg"][0]["bbox"] == [[1, 1, 21, 21], [2, 2, 22, 22]]
    assert their["4.jpg"][0]["bbox"] == [2, 2, 22, 22]
    ball = {"phrase": "a red ball", "tokens_positive": [[0, 10]]}
    assert our["3.jpg"] == [
        {"bbox": [1, 1, 21, 21], **ball},
        {"bbox": [50, 1, 70, 21], "phrase": ["a red", "ball"], "tokens_positive": [[12, 17], [23, 27]]},
    ]
    assert their["3.jpg"] == [{"bbox": [[1, 1, 21, 21], [50, 1, 70, 21]], **ball}]


# --- real samples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path", "boxes"),
    [
        ("coco", "coco/coco_tiny_val/annotations/instances_val2017.json", 804),
        ("coco", "coco/val2014_100/annotations/instances_val2014_100.json", None),
        ("lvis", "lvis/lvis_v1_style_part_a.json", 353),
    ],
)
def test_real_detections_become_the_lines_of_mmdet(
    kind: str, path: str, boxes: int | None, samples: Path, mmdet: Mmdet, tmp_path: Path
) -> None:
    mine, theirs, label_map, reference = detections(mmdet, samples / path, kind, tmp_path)
    assert mine == theirs
    assert label_map == reference
    if boxes is not None:
        assert sum(len(line["detection"]["instances"]) for line in theirs) == boxes


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("kind", ["separateGT", "mergedGT"])
def test_real_sentences_become_the_lines_of_mmdet(
    kind: str, split: str, samples: Path, mmdet: Mmdet, tmp_path: Path
) -> None:
    mine, theirs = groundings(mmdet, samples / f"goldg/final_flickr_{kind}_{split}.json", tmp_path)
    assert mine == theirs
