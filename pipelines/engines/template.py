"""The engine without a model: factual texts from what the record and, with `colours`, the pixels say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from llmdet import colours, masks
from llmdet.errors import FormatError, ImageError
from llmdet.images import open_sized
from llmdet.prompts.prompt import Prompt, Task, boxes_of
from llmdet.prompts.template import TemplateImage, TemplateRegion
from llmdet.record import Record
from llmdet.template import TEMPLATE_VERSION, Facts, facts_from_json, image_caption, region_captions
from pipelines.engines.engine import Answer, Identity, Job, Request, Usage


@dataclass(frozen=True, kw_only=True)
class TemplateEngine:
    """Writes captions from boxes, phrases, positions and sizes; deterministic, needs no weights."""

    colours: bool = False  # measure colours in the pixels: opens every photo

    @property
    def deterministic(self) -> bool:
        return True

    def identity(self) -> Identity:
        return Identity("template", TEMPLATE_VERSION, preprocessing={"colours": self.colours})

    def prompts(self) -> dict[Task, Prompt]:
        return {"image": TemplateImage(), "region": TemplateRegion()}

    def workers(self) -> None:
        return None

    def start(self) -> TemplateEngine:
        return self

    def usage(self) -> Usage:
        return Usage()

    def answer(self, jobs: Sequence[Job]) -> list[list[Answer]]:
        return [self._answer_job(job) for job in jobs]

    def _answer_job(self, job: Job) -> list[Answer]:
        try:
            tints = _measure(job.record, job.image) if self.colours else []
        except ImageError as error:
            return [Answer(error=error.reason, detail=error.detail) for _ in job.requests]
        texts = {request.ask.text for request in job.requests}
        facts = {text: facts_from_json(text, tints) for text in texts}  # both tasks ask about the same facts
        return [_write(request, facts[request.ask.text]) for request in job.requests]


def _write(request: Request, facts: Facts) -> Answer:
    if request.task == "image":
        return Answer(image_caption(facts))
    return Answer(orjson.dumps(region_captions(facts)).decode())


def _measure(record: Record, url: str) -> list[str | None]:
    """The dominant colour of each box, inside its mask where it has one."""
    pixels = np.asarray(open_sized(url, (record.width, record.height), record.orientation))
    found = []
    for box in boxes_of(record):
        x1, y1, x2, y2 = (max(0, round(value)) for value in box.xyxy)
        inside = None
        if box.mask:
            try:
                inside = masks.decode(box.mask, record.height, record.width)[y1:y2, x1:x2]
            except FormatError:
                inside = None  # a mask that cannot be read says nothing; the box still does
        found.append(colours.dominant_colour(pixels[y1:y2, x1:x2], inside))
    return found
