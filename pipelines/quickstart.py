"""quickstart: the whole loop on a small world that is rendered here, on a CPU, in minutes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from detector.config import quickstart_settings
from llmdet import files
from llmdet.errors import SettingError
from llmdet.world import write_world
from pipelines import recipe as recipes
from pipelines.predict import PredictSettings, predict
from pipelines.predictions import Prediction
from pipelines.recipe import Recipe
from pipelines.run import RunOutcome, Watch, run, unwatched

TRAIN_SCENES = 2000
HELD_OUT_SCENES = 320  # of each evaluation set
PREDICTED = 6  # held-out scenes that are drawn with what the detector sees in them


@dataclass(frozen=True, slots=True)
class QuickstartOutcome:
    """What the quickstart made and measured."""

    workspace: str
    records: int
    ap50_before: float  # untrained, on held-out scenes
    ap50_after: float
    ap50_unseen: float  # on colour-shape pairs that training never saw or named
    report: str
    checkpoint: str
    pictures: list[str]
    said: str  # of the first of them, by the detector; empty where it learned from boxes alone
    peak_memory_bytes: int  # sum of the proportional set sizes of all processes
    seconds: float


def quickstart(
    workspace: str,
    *,
    steps: int | None = None,
    scenes: int = TRAIN_SCENES,
    held_out: int = HELD_OUT_SCENES,
    seed: int = 0,
    captions: bool = True,
    watch: Watch = unwatched,
) -> QuickstartOutcome:
    """Render, ingest, caption, refine, merge, export, train, evaluate, predict, report.

    Bounded by steps, not by time. The same command continues after a kill. Without `captions` the detector learns from
    boxes alone.
    """
    if "://" in workspace:
        raise SettingError(f"the quickstart needs a folder of this machine as workspace; got {workspace}")
    started = time.monotonic()
    with _peak_memory() as peak:
        world = os.path.join(files.absolute(workspace), "world")
        with watch("render"):
            render_world(world, scenes, held_out, seed)
        recipe = quickstart_recipe(workspace, steps, seed, captions)
        done = run(recipe, watch=watch)
        with watch("predict"):
            seen = _predict(done, world, captions)
    return QuickstartOutcome(
        workspace=done.workspace,
        records=done.records,
        ap50_before=done.metrics["seen-untrained"]["AP50"],
        ap50_after=done.metrics["seen"]["AP50"],
        ap50_unseen=done.metrics["unseen"]["AP50"],
        report=done.report,
        checkpoint=done.checkpoint,
        pictures=[one.drawn for one in seen if one.drawn],
        said=seen[0].caption,
        peak_memory_bytes=peak[0],
        seconds=round(time.monotonic() - started, 3),
    )


def quickstart_recipe(workspace: str, steps: int | None = None, seed: int = 0, captions: bool = True) -> Recipe:
    """The bundled recipe with its training settings filled in."""
    # By its address: the workspace, also called quickstart, may lie in the folder that we stand in.
    values: dict[str, Any] = recipes.load(str(recipes.workflows() / "quickstart.yaml")).model_dump()
    settings = quickstart_settings(seed=seed) if steps is None else quickstart_settings(steps, seed)
    values["workspace"] = workspace
    values["data_root"] = os.path.join(files.absolute(workspace), "world")
    values["train"] |= {"settings": asdict(settings), "captions": captions}
    return recipes.recipe_of(values, "quickstart")


def render_world(world: str, scenes: int, held_out: int, seed: int) -> None:
    """Write the three sets as COCO files; one that is whole already stays."""
    sets = (
        ("train", scenes, seed, "seen"),
        ("seen", held_out, seed + 1, "seen"),
        ("unseen", held_out, seed + 2, "unseen"),
    )
    for name, count, draw, pairs in sets:
        note = os.path.join(world, name, "rendered.json")
        made = {"scenes": count, "seed": draw, "pairs": pairs}
        if files.exists(note) and files.read_json(note) == made:
            continue
        write_world(os.path.join(world, name), count, draw, "unseen" if pairs == "unseen" else "seen")
        files.write_json(note, made)


def _predict(done: RunOutcome, world: str, captions: bool) -> list[Prediction]:
    """Draw what the trained detector sees in the first held-out scenes, and let it say what it sees."""
    truth = files.read_json(os.path.join(world, "seen", "annotations.json"))
    text = ". ".join(category["name"] for category in truth["categories"])
    images = [os.path.join(world, "seen", "images", row["file_name"]) for row in truth["images"][:PREDICTED]]
    settings = PredictSettings(captions=captions)
    return predict(images, text, done.checkpoint, os.path.join(done.workspace, "predictions"), settings).images


@contextlib.contextmanager
def _peak_memory(every_s: float = 5.0) -> Iterator[list[int]]:
    """The largest sum of proportional set sizes of this process and all below it, sampled."""
    peak, stop = [0], threading.Event()
    root = psutil.Process()

    def sample() -> None:
        while not stop.wait(every_s):
            peak[0] = max(peak[0], sum(_pss(p) for p in [root, *root.children(recursive=True)]))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _pss(process: psutil.Process) -> int:
    """Proportional set size where the system tells it, resident size elsewhere, 0 for a process that is gone."""
    try:
        facts = process.memory_full_info()
        return int(getattr(facts, "pss", 0) or facts.rss)
    except psutil.Error:
        return 0
