"""Random federated ground truth with detections, and lvis-api's figures for it.

python tests/detector/metrics/federated.py    (needs `lvis`) writes lvis_api_figures.json beside this file
"""

import copy
import json
import logging
import sys
import types
from pathlib import Path
from random import Random
from typing import Any

FIGURES = Path(__file__).with_name("lvis_api_figures.json")
SETS = range(20)
PER_CATEGORY = 12  # cuts into most categories of these small sets; the protocol's 10,000 never would

Rows = list[dict[str, Any]]


def federated(seed: int) -> tuple[dict[str, Any], Rows]:
    """A set with ties of scores and overlaps, crowds, ignored boxes, empty categories and images, ids with gaps.

    Odd seeds have over 300 detections in their fullest image, so that the limit per image cuts too.
    """
    random = Random(seed)
    categories = [
        {"id": 3 * number + 2, "name": f"name_{number}", "frequency": random.choice("rcf")} for number in range(14)
    ]
    ids = [row["id"] for row in categories]
    images, annotations, rows = [], [], []
    for number in range(random.randint(4, 14)):
        image: dict[str, Any] = {"id": 1000 - 7 * number, "width": 640, "height": 480}
        present = random.sample(ids[:-2], random.randint(0, 5))  # the last two never have a box
        others = [one for one in ids if one not in present]
        image["neg_category_ids"] = random.sample(others, random.randint(0, 5))
        image["not_exhaustive_category_ids"] = random.sample(ids, random.randint(0, 4))
        images.append(image)
        truths = [(category, _box(random)) for category in present for _ in range(random.choice((1, 1, 2, 3, 9)))]
        annotations += [_annotation(random, image["id"], *pair) for pair in truths]
        rows += _detections(random, image["id"], ids, truths, fullest=seed % 2 == 1 and number == 0)
    random.shuffle(annotations)
    random.shuffle(rows)
    for number, row in enumerate(annotations, 1):
        row["id"] = number
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, rows


def _box(random: Random) -> list[float]:
    width, height = (random.choice((random.uniform(4, 60), random.uniform(40, 300))) for _ in range(2))
    return [float(round(v)) for v in (random.uniform(0, 640 - width), random.uniform(0, 480 - height), width, height)]


def _annotation(random: Random, image: int, category: int, box: list[float]) -> dict[str, Any]:
    area = random.choice((box[2] * box[3], 0.6 * box[2] * box[3], 1024.0, 9216.0))  # on the borders of the ranges too
    row = {"image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(random.random() < 0.1)}
    return row | ({"ignore": 1} if random.random() < 0.1 else {})


def _detections(
    random: Random, image: int, ids: list[int], truths: list[tuple[int, list[float]]], fullest: bool
) -> Rows:
    found = [(random.choice(ids), _box(random)) for _ in range(330 if fullest else random.randint(0, 40))]
    for category, box in truths:
        for _ in range(random.randint(0, 5)):
            shift = random.choice((0.0, 1.0, 4.0, 9.0))
            near = [v + random.choice((-shift, 0.0, shift)) for v in box]
            found.append((category if random.random() < 0.9 else random.choice(ids), [*near[:2], *map(abs, near[2:])]))
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": round(random.random(), 1)}
        for category, box in found
    ]


def official(truth: dict[str, Any], rows: Rows, per_image: int, per_category: int | None = None) -> dict[str, float]:
    """lvis-api's figures. It wants names that numpy has dropped, and OpenCV and matplotlib, but only for drawing."""
    import numpy as np

    drawing: Any = types.ModuleType("lvis.vis")
    drawing.LVISVis = None
    sys.modules.setdefault("lvis.vis", drawing)
    np.float, np.int = float, int  # type: ignore[attr-defined]
    from lvis import LVIS, LVISEval, LVISResults

    rows = copy.deepcopy(rows)
    if per_category is not None:
        by_category: dict[int, Rows] = {}
        for row in rows:
            by_category.setdefault(row["category_id"], []).append(row)
        rows = [row for own in by_category.values() for row in sorted(own, key=lambda r: -r["score"])[:per_category]]
    reference = LVIS.__new__(LVIS)
    reference.logger = logging.getLogger("lvis")
    reference.dataset = copy.deepcopy(truth)
    reference._create_index()
    run = LVISEval(reference, LVISResults(reference, rows, max_dets=per_image), "bbox")
    run.params.max_dets = per_image
    run.run()
    return {name: float(value) for name, value in run.get_results().items()}


def main() -> None:
    """Ask lvis-api for everything that the tests compare with."""
    figures = []
    for seed in SETS:
        truth, rows = federated(seed)
        fixed = official(truth, rows, -1, PER_CATEGORY)
        figures.append({"standard": official(truth, rows, 300), "fixed": fixed})
    FIGURES.write_text(
        json.dumps({"made_with": "lvis 0.5.3 from PyPI, LVISEval bbox", "sets": figures}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
