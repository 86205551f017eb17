"""The prompts of the template engine: the facts of a record instead of a question."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from llmdet.prompts.prompt import AnswerError, Ask, Task, boxes_of
from llmdet.record import Record
from llmdet.template import TEMPLATE_VERSION, facts_json


@dataclass(frozen=True)
class TemplateImage:
    """One factual text about the whole image."""

    id: str = "template-image"
    version: str = TEMPLATE_VERSION
    task: Task = "image"

    def render(self, record: Record) -> list[Ask]:
        return [Ask(facts_json(record))]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        if not answer.strip():
            raise AnswerError("answer_empty")
        return [answer]


@dataclass(frozen=True)
class TemplateRegion:
    """One short text per box, all boxes of a record in one ask."""

    id: str = "template-region"
    version: str = TEMPLATE_VERSION
    task: Task = "region"

    def render(self, record: Record) -> list[Ask]:
        count = len(boxes_of(record))
        return [Ask(facts_json(record), boxes=tuple(range(count)))] if count else []

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        try:
            texts = orjson.loads(answer)
        except orjson.JSONDecodeError as error:
            raise AnswerError("answer_not_json", str(error)) from error
        if not isinstance(texts, list) or len(texts) != len(ask.boxes):
            raise AnswerError("answer_incomplete", f"{len(ask.boxes)} texts were asked for")
        return [str(text) for text in texts]
