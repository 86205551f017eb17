"""caption as a process of its own over records without photos, for the tests that kill it and its workers.

python tests/pipelines/caption_only.py WORKSPACE CHUNK_IMAGES WORKERS PAUSE_S
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from llmdet.prompts import PROMPTS
from llmdet.workspace import Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.cluster import cluster
from pipelines.engines.engine import Answer, Job
from pipelines.parts import Workers
from tests.pipelines import fakes


@dataclass(frozen=True, kw_only=True)
class Slow(fakes.Fake):
    """The fake engine in actors, as an engine with a model is run; it takes its time over every image."""

    pause_s: float = 0.0

    def workers(self) -> Workers:
        return Workers(count=2, num_cpus=0.5, items=2, item_images=32)

    def start(self) -> Slow:
        return self

    def answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        answers = super().answer(jobs)  # written down first: what a kill then takes away counts as asked
        time.sleep(self.pause_s * len(jobs))
        return answers


def engine_of(workspace: Workspace, pause_s: float = 0.0) -> Slow:
    return Slow(log=f"{workspace.url}/asked.jsonl", pause_s=pause_s)


def say(done: int, total: int | None) -> None:
    print("caption", done, flush=True)


def main() -> None:
    import ray

    url, chunk_images, workers, pause_s = sys.argv[1:]
    workspace = Workspace.at(url)
    settings = CaptionSettings(chunk_images=int(chunk_images), concurrency=int(workers))
    PROMPTS.update(fakes.PROMPTS)
    with cluster():
        for module in (fakes, sys.modules["__main__"]):
            ray.cloudpickle.register_pickle_by_value(module)
        print("started", flush=True)
        caption(workspace, "hand", engine_of(workspace, float(pause_s)), settings, say)


if __name__ == "__main__":
    main()
