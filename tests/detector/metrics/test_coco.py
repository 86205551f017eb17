"""COCO figures against pycocotools and against published results."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.metrics import coco
from llmdet.errors import FormatError


def official(truth: dict[str, Any], rows: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        run = COCOeval(reference, reference.loadRes(rows), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats.tolist()


def invented(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A truth with crowds, an image and a category without boxes, and detections near and far."""
    rng = np.random.default_rng(seed)
    images = [{"id": number, "width": 300, "height": 300, "file_name": f"{number}.jpg"} for number in range(1, 13)]
    categories = [{"id": number * 7, "name": f"name {number}"} for number in range(1, 6)]
    annotations, rows = [], []
    for number in range(90):
        size = rng.uniform(5, 200, 2)
        box = [*(rng.uniform(0, 300 - size)), *size]
        image, category = int(rng.integers(1, 12)), int(rng.integers(1, 5)) * 7
        annotations.append(
            {"id": number + 1, "image_id": image, "category_id": category, "bbox": [float(v) for v in box],
             "area": float(size.prod() * 0.8), "iscrowd": int(rng.random() < 0.1)}
        )  # fmt: skip
        for _ in range(int(rng.integers(0, 4))):
            near = np.array(box) + rng.normal(0, 6, 4)
            rows.append(
                {"image_id": image, "category_id": category if rng.random() < 0.8 else 35,
                 "bbox": [float(v) for v in [near[0], near[1], abs(near[2]) + 1, abs(near[3]) + 1]],
                 "score": round(float(rng.random()), 2)}
            )  # fmt: skip
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}, rows


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_equal_those_of_pycocotools(seed: int) -> None:
    truth, rows = invented(seed)
    found = coco.evaluate(truth, rows)
    assert list(found) == list(coco.NAMES)
    assert list(found.values()) == pytest.approx(official(truth, rows), abs=1e-9)


def test_annotation_ids_above_32_bits_and_zero_change_nothing() -> None:
    truth, rows = invented(4)
    renamed = [
        {**row, "id": 0 if number == 0 else 900_100_000_000 + number} for number, row in enumerate(truth["annotations"])
    ]
    assert coco.evaluate({**truth, "annotations": renamed}, rows) == coco.evaluate(truth, rows)


def test_no_detections_score_zero() -> None:
    truth, _ = invented(5)
    assert coco.evaluate(truth, [])["AP"] == 0.0


def test_a_category_without_boxes_has_no_figure() -> None:
    truth, rows = invented(6)
    _, classes = coco.evaluate_classes(truth, rows)
    assert classes["name 5"] == -1.0
    assert 0 < classes["name 1"] < 1
    known = [value for value in classes.values() if value > -1]
    assert float(np.mean(known)) == pytest.approx(coco.evaluate(truth, rows)["AP"], abs=1e-9)


def test_detections_on_unknown_images_and_cut_rows_are_refused() -> None:
    truth, rows = invented(7)
    with pytest.raises(FormatError, match="image 999, which the ground truth does not have"):
        coco.evaluate(truth, [{**rows[0], "image_id": 999}])
    with pytest.raises(FormatError, match=r"detection 0 lacks \['score'\]"):
        coco.evaluate(truth, [{key: value for key, value in rows[0].items() if key != "score"}])
    with pytest.raises(FormatError, match=r"missing: \['categories'\]"):
        coco.evaluate({"images": [], "annotations": []}, [])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, r"annotations\[0\] has no usable bbox"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": None}]}, "no usable bbox"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}]}, "needs four numbers as bbox"),
        ({"annotations": [7]}, r"annotations\[0\] has no usable image_id"),
        ({"images": [{"id": "a", "width": 8, "height": 8}]}, r"images\[0\] has no usable id"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no usable width"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has no usable name"),
    ],
)
def test_ground_truth_that_cannot_be_scored_is_refused_with_its_row(change: dict[str, Any], said: str) -> None:
    truth = {
        "images": [{"id": 1, "width": 8, "height": 8}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    with pytest.raises(FormatError, match=said):
        coco.evaluate({**truth, **change}, [])


@pytest.mark.parametrize("row", [7, {"bbox": [1, 2]}, {"bbox": None}, {"score": "high"}, {"image_id": "a"}])
def test_rows_that_are_no_detections_are_refused(row: Any) -> None:
    truth, rows = invented(7)
    with pytest.raises(FormatError, match="detection 0"):
        coco.evaluate(truth, [{**rows[0], **row} if isinstance(row, dict) else row])


def test_truth_without_area_and_crowd_flag_takes_the_area_of_the_box() -> None:
    truth, rows = invented(7)
    plain = [{**row, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0} for row in truth["annotations"]]
    bare = [{**row, "area": None, "iscrowd": None} for row in plain]
    assert coco.evaluate({**truth, "annotations": bare}, rows) == coco.evaluate({**truth, "annotations": plain}, rows)


def test_published_figures_of_the_80_photos(samples: Path) -> None:
    expected = json.loads((samples / "eval/coco/coco_tiny_val_expected.json").read_text())
    truth = json.loads((samples / expected["ground_truth"]).read_text())
    rows = json.loads((samples / expected["detections"]).read_text())
    figures, classes = coco.evaluate_classes(truth, rows)
    assert figures == pytest.approx(expected["stats"], abs=1e-9)
    known = {name: value for name, value in expected["per_class_AP"].items() if name in classes}
    assert len(known) > 50
    assert {name: classes[name] for name in known} == pytest.approx(known, abs=1e-9)


def test_published_figures_of_cocos_own_example(samples: Path) -> None:
    folder = samples / "coco/val2014_100"
    truth = json.loads((folder / "annotations/instances_val2014_100.json").read_text())
    rows = json.loads((folder / "results/instances_val2014_fakebbox100_results.json").read_text())
    assert coco.evaluate(truth, rows)["AP"] == pytest.approx(0.5045806987249628, abs=1e-9)


def test_importing_the_metrics_does_not_import_torch() -> None:
    truth = {"images": [{"id": 1, "width": 9, "height": 9}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    code = f"import sys, detector.metrics.coco as c; c.evaluate({truth}, []); print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
