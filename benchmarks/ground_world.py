"""Precision and recall of the pseudo boxes of the quickstart's detector, on rendered scenes whose truth is known.

    llmdet-data quickstart --workspace quickstart
    PYTHONPATH=. python benchmarks/ground_world.py --checkpoint quickstart/detector/quickstart
    PYTHONPATH=. python benchmarks/ground_world.py --checkpoint quickstart/detector/quickstart --loop quickstart

New scenes (another seed) become a folder of photos with captions: the template engine's, written from the true boxes
("The image shows two red squares and a blue star. ..."). `ground` gets nothing else. A pseudo box is right where a true
box of the same name, not taken by a better one, has an IoU of at least 0.5; recall is over all true boxes. One JSON
line for each threshold and prompt. With `--loop` the grounded scenes are captioned, refined, merged with the
quickstart's labelled ones and trained on again, and AP of both detectors is printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from llmdet.boxes import from_xywh, iou
from llmdet.lemmas import singular
from llmdet.record import Record
from llmdet.sources.coco import Coco
from llmdet.sources.folder import Folder
from llmdet.template import facts_of, image_caption
from llmdet.workspace import Workspace
from llmdet.world import write_world
from pipelines.cluster import cluster
from pipelines.finding import GroundSettings
from pipelines.ground import ground
from pipelines.ingest import ingest

SEED = 77  # of scenes that no quickstart has seen
Truth = dict[tuple[str, str], list[tuple[float, ...]]]  # (photo, name) -> boxes


def scenes(place: Path, count: int) -> Truth:
    """Render scenes with a caption file and no boxes below `place/images`; the truth stays here."""
    annotations = write_world(place, count, SEED)
    reader = Coco(annotations=str(annotations), images=str(place / "images"), name="world", negatives="dynamic")
    records = [item for item in reader.read() if isinstance(item, Record)]
    lines = [{"file_name": one.image, "text": image_caption(facts_of(one))} for one in records if one.regions]
    (place / "images" / "captions.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    document = json.loads(annotations.read_text())
    names = {row["id"]: row["name"] for row in document["categories"]}
    photos = {row["id"]: row["file_name"] for row in document["images"]}
    truth: Truth = defaultdict(list)
    for row in document["annotations"]:
        truth[photos[row["image_id"]], names[row["category_id"]]].append(tuple(from_xywh(row["bbox"]).tolist()))
    return truth


def name_of(phrase: str) -> str:
    """`Two red squares` as `red square`: the last two words, the last in the singular."""
    *_, colour, shape = phrase.lower().split()
    return f"{colour} {singular(shape)}"


def found_in(records: Iterator[Record]) -> dict[tuple[str, str], list[tuple[float, tuple[float, ...]]]]:
    """(score, box) of each photo and name."""
    found: dict[tuple[str, str], list[tuple[float, tuple[float, ...]]]] = defaultdict(list)
    for record in records:
        for region in record.regions:
            key = (record.image, name_of(region.phrases[0]))
            found[key] += [(box.score or 0.0, box.xyxy) for box in region.boxes]
    return found


def right(truth: Truth, found: dict[tuple[str, str], list[tuple[float, tuple[float, ...]]]]) -> int:
    """How many boxes are right: each true box once, better scores first."""
    count = 0
    for key, boxes in found.items():
        free = np.array(truth.get(key, []), dtype=np.float64).reshape(-1, 4)
        for _, box in sorted(boxes, reverse=True):
            overlaps = iou(np.array([box]), free)[0]
            if len(overlaps) and overlaps.max() >= 0.5:
                free = np.delete(free, overlaps.argmax(), axis=0)
                count += 1
    return count


def measure(workspace: Workspace, checkpoint: str, truth: Truth, settings: GroundSettings) -> dict[str, Any]:
    """Ground once, and compare."""
    began = time.monotonic()
    outcome = ground(workspace, "scenes", checkpoint, settings)
    found = found_in(workspace.grounded("scenes").records())
    boxes, good = sum(map(len, found.values())), right(truth, found)
    return {
        "prompt": settings.prompt,
        "min_score": settings.min_score,
        "min_boxes": settings.min_boxes,
        "records": outcome.records,
        "boxes": boxes,
        "precision": round(good / max(boxes, 1), 4),
        "recall": round(good / sum(map(len, truth.values())), 4),
        "left_out": outcome.rejects,
        "seconds": round(time.monotonic() - began, 1),
    }


def loop(place: Path, quickstart: str, checkpoint: str, steps: int) -> dict[str, Any]:
    """Train again on the quickstart's labelled scenes and the grounded ones; figures before and after."""
    from detector.config import quickstart_settings
    from pipelines.recipe import recipe_of
    from pipelines.run import run

    world = str(Path(quickstart).resolve() / "world")
    values: dict[str, Any] = {
        "workspace": str(place / "again"),
        "data_root": world,
        "sources": {
            "world": {
                "format": "coco", "annotations": "train/annotations.json", "images": "train/images", "negatives": 8,
            },
            "scenes": {"format": "folder", "annotations": "", "images": str(place / "scenes" / "images")},
        },
        "ground": {"sources": ["scenes"], "checkpoint": checkpoint},
        "train": {"short_side": 128, "long_side": 128, "workers": 2, "settings": asdict(quickstart_settings(steps))},
        "evaluate": [
            {"name": name, "annotations": f"{name}/annotations.json", "images": f"{name}/images", "top_k": 100}
            for name in ("seen", "unseen")
        ],
    }  # fmt: skip
    done = run(recipe_of(values))
    before = Path(checkpoint) / "evaluations"
    figures = {
        name: json.loads((before / f"{name}_metrics.json").read_text())["metrics"] for name in ("seen", "unseen")
    }
    return {
        "records": done.records,
        "rejects": done.rejects,
        "first": {name: {key: figures[name][key] for key in ("AP", "AP50")} for name in figures},
        "again": {name: {key: done.metrics[name][key] for key in ("AP", "AP50")} for name in figures},
        "seconds": done.seconds,
    }


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--scenes", type=int, default=320)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.1, 0.3, 0.5])
    parser.add_argument("--loop", default="", help="workspace of the quickstart")
    parser.add_argument("--steps", type=int, default=1000, help="of training again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, cluster():
        place = Path(folder)
        truth = scenes(place / "scenes", arguments.scenes)
        if arguments.loop:
            print(json.dumps(loop(place, arguments.loop, arguments.checkpoint, arguments.steps)), flush=True)
            return
        workspace = Workspace.at(str(place / "workspace"))
        ingest(workspace, Folder(images=str(place / "scenes" / "images"), name="scenes"))
        for prompt in ("names", "sentence"):
            for least in arguments.thresholds:
                for boxes in (0, 3):
                    settings = GroundSettings(prompt=prompt, min_score=least, min_boxes=boxes)
                    print(json.dumps(measure(workspace, arguments.checkpoint, truth, settings)), flush=True)


if __name__ == "__main__":
    main()
