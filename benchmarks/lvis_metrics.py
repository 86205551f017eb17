"""What LVIS AP costs: `detector.metrics.lvis` beside lvis-api and faster-coco-eval; and its memory at full size.

    pip install lvis==0.5.3     # the peer; it also installs OpenCV and matplotlib, which are not used
    python benchmarks/lvis_metrics.py [--images 1000] [--per-image 300] [--categories 1203] [--full]

1. Seconds from rows in memory (truth and detections as lists of dicts, as json gives them) to all figures, best of
   three, by turns; the figures must agree to 1e-9. faster-coco-eval's largest difference is printed.
2. With --full: 5,000 images, 1,203 categories, more than 10,000 detections of each, fed image by image as columns;
   prints seconds and the peak resident memory of a process that does nothing else. Linux only.

Prints one JSON line per measurement.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from detector.metrics import lvis
from detector.metrics.accumulator import Accumulator
from detector.metrics.detections import Detections

SIDE = 640.0
JUDGED = 20  # categories of an image: half of them present, half known to be absent
Rows = list[dict[str, Any]]


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random xywh boxes, (count, 4)."""
    size = rng.uniform(5, 300, (count, 2))
    return np.round(np.concatenate([rng.uniform(0, SIDE - size), size], axis=1), 2)


def ground_truth(images: int, categories: int, rng: np.random.Generator) -> dict[str, Any]:
    """About ten categories an image, one to six boxes each."""
    rows: Rows = []
    annotations: Rows = []
    for number in range(1, images + 1):
        judged = rng.choice(categories, JUDGED, replace=False) + 1
        present, absent = judged[: JUDGED // 2].tolist(), judged[JUDGED // 2 :].tolist()
        rows.append({"id": number, "neg_category_ids": absent, "not_exhaustive_category_ids": present[:1]})
        for category in present:
            for box in boxes(rng, int(rng.integers(1, 7))).tolist():
                row = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box}
                annotations.append(row | {"area": box[2] * box[3] * 0.7})
    names = [{"id": i + 1, "name": f"name_{i}", "frequency": "rcf"[i % 3]} for i in range(categories)]
    return {"images": rows, "annotations": annotations, "categories": names}


