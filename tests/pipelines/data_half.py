"""The data half of the loop as a process of its own, for the tests that kill it. Prints a line at each step.

python tests/pipelines/data_half.py WORLD WORKSPACE ENGINE
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from llmdet.exports.groundingcap import GroundingCap
from llmdet.prompts import PROMPTS
from llmdet.sources.coco import Coco
from llmdet.workspace import Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.cluster import cluster
from pipelines.engines.engine import Engine
from pipelines.engines.template import TemplateEngine
from pipelines.export import export
from pipelines.ingest import IngestSettings, ingest
from pipelines.merge import merge
from pipelines.refine import RefineSettings, refine
from tests.pipelines import fakes

SCENES = 48
LINES = "exports/groundingcap.jsonl"


def run(world: str, workspace: Workspace, engine: Engine, rules: RefineSettings, part_rows: int = 6) -> None:
    """ingest, caption and refine until nothing is sent back, merge, export."""
    source = Coco(annotations=f"{world}/annotations.json", images=f"{world}/images", name="world", negatives=8)
    ingest(workspace, source, IngestSettings(part_rows=part_rows), partial(say, "ingest"))
    for _ in range(3):
        caption(workspace, "world", engine, CaptionSettings(chunk_images=6), partial(say, "caption"))
        if not refine(workspace, "world", rules, partial(say, "refine")).asks:
            break
    merge(workspace, progress=partial(say, "merge"))
    export(workspace, GroundingCap(), workspace.path("exports"))
    say("export", 1, 1)


def say(stage: str, done: int, total: int | None) -> None:
    print(stage, done, flush=True)


def settings_of(engine: str, workspace: Workspace) -> tuple[Engine, RefineSettings]:
    """The template engine, or the fake one whose first answers are all sent back."""
    if engine == "template":
        return TemplateEngine(colours=True), RefineSettings()
    Path(workspace.url).mkdir(parents=True, exist_ok=True)
    return fakes.Fake(log=f"{workspace.url}/asked.jsonl"), RefineSettings(rules=(fakes.NeedAttempt(1),))


def main() -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(fakes)
    PROMPTS.update(fakes.PROMPTS)
    world, url, name = sys.argv[1:]
    workspace = Workspace.at(url)
    with cluster():
        say("start", 1, 1)
        run(world, workspace, *settings_of(name, workspace))


if __name__ == "__main__":
    main()
