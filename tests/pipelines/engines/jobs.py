"""Photos, and requests about them, for the tests of engines."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from PIL import Image

from llmdet.prompts.image import ImageShort
from llmdet.prompts.prompt import Prompt
from llmdet.prompts.region import RegionBatch
from llmdet.record import to_batch
from llmdet.workspace import Manifest, Workspace
from pipelines.engines.engine import Job, Request, image_key, request_id, seed_of
from tests.pipelines.fakes import INFO, record

SIZE = (100, 80)  # of the records of `fakes`


def write_photos(folder: Path, count: int) -> Path:
    """0.jpg, 1.jpg, ..., each in a colour of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        colour = (37 * number % 256, 91 * number % 256, 53 * number % 256)
        Image.new("RGB", SIZE, colour).save(folder / f"{number}.jpg", quality=95)
    return folder


def job(folder: Path, number: int, boxes: int = 2, prompts: tuple[Prompt, ...] | None = None) -> Job:
    """What the short prompt and the default one for boxes ask about a photo of `write_photos`."""
    one = record(number, boxes=boxes)
    asks = [(prompt, ask) for prompt in prompts or (ImageShort(), RegionBatch()) for ask in prompt.render(one)]
    named = [(request_id("ledger", image_key(one), ask), prompt.task, ask) for prompt, ask in asks]
    requests = tuple(Request(name, task, ask, seed=seed_of(0, name, 0)) for name, task, ask in named)
    return Job(one, str(folder / one.image), requests)


def write_shown_records(workspace: Workspace, folder: Path, count: int, boxes: int = 2) -> None:
    """A finished table of records whose photos are those of `write_photos`."""
    write_photos(folder, count)
    shas = [hashlib.sha256((folder / f"{number}.jpg").read_bytes()).hexdigest() for number in range(count)]
    records = [replace(record(number, boxes=boxes), image_sha256=sha) for number, sha in enumerate(shas)]
    table = workspace.records("hand")
    part = table.write_part(0, "k", to_batch(records))
    info = replace(INFO, images=str(folder)).to_dict()
    table.commit(Manifest("ingest", "k", (part,), {"seconds": 0}, info=info))
