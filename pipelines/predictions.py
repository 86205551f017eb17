"""What was seen in pictures, and the files that say so: JSON, COCO, ODVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from llmdet import files
from llmdet.boxes import to_xywh
from llmdet.questions import Question
from llmdet.record import Span


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was found in one picture: boxes are xyxy pixels, best first; the lists are parallel."""

    image: str  # address of the picture or video
    boxes: list[list[float]]
    scores: list[float]
    phrases: list[str]
    spans: list[list[Span]]  # of the phrase, in the text of the question
    labels: list[int]  # numbers of the phrases
    width: int = 0  # pixels, upright
    height: int = 0
    frame: int | None = None  # of a video, from 0
    time_s: float | None = None
    file: str = ""  # address of the picture itself: of a video, of the frame where that was saved
    drawn: str = ""
    error: str = ""  # why the picture could not be used
    caption: str = ""  # what the detector's caption heads say of the picture
    captions: list[str] = field(default_factory=list)  # and of each box; empty where they were not asked

    @property
    def title(self) -> str:
        """The picture's name, short."""
        name = self.image.rsplit("/", 1)[-1]
        return name if self.frame is None else f"{name} #{self.frame}"


def write_predictions(out: str, question: Question, found: Sequence[Prediction], **facts: Any) -> str:
    """`predictions.json`: the question, what else is to be known, and every picture."""
    url = files.join(out, "predictions.json")
    asked = {"mode": question.mode, "phrases": question.phrases, "spans": question.spans}
    files.write_json(url, {"text": question.text, **asked, **facts, "images": [asdict(one) for one in found]})
    return url


def write_coco(out: str, question: Question, found: Sequence[Prediction]) -> list[str]:
    """`coco.json`, a data set whose annotations have scores, and `coco_results.json`, a result file for its images.

    Phrases of one wording are one category.
    """
    root, names = _names(found)
    rows: list[dict[str, Any]] = []
    categories = {name: number for number, name in enumerate(dict.fromkeys(question.phrases), 1)}
    images = []
    for number, (one, name) in enumerate(zip(_usable(found), names, strict=True), 1):
        images.append({"id": number, "file_name": name, "width": one.width, "height": one.height})
        for box, score, phrase in zip(one.boxes, one.scores, one.phrases, strict=True):
            xywh = to_xywh((box[0], box[1], box[2], box[3]))
            rows.append({"image_id": number, "category_id": categories[phrase], "bbox": xywh, "score": score})
    annotations = [
        {"id": number, **row, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(rows, 1)
    ]
    document = {
        "info": {"description": f"what a detector found of: {question.text}", "root": root},
        "images": images,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": annotations,
    }
    written = {"coco.json": document, "coco_results.json": rows}
    return [_written(out, name, orjson.dumps(value)) for name, value in written.items()]


def write_odvg(out: str, question: Question, found: Sequence[Prediction]) -> list[str]:
    """`odvg.jsonl`: for names the detection form, with `label_map.json`; for a text the grounding form.

    As mmdet's dumper writes it, with scores; numbers have two decimals and six.
    """
    _, names = _names(found)
    lines = [
        {"filename": name, "height": one.height, "width": one.width, **_odvg(question, one)}
        for one, name in zip(_usable(found), names, strict=True)
    ]
    written = [_written(out, "odvg.jsonl", b"".join(orjson.dumps(line) + b"\n" for line in lines))]
    if question.mode == "detection":
        label_map = {str(number): name for number, name in enumerate(question.phrases)}
        written.append(_written(out, "label_map.json", orjson.dumps(label_map)))
    return written


def _odvg(question: Question, one: Prediction) -> dict[str, Any]:
    boxes = [[round(value, 2) for value in box] for box in one.boxes]
    scores = [round(score, 6) for score in one.scores]
    if question.mode == "detection":
        instances = [
            {"bbox": box, "score": score, "label": label, "category": phrase}
            for box, score, label, phrase in zip(boxes, scores, one.labels, one.phrases, strict=True)
        ]
        return {"detection": {"instances": instances}}
    regions = []
    for number, spans in enumerate(question.spans):
        mine = [row for row, label in enumerate(one.labels) if label == number]
        if mine:
            pieces = [question.text[start:end] for start, end in spans]
            regions.append(
                {
                    "bbox": _one_or_many([boxes[row] for row in mine]),
                    "phrase": _one_or_many(pieces),
                    "tokens_positive": spans,
                    "score": _one_or_many([scores[row] for row in mine]),
                }
            )
    return {"grounding": {"caption": question.text, "regions": regions}}


def _one_or_many(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _usable(found: Sequence[Prediction]) -> list[Prediction]:
    return [one for one in found if not one.error]


def _names(found: Sequence[Prediction]) -> tuple[str, list[str]]:
    """The folder that all usable pictures are below, and their names in it."""
    urls = [files.absolute(one.file) for one in _usable(found)]
    if not urls:
        return "", []
    shared = urls[0].split("/")[:-1]
    for url in urls:
        while url.split("/")[: len(shared)] != shared:
            shared.pop()
    root = "/".join(shared)
    return root, [url[len(root) + 1 :] if shared else url for url in urls]


def _written(out: str, name: str, data: bytes) -> str:
    url = files.join(out, name)
    files.write_bytes(url, data)
    return url
