"""Exported YOLO folders by the rules of ultralytics' documentation (docs.ultralytics.com/datasets/detect).

data.yaml: train and val name folders (relative to `path`, else to the file), names is a list or a map from 0 on.
The labels of a picture: the last folder `images` of its path becomes `labels`, its suffix `.txt`.
A line: class x_centre y_centre width height, the numbers as parts of the sides, in 0..1; no line, no object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from llmdet.exports.yolo import Yolo
from llmdet.record import Record, to_batch
from llmdet.sources.coco import Coco
from llmdet.world import write_world

SUFFIXES = {".jpg", ".jpeg", ".png"}
SMALLEST = 10  # pixels a side; ultralytics passes smaller pictures over


def problems(folder: Path) -> Iterator[str]:
    """What would keep ultralytics from training on a folder."""
    data = yaml.safe_load((folder / "data.yaml").read_text())
    names = data["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if sorted(names) != list(range(len(names))) or not all(isinstance(name, str) for name in names.values()):
        yield f"names must be texts numbered from 0: {names}"
    for split in ("train", "val"):
        if split not in data:
            yield f"{split} is missing"
            continue
        place = folder / data.get("path", "") / data[split]
        pictures = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not pictures:
            yield f"{split}: no pictures in {place}"
        for picture in pictures:
            yield from (f"{split}/{picture.name}: {fault}" for fault in faults(picture, len(names)))


def faults(picture: Path, classes: int) -> Iterator[str]:
    """What is wrong with one picture and its labels."""
    with Image.open(picture) as image:
        image.verify()
        if min(image.size) < SMALLEST:
            yield f"{image.size} is too small"
    for number, line in enumerate(label_file(picture).read_text().splitlines(), start=1):
        words = line.split(" ")
        if len(words) != 5:
            yield f"line {number} has {len(words)} columns"
            continue
        if not words[0].isdecimal() or int(words[0]) >= classes:
            yield f"line {number}: no class {words[0]}"
        if not all(0 <= float(word) <= 1 for word in words[1:]):
            yield f"line {number} is outside 0..1"


def label_file(picture: Path) -> Path:
    before, after = str(picture).rsplit("/images/", 1)
    return Path(f"{before}/labels/{after}").with_suffix(".txt")


def read(source: Coco) -> list[Record]:
    return [item for item in source.read() if isinstance(item, Record)]


def export(source: Coco, records: list[Record], out: Path) -> Path:
    Yolo(images="link").write([to_batch(records)], str(out), {source.name: source.info()})
    return out


@pytest.fixture
def world(tmp_path: Path) -> Coco:
    """Ten pictures."""
    annotations = write_world(tmp_path / "world", 10, 4)
    return Coco(annotations=str(annotations), images=str(tmp_path / "world/images"))


def test_a_world_in_two_splits_can_be_trained_on(world: Coco, tmp_path: Path) -> None:
    records = [replace(record, split="val" if n % 4 == 0 else "train") for n, record in enumerate(read(world))]
    out = export(world, records, tmp_path / "out")
    assert list(problems(out)) == []
    assert len(list((out / "images/train").rglob("*.jpg"))) == 7
    assert len(list((out / "images/val").rglob("*.jpg"))) == 3
    lines = [line for path in out.glob("labels/**/*.txt") for line in path.read_text().splitlines()]
    assert len(lines) == sum(len(record.boxes) for record in records)


def test_a_spoilt_folder_is_found_out(world: Coco, tmp_path: Path) -> None:
    out = export(world, read(world), tmp_path / "out")
    labels = sorted(out.glob("labels/train/**/*.txt"))
    labels[0].write_text("25 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1\n")
    labels[1].write_text("0 0.5 0.5 1.2 0.1\n")
    found = list(problems(out))
    told = ["line 1: no class 25", "line 2 has 4 columns", "line 1 is outside 0..1"]
    assert [fault.split(": ", 1)[1] for fault in found] == told * 2  # val is train where there is none


def test_coco_can_be_trained_on(samples: Path, tmp_path: Path) -> None:
    folder = samples / "coco/coco_tiny_val"
    source = Coco(annotations=str(folder / "annotations/instances_val2017.json"), images=str(folder / "val2017"))
    out = export(source, read(source), tmp_path / "out")
    assert list(problems(out)) == []
    assert len(list((out / "images").rglob("*.jpg"))) == 80
    lines = [line for path in out.glob("labels/**/*.txt") for line in path.read_text().splitlines()]
    assert len(lines) == 804  # 815 less 11 crowds
    assert yaml.safe_load((out / "data.yaml").read_text())["names"][79] == "toothbrush"
