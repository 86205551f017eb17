"""Whether the detector learns from words: the quickstart with captions and without; one JSON line for each run.

    OMP_NUM_THREADS=1 PYTHONPATH=.:benchmarks python benchmarks/caption_learning.py --seeds 0 1 2

Both start from the same weights and take the same steps. With `--keep DIR` workspaces stay, and runs that are there
already are measured only. AP50 is that of the quickstart: 320 held-out scenes of colour-shape pairs that were seen in
training, and 320 of pairs that were not.

Of the trained heads, on held-out scenes described by the template engine: the loss per token to predict, of images and
of regions, for their own words (`true`) and for those of other scenes (`shuffled`), from the same features. Then what
the detector says by itself of the first 100 scenes, asked for all names of the set at once: `found` is the share of
true boxes on which it has a box (IoU 0.5; the one with the best score counts), `right` the share of these whose caption
names colour and shape of the true box, `name` the share where the detector's own name is right. `image_right`: the
first sentence about the image names exactly the things that are there; `image_f1` counts the names. `step_cpu_ms` is
the CPU time of a training step of eight images in one process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from quickstart_learning import records

from llmdet import boxes as bx
from llmdet import world
from llmdet.record import Caption, Record, to_batch
from llmdet.template import facts_of, image_caption, region_captions
from llmdet.workspace import to_parquet

if TYPE_CHECKING:
    from PIL.Image import Image

    from detector.data import Batch
    from detector.predict import Detector
    from detector.words import Words

THINGS = re.compile(f"({'|'.join(world.COLOURS)}) ({'|'.join(world.SHAPES)})")
FAR = 7  # more than a scene has objects: a text that moves so far along belongs to another scene
IOU = 0.5
SAID = 100  # scenes of each set that the detector describes
STEPS = 30  # in which the CPU time of a step is measured


def described(record: Record) -> Record:
    """The record with the template engine's captions of the image and of its boxes."""
    facts = facts_of(record)
    said = iter(region_captions(facts))
    regions = tuple(
        dataclasses.replace(
            region, boxes=tuple(dataclasses.replace(box, caption=Caption(next(said))) for box in region.boxes)
        )
        for region in record.regions
    )
    return dataclasses.replace(record, regions=regions, captions=(Caption(image_caption(facts)),))


def held_out(detector: Detector, place: Path) -> list[Batch]:
    """The held-out scenes as training would have them, in their order."""
    from detector.config import quickstart_settings
    from detector.data import Collate, GroundingDataset, TrainData

    with tempfile.TemporaryDirectory() as folder:
        rows = [described(one) for one in records(place / "annotations.json", seed=0)]
        Path(folder, "part-00000.parquet").write_bytes(to_parquet(to_batch(rows)))
        parts = detector.parts
        data = TrainData(folder, {"world": str(place / "images")})
        dataset = GroundingDataset(data, parts.tokenizer, parts.pixels, parts.model.config.max_text_len, seed=0)
        collate = Collate(quickstart_settings(), parts.model.config.num_queries)
        starts = range(0, len(dataset), 16)
        return [collate([dataset[(0, row)] for row in range(s, min(s + 16, len(dataset)))]) for s in starts]


def losses(detector: Detector, place: Path) -> dict[str, float]:
    """Mean loss per token of the held-out scenes' own words, and of other scenes' words."""
    batches = held_out(detector, place)
    words = [one for batch in batches for one in batch.words]
    found: dict[str, list[float]] = {}
    for kind, told in (("true", words), ("shuffled", moved(words))):
        rest = iter(told)
        for batch in batches:
            image, region = losses_of(detector, batch, [next(rest) for _ in batch.words])
            found.setdefault(f"image_{kind}", []).append(image)
            found.setdefault(f"region_{kind}", []).append(region)
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}


def losses_of(detector: Detector, batch: Batch, words: Sequence[Words]) -> tuple[float, float]:
    """Loss of images and of regions when these words are to be said of a batch."""
    import torch

    from detector.config import CriterionSettings
    from detector.criterion import criterion

    heads = detector.parts.captions
    assert heads is not None
    with torch.inference_mode():
        seen = detector.parts.model(batch.pixel_values, batch.pixel_mask, batch.input_ids, batch.attention_mask)
        match = criterion(seen.matched, None, None, batch.targets, CriterionSettings(), 1.0).match_BQ
        images = [(number, one.image) for number, one in enumerate(words) if one.image]
        regions = heads.choose(match, words)
        return float(heads.image_loss(seen.features, images)), float(heads.region_loss(seen.features, regions))


def moved(words: Sequence[Words]) -> list[Words]:
    """The same texts, each with another image, or with a box of another image."""
    regions = [text for one in words for text in one.regions]
    rolled = iter(regions[FAR:] + regions[:FAR])
    return [
        dataclasses.replace(one, image=other.image, regions=tuple(next(rolled) for _ in one.regions))
        for one, other in zip(words, [*words[1:], words[0]], strict=True)
    ]


