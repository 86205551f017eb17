"""How well and how fast the quickstart's detector learns, over several seeds; one JSON line for each.

    OMP_WAIT_POLICY=passive PYTHONPATH=. python benchmarks/quickstart_learning.py --processes 2 --seeds 0 1 2

Renders the world, writes the records that ingest and merge would write, trains in `--processes` processes with one
thread each, and scores 300 held-out scenes of seen and 300 of unseen colour-shape pairs. `train_s` counts from the
launch of the training processes to their end; `pss_bytes` is the highest sum of proportional set sizes of them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from llmdet import world
from llmdet.boxes import from_xywh
from llmdet.record import Box, Record, Region, to_batch
from llmdet.workspace import to_parquet

NAMES = 8  # of a prompt: positives and negatives
SCENES = 2000
HELD_OUT_SCENES = 300


def records(annotations: Path, seed: int) -> list[Record]:
    """Detection records with frozen negatives, `negatives: n` with n = 8."""
    truth = json.loads(annotations.read_text())
    names = {row["id"]: row["name"] for row in truth["categories"]}
    by_image: dict[int, list[dict[str, Any]]] = {row["id"]: [] for row in truth["images"]}
    for row in truth["annotations"]:
        by_image[row["image_id"]].append(row)
    return [
        record(image, by_image[image["id"]], names, random.Random(f"{seed}/{image['id']}")) for image in truth["images"]
    ]


def record(image: dict[str, Any], rows: list[dict[str, Any]], names: dict[int, str], rng: random.Random) -> Record:
    """The record of one scene, as ingest writes it."""
    present = sorted({row["category_id"] for row in rows})
    absent = [number for number in names if number not in present]
    order = present + rng.sample(absent, max(0, NAMES - len(present)))
    rng.shuffle(order)
    text, spans = "", {}
    for number in order:
        spans[number] = (len(text), len(text) + len(names[number]))
        text += names[number] + ". "
    regions = tuple(
        Region(
            (names[number],), (spans[number],), tuple(box(row) for row in rows if row["category_id"] == number), number
        )
        for number in order
        if number in present
    )
    return Record(
        f"world/{image['id']}/0", "world", str(image["id"]), "0", "detection", image["file_name"], "world",
        image["width"], image["height"], text, regions, tuple(spans[n] for n in order if n not in present), True,
    )  # fmt: skip


def box(row: dict[str, Any]) -> Box:
    """A COCO annotation as a box."""
    return Box(tuple(from_xywh(row["bbox"]).tolist()), annotation_id=str(row["id"]))


def train_process(rank: int, processes: int, seed: int, steps: int, place: str, changes: dict[str, Any]) -> None:
    """One training process."""
    import dataclasses

    import torch.distributed as dist

    from detector.config import quickstart_model, quickstart_settings
    from detector.data import TrainData
    from detector.train import StepReport, train

    settings = quickstart_settings(seed=seed) if not steps else quickstart_settings(steps, seed)
    settings = dataclasses.replace(settings, **changes)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{place}/group-{seed}", rank=rank, world_size=processes)

    def show(report: StepReport) -> None:
        if rank == 0 and report.step % 100 == 0:
            print(f"# seed {seed} step {report.step} loss {report.loss:.3f} {report.seconds:.1f} s", flush=True)

    data = TrainData(f"{place}/records", {"world": f"{place}/train/images"})
    train(settings, quickstart_model(), data, f"{place}/detector-{seed}", on_step=show)
    if processes > 1:
        dist.destroy_process_group()


def scores(place: str, name: str, folder: str | None) -> dict[str, float]:
    """COCO figures of a split; of the untrained model where no folder is given."""
    import torch
    from PIL import Image

    from detector import checkpoint
    from detector.config import quickstart_model
    from detector.metrics import coco
    from detector.predict import Detector, categories_of, coco_rows

    detector = Detector.load(folder) if folder else Detector(checkpoint.start(quickstart_model(), 0))
    detector.parts.model.eval()
    torch.set_num_threads(2)
    truth = json.loads(Path(place, name, "annotations.json").read_text())
    ids, names = categories_of(truth)
    images = [Image.open(Path(place, name, "images", row["file_name"])).convert("RGB") for row in truth["images"]]
    found = detector.detect(images, names, top_k=100, batch_size=16)
    rows = [row for image, one in zip(truth["images"], found, strict=True) for row in coco_rows(image["id"], one, ids)]
    return coco.evaluate(truth, rows)


def pss(processes: list[Any]) -> int:
    """Sum of the proportional set sizes of processes, bytes."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):  # the process has ended
            continue
    return total


def run(place: str, seed: int, processes: int, steps: int, changes: dict[str, Any]) -> dict[str, Any]:
    """Train and score one seed."""
    spawn, began = mp.get_context("spawn"), time.monotonic()
    workers = [
        spawn.Process(target=train_process, args=(r, processes, seed, steps, place, changes)) for r in range(processes)
    ]
    for worker in workers:
        worker.start()
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], pss(workers))

    threading.Thread(target=watch, daemon=True).start()
    for worker in workers:
        worker.join()
    done.set()
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"training of seed {seed} failed")
    trained, folder = time.monotonic() - began, f"{place}/detector-{seed}"
    seen, unseen = scores(place, "seen", folder), scores(place, "unseen", folder)
    line: dict[str, Any] = {"seed": seed, "processes": processes, "train_s": round(trained, 1)}
    line["evaluate_s"] = round(time.monotonic() - began - trained, 1)
    line |= {"ap50_seen": seen["AP50"], "ap_seen": seen["AP"], "ap50_unseen": unseen["AP50"], "ap_unseen": unseen["AP"]}
    return line | {"pss_bytes": peak[0]}


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="0: the quickstart's own number")
    parser.add_argument("--set", type=json.loads, default={}, help="other settings of training, as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        world.write_world(f"{place}/train", SCENES, seed=0)
        world.write_world(f"{place}/seen", HELD_OUT_SCENES, seed=1)
        world.write_world(f"{place}/unseen", HELD_OUT_SCENES, seed=2, pairs="unseen")
        rows = records(Path(place, "train", "annotations.json"), seed=0)
        Path(place, "records").mkdir()
        Path(place, "records", "part-00000.parquet").write_bytes(to_parquet(to_batch(rows)))
        print(json.dumps({"untrained_ap50": scores(place, "seen", None)["AP50"]}), flush=True)
        for seed in arguments.seeds:
            line = run(place, seed, arguments.processes, arguments.steps, arguments.set)
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