def detections_of(own: Rows, judged: list[int], count: int, categories: int, rng: np.random.Generator) -> Detections:
    """`count` boxes of one image: a third near true boxes, a third of judged categories, a third of any."""
    near = rng.integers(0, len(own), count // 3)
    true_boxes, true_categories = np.array([r["bbox"] for r in own]), np.array([r["category_id"] for r in own])
    moved = true_boxes[near] + rng.normal(0, 8, (len(near), 4))
    moved[:, 2:] = np.abs(moved[:, 2:]) + 1
    rest = count - len(near)
    other = np.concatenate([rng.choice(judged, rest // 2), rng.integers(1, categories + 1, rest - rest // 2)])
    return Detections(
        np.full(count, own[0]["image_id"]),
        np.concatenate([true_categories[near], other]),
        np.concatenate([np.round(moved, 2), boxes(rng, rest)]),
        np.round(rng.random(count), 4),
        np.arange(count),
    )


def every_image(truth: dict[str, Any], count: int, rng: np.random.Generator) -> Any:
    """Detections of each image in turn."""
    by_image: dict[int, Rows] = {}
    for row in truth["annotations"]:
        by_image.setdefault(row["image_id"], []).append(row)
    for image in truth["images"]:
        own = by_image[image["id"]]
        judged = [*image["neg_category_ids"], *{row["category_id"] for row in own}]
        yield detections_of(own, judged, count, len(truth["categories"]), rng)


def as_rows(found: Detections) -> Rows:
    """The rows of a result file."""
    columns = found.image.tolist(), found.category.tolist(), found.box.tolist(), found.score.tolist()
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(*columns, strict=True)
    ]


def lvis_api(truth: dict[str, Any], rows: Rows, fixed: bool) -> Callable[[], dict[str, float]]:
    """A run of lvis-api on its own copies, made beforehand."""
    drawing: Any = types.ModuleType("lvis.vis")
    drawing.LVISVis = None
    sys.modules.setdefault("lvis.vis", drawing)
    np.float = float  # type: ignore[attr-defined]
    from lvis import LVIS, LVISEval, LVISResults

    logging.disable(logging.WARNING)
    reference = LVIS.__new__(LVIS)
    reference.logger, reference.dataset = logging.getLogger("lvis"), copy.deepcopy(truth)
    reference._create_index()
    own, most = copy.deepcopy(rows), -1 if fixed else 300

    def run() -> dict[str, float]:
        evaluation = LVISEval(reference, LVISResults(reference, own, max_dets=most), "bbox")
        evaluation.params.max_dets = most
        evaluation.run()
        return {name: float(value) for name, value in evaluation.get_results().items()}

    return run


def faster(truth: dict[str, Any], rows: Rows) -> Callable[[], dict[str, float]]:
    """A run of faster-coco-eval in LVIS style, standard AP."""
    from faster_coco_eval import COCO, COCOeval_faster

    dataset = copy.deepcopy(truth)
    for row in dataset["annotations"]:
        row["iscrowd"] = 0
    for image in dataset["images"]:
        image |= {"width": SIDE, "height": SIDE}
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(dataset)

    def run() -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval_faster(
                reference, reference.loadRes([dict(row) for row in rows]), "bbox", lvis_style=True
            )
            evaluation.params.maxDets = [300]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return dict(zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), map(float, evaluation.stats[:6]), strict=False))

    return run


def best_of(runs: dict[str, Callable[[], dict[str, float]]], times: int) -> dict[str, tuple[float, dict[str, float]]]:
    """Least seconds and figures of each, run by turns."""
    found: dict[str, tuple[float, dict[str, float]]] = {}
    for _ in range(times):
        for name, run in runs.items():
            start = time.perf_counter()
            figures = run()
            seconds = time.perf_counter() - start
            found[name] = min(found.get(name, (seconds, figures)), (seconds, figures), key=lambda pair: pair[0])
    return found


def compare(images: int, per_image: int, categories: int, times: int) -> None:
    """Seconds of each tool, standard and fixed."""
    rng = np.random.default_rng(0)
    truth = ground_truth(images, categories, rng)
    rows = [row for found in every_image(truth, per_image, rng) for row in as_rows(found)]
    for name, limits in (("standard", lvis.STANDARD), ("fixed", lvis.FIXED)):
        runs = {
            "ours": lambda limits=limits: lvis.evaluate(truth, rows, limits),
            "lvis-api": lvis_api(truth, rows, limits is lvis.FIXED),
        }
        if limits is lvis.STANDARD:
            runs["faster-coco-eval"] = faster(truth, rows)
        found = best_of(runs, times)
        figures = found["ours"][1]
        off = {
            tool: max(abs(value - figures[key]) for key, value in other.items()) for tool, (_, other) in found.items()
        }
        assert off["lvis-api"] < 1e-9, off
        line = {
            "protocol": name,
            "images": images,
            "detections": len(rows),
            "categories": categories,
            "AP": figures["AP"],
        }
        line |= {f"seconds {tool}": round(seconds, 3) for tool, (seconds, _) in found.items()}
        line |= {f"difference {tool}": value for tool, value in off.items() if tool != "ours"}
        print(json.dumps(line | {"ratio": round(found["lvis-api"][0] / found["ours"][0], 1)}), flush=True)


def full(images: int, per_category: int, categories: int) -> None:
    """Fixed AP at full size; 5 % more detections than are kept, so that the limit cuts."""
    rng = np.random.default_rng(0)
    truth = ground_truth(images, categories, rng)
    count = int(per_category * categories * 1.05 / images)
    found, start, adding = Accumulator(lvis.FIXED), time.perf_counter(), 0.0
    for number, rows in enumerate(even(truth, count, rng)):
        began = time.perf_counter()
        found.add(rows)
        adding += time.perf_counter() - began
        if number % 1000 == 999:
            print(f"{number + 1} images, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    began = time.perf_counter()
    result = lvis.score(lvis.Truth.of(truth), found)
    line = {"protocol": "fixed", "images": images, "detections": found.rows, "categories": categories}
    line |= {"kept": sum(map(len, found.blocks())), "AP": result.figures["AP"], "seconds adding": round(adding, 1)}
    line |= {"seconds scoring": round(time.perf_counter() - began, 1)}
    print(json.dumps(line | {"peak_memory_bytes": peak_memory()}), flush=True)


def peak_memory() -> int:
    """Most bytes that were ever resident; unlike ru_maxrss it does not begin with those of the process before exec."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def even(truth: dict[str, Any], count: int, rng: np.random.Generator) -> Any:
    """As `every_image`, with every category equally often over the set: each has 10,000 and more."""
    categories = len(truth["categories"])
    for found in every_image(truth, count, rng):
        spare = np.arange(count) >= count // 6  # five sixths of the boxes go to any category
        category = np.where(spare, (rng.permutation(count) + int(found.image[0])) % categories + 1, found.category)
        yield Detections(found.image, category, found.box, found.score, found.place)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--per-image", type=int, default=300)
    parser.add_argument("--categories", type=int, default=1203)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="also full size, in a process of its own")
    parser.add_argument("--only-full", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only_full:
        full(5000, 10_000, chosen.categories)
        return
    compare(chosen.images, chosen.per_image, chosen.categories, chosen.times)
    if chosen.full:
        subprocess.run([sys.executable, __file__, "--only-full"], check=True)


if __name__ == "__main__":
    main()