def sayings(detector: Detector, place: Path, seen: bool) -> dict[str, float]:
    """How often what is said of boxes is true; where all things of a scene are annotated, also of the image."""
    from PIL import Image

    from detector.predict import categories_of

    truth = json.loads((place / "annotations.json").read_text())
    ids, names = categories_of(truth)
    boxes: dict[int, list[tuple[list[float], str]]] = {row["id"]: [] for row in truth["images"]}
    for row in truth["annotations"]:
        boxes[row["image_id"]].append((row["bbox"], names[ids.index(row["category_id"])]))
    count: Counter[str] = Counter()
    for image in truth["images"][:SAID]:
        picture = Image.open(place / "images" / image["file_name"]).convert("RGB")
        count += heard(detector, picture, names, boxes[image["id"]], seen)
    shares = {"found": count["found"] / count["boxes"]}
    shares |= {key: count[key] / max(count["found"], 1) for key in ("right", "name")}
    if seen:
        shares["image_right"] = count["image_right"] / len(truth["images"][:SAID])
        shares["image_f1"] = 2 * count["both"] / (count["said"] + count["boxes"])
    return {f"{place.name}_{key}": round(value, 4) for key, value in shares.items()}


def heard(
    detector: Detector, picture: Image, names: list[str], told: list[tuple[list[float], str]], whole: bool
) -> Counter[str]:
    """What is right of what is said about one scene with these true boxes (xywh) and names."""
    from detector.captions.say import say_boxes, say_image

    heads = detector.parts.captions
    assert heads is not None
    found = detector.detect([picture], names, top_k=100, keep=True)[0]
    over = bx.iou(bx.from_xywh([box for box, _ in told]), found.boxes) >= IOU
    hits = [(int(np.argmax(row)), name) for row, (_, name) in zip(over, told, strict=True) if row.any()]
    queries = found.queries[[row for row, _ in hits]].tolist() if hits else []
    count: Counter[str] = Counter(boxes=len(told), found=len(hits))
    for (row, name), text in zip(hits, say_boxes(heads, found.features, queries), strict=True):
        count["right"] += _things(text)[:1] == [name]
        count["name"] += names[found.labels[row]] == name
    if whole:
        said = Counter(_things(say_image(heads, found.features[0]).split(".")[0]))
        there = Counter(name for _, name in told)
        count.update(image_right=said == there, said=said.total(), both=(said & there).total())
    return count


def _things(text: str) -> list[str]:
    return [" ".join(pair) for pair in THINGS.findall(text.lower())]


def step_cpu_ms(workspace: Path, captions: bool) -> float:
    """CPU time of a step in this process."""
    import torch

    from detector.config import quickstart_model, quickstart_settings, tiny_captions
    from detector.data import TrainData
    from detector.train import train

    torch.set_num_threads(1)
    marks: list[float] = []
    settings = dataclasses.replace(quickstart_settings(STEPS), captions=tiny_captions() if captions else None)
    data = TrainData(str(workspace / "groundingcap"), {"world": str(workspace / "world" / "train" / "images")})
    with tempfile.TemporaryDirectory() as out:
        train(settings, quickstart_model(), data, out, on_step=lambda _: marks.append(time.process_time()))
    return round(1000 * float(np.median(np.diff(marks[:-1]))), 1)  # the last step writes a checkpoint


def run(workspace: Path, seed: int, captions: bool) -> dict[str, Any]:
    """One quickstart, and what its detector learned."""
    from detector.predict import Detector

    command = [sys.executable, "-m", "cli", "quickstart", "--seed", str(seed), "--json", "--workspace", str(workspace)]
    command += ["--captions", "on" if captions else "off"]
    kept = workspace / "outcome.json"
    if not kept.exists():
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        kept.write_text(done.splitlines()[-1])
    outcome = json.loads(kept.read_text())
    result = json.loads((workspace / "detector" / "quickstart" / "result.json").read_text())
    line: dict[str, Any] = {"seed": seed, "captions": captions}
    line |= {key: outcome[key] for key in ("ap50_after", "ap50_unseen", "seconds", "peak_memory_bytes")}
    line |= {"train_s": result["seconds"], "step_cpu_ms": step_cpu_ms(workspace, captions)}
    if not captions:
        return line
    detector = Detector.load(outcome["checkpoint"], "cpu", captions=True)
    line |= losses(detector, workspace / "world" / "seen")
    line |= sayings(detector, workspace / "world" / "seen", seen=True)
    return line | sayings(detector, workspace / "world" / "unseen", seen=False)


def main() -> None:
    """Run the command of the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--captions", nargs="+", choices=("on", "off"), default=["on", "off"])
    parser.add_argument("--keep", type=Path, help="folder of the workspaces; without it they are removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for seed in arguments.seeds:
            for captions in arguments.captions:
                workspace = (arguments.keep or Path(temporary)) / f"{seed}-{captions}"
                print(json.dumps(run(workspace, seed, captions == "on")), flush=True)


if __name__ == "__main__":
    main()
