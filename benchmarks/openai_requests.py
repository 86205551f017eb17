"""How many requests a second one worker of the `openai` engine gets answered, by a server that answers at once.

    python -m benchmarks.openai_requests [--images 300] [--boxes 8] [--concurrency 64]

Each image has one question about the whole and one for each box, as `region-each` asks. The server has a process of its
own; photos are opened, resized, compressed and sent for real. Seconds of processor are this worker's alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llmdet.boxes import XYXY
from llmdet.prompts.image import ImageDetailed
from llmdet.prompts.region import RegionEach
from llmdet.record import Box, Record, Region
from pipelines.engines.engine import Job, Request, image_key, request_id
from pipelines.engines.openai import OpenAiEngine
from tests.pipelines.engines.fault_server import FaultServer
from tests.pipelines.fakes import record

SIZE = (640, 480)


def main() -> None:
    """Read the options, start the server, measure."""
    read = argparse.ArgumentParser(description=__doc__)
    read.add_argument("--images", type=int, default=300)
    read.add_argument("--boxes", type=int, default=8)
    read.add_argument("--concurrency", type=int, default=64)
    given = read.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [job(Path(folder), number, given.boxes) for number in range(given.images)]
        ours, theirs = get_context("spawn").Pipe()
        server = get_context("spawn").Process(target=serve, args=(theirs,))
        server.start()
        try:
            measure(OpenAiEngine(model="tiny", base_url=ours.recv(), concurrency=given.concurrency), jobs)
        finally:
            ours.send("end")
            server.join()


def measure(engine: OpenAiEngine, jobs: list[Job]) -> None:
    """Answer all jobs once, after a warm-up, and print what it took."""
    answerer: Any = engine.start()
    answerer.answer(jobs[:8])
    wall, processor = time.perf_counter(), time.process_time()
    answers = [answer for told in answerer.answer(jobs) for answer in told]
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    answerer.close()
    assert not any(answer.error for answer in answers)
    print(
        f"{len(jobs)} images, {len(answers)} requests in {wall:.2f} s: {len(jobs) / wall:.0f} images/s, "
        f"{len(answers) / wall:.0f} requests/s; processor: {processor / len(answers) * 1000:.2f} ms a request"
    )


def serve(pipe: Connection) -> None:
    """A server in a process of its own, until told to end."""
    with FaultServer() as server:
        server.calls = Forgetful()
        pipe.send(server.url)
        pipe.recv()


class Forgetful(list[Any]):
    """Keeps no calls: their pictures would fill the memory."""

    def append(self, call: Any) -> None:
        pass


def job(folder: Path, number: int, boxes: int) -> Job:
    """A photo of soft noise, which compresses as photos do, and all questions about it."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8))
    small.resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
    one = shown(number, [(8.0 * i, 9.0 * i, 8.0 * i + 90, 9.0 * i + 70) for i in range(boxes)])
    asked = [(prompt, ask) for prompt in (ImageDetailed(), RegionEach()) for ask in prompt.render(one)]
    requests = [Request(request_id("benchmark", image_key(one), ask), prompt.task, ask) for prompt, ask in asked]
    return Job(one, str(folder / one.image), tuple(requests))


def shown(number: int, places: list[XYXY]) -> Record:
    """A record of a photo with a dog in each place."""
    boxes = tuple(Box(place, order=order) for order, place in enumerate(places))
    return replace(record(number), width=SIZE[0], height=SIZE[1], regions=(Region(("dog",), ((0, 3),), boxes, 1),))


if __name__ == "__main__":
    main()
