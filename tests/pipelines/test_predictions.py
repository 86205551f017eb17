"""Files of what was found, read back by those that they are for."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import orjson
import pytest
from PIL import Image
from pycocotools.coco import COCO

from llmdet.questions import Question, ask, of_names
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.odvg import Odvg
from pipelines.predictions import Prediction, write_coco, write_odvg, write_predictions

NAMES = of_names(["dog", "red cup"])
SENTENCE = ask("Two girls wave; they smile at a dog.", "spans", "[[[0, 9], [16, 20]], [[30, 35]]]")


def found(folder: Path, question: Question, labels: list[int], name: str = "x/a.jpg") -> Prediction:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(folder / name)
    boxes = [[1.004 + row, 2.0, 30.0, 40.5] for row in range(len(labels))]
    scores = [0.9 - 0.1 * row for row in range(len(labels))]
    phrases = [question.phrases[label] for label in labels]
    spans = [list(question.spans[label]) for label in labels]
    return Prediction(str(folder / name), boxes, scores, phrases, spans, labels, 64, 48, file=str(folder / name))


BAD = Prediction("gone.jpg", [], [], [], [], [], error="image_missing: gone.jpg")


def read_back(out: Path, images: Path, label_map: bool) -> list[Record]:
    source = Odvg(
        annotations=str(out / "odvg.jsonl"),
        images=str(images),
        label_map=str(out / "label_map.json") if label_map else "",
        boxes="pseudo",
    )
    items = list(source.read())
    assert not [item for item in items if isinstance(item, Reject) and item.kind == "fault"]
    return [item for item in items if isinstance(item, Record)]


def test_names_become_the_detection_form(tmp_path: Path) -> None:
    seen = [found(tmp_path, NAMES, [1, 0, 1]), BAD, found(tmp_path, NAMES, [], "y/b.jpg")]
    assert write_odvg(str(tmp_path), NAMES, seen) == [f"{tmp_path}/odvg.jsonl", f"{tmp_path}/label_map.json"]
    lines = [orjson.loads(line) for line in (tmp_path / "odvg.jsonl").read_bytes().splitlines()]
    assert [line["filename"] for line in lines] == ["x/a.jpg", "y/b.jpg"]
    assert lines[0]["detection"]["instances"][0] == {
        "bbox": [1.0, 2.0, 30.0, 40.5], "score": 0.9, "label": 1, "category": "red cup"
    }  # fmt: skip
    assert lines[1]["detection"] == {"instances": []}
    first = read_back(tmp_path, tmp_path, label_map=True)[0]
    assert {region.phrases[0]: len(region.boxes) for region in first.regions} == {"dog": 1, "red cup": 2}


def test_phrases_of_a_text_become_the_grounding_form(tmp_path: Path) -> None:
    write_odvg(str(tmp_path), SENTENCE, [found(tmp_path, SENTENCE, [0, 0, 1])])
    (line,) = (tmp_path / "odvg.jsonl").read_bytes().splitlines()
    girls, dog = orjson.loads(line)["grounding"]["regions"]
    assert girls["phrase"] == ["Two girls", "they"]
    assert girls["tokens_positive"] == [[0, 9], [16, 20]]
    assert girls["bbox"] == [[1.0, 2.0, 30.0, 40.5], [2.0, 2.0, 30.0, 40.5]]
    assert (dog["phrase"], dog["bbox"]) == ("a dog", [3.0, 2.0, 30.0, 40.5])
    (record,) = read_back(tmp_path, tmp_path / "x", label_map=False)
    assert record.text == SENTENCE.text
    assert [region.spans for region in record.regions] == [((0, 9), (16, 20)), ((30, 35),)]
    assert record.image == "a.jpg"


def test_coco_opens_both_files(tmp_path: Path) -> None:
    seen = [found(tmp_path, NAMES, [1, 0]), BAD, found(tmp_path, NAMES, [0], "y/b.jpg")]
    assert [Path(url).name for url in write_coco(str(tmp_path), NAMES, seen)] == ["coco.json", "coco_results.json"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "coco.json"))
        results = truth.loadRes(str(tmp_path / "coco_results.json"))
    assert [image["file_name"] for image in truth.loadImgs(truth.getImgIds())] == ["x/a.jpg", "y/b.jpg"]
    assert [one["name"] for one in truth.loadCats(truth.getCatIds())] == ["dog", "red cup"]
    rows = results.loadAnns(results.getAnnIds(imgIds=[1]))
    assert [(row["category_id"], row["score"]) for row in rows] == [(2, 0.9), (1, pytest.approx(0.8))]
    assert rows[0]["bbox"] == pytest.approx([1.004, 2.0, 28.996, 38.5])
    assert truth.dataset["info"]["root"] == str(tmp_path)


def test_phrases_of_one_wording_are_one_category(tmp_path: Path) -> None:
    question = ask("a dog and a dog", "grounding", parser="pattern")
    write_coco(str(tmp_path), question, [found(tmp_path, question, [1, 0])])
    document = orjson.loads((tmp_path / "coco.json").read_bytes())
    assert document["categories"] == [{"id": 1, "name": "a dog"}]
    assert [row["category_id"] for row in document["annotations"]] == [1, 1]


def test_nothing_that_could_be_used_is_still_files(tmp_path: Path) -> None:
    write_coco(str(tmp_path), NAMES, [BAD])
    write_odvg(str(tmp_path), NAMES, [BAD])
    assert orjson.loads((tmp_path / "coco_results.json").read_bytes()) == []
    assert (tmp_path / "odvg.jsonl").read_bytes() == b""


def test_the_json_says_what_was_asked(tmp_path: Path) -> None:
    url = write_predictions(str(tmp_path), NAMES, [found(tmp_path, NAMES, [0])], checkpoint="c", threshold=0.3)
    said = orjson.loads(Path(url).read_bytes())
    assert {key: said[key] for key in ("text", "mode", "phrases", "threshold")} == {
        "text": "dog. red cup.", "mode": "detection", "phrases": ["dog", "red cup"], "threshold": 0.3
    }  # fmt: skip
    assert said["images"][0]["spans"] == [[[0, 3]]]
