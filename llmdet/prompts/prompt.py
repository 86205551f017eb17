"""What a prompt is: it renders a record into asks, and reads the answers back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from llmdet.boxes import XYXY
from llmdet.record import Box, Record

Task = Literal["image", "region"]


@dataclass(frozen=True, slots=True)
class View:
    """What of the picture a question shows. Boxes are xyxy in pixels of the record's picture, inside it."""

    kind: Literal["whole", "crop", "mark"] = "whole"
    boxes: tuple[XYXY, ...] = ()  # crop: the one part that is shown; mark: what is drawn on the whole
    numbers: tuple[int, ...] = ()  # mark: the number beside each box


@dataclass(frozen=True, slots=True)
class Ask:
    """One question about one image, fully resolved."""

    text: str
    schema: str = ""  # JSON schema that the answer must obey, where the engine can guide it
    boxes: tuple[int, ...] = ()  # region tasks: which boxes, counted over `boxes_of(record)`
    view: View = View()
    max_tokens: int | None = None  # what the longest allowed answer needs, where it is bounded; else the engine's


class AnswerError(Exception):
    """An answer that cannot be read; `reason` is the word that rejects are counted by."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Prompt(Protocol):
    """A frozen dataclass: its fields, id and version are what the fingerprint of a ledger holds."""

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def task(self) -> Task: ...

    def render(self, record: Record) -> list[Ask]:
        """What must be asked about a record; nothing for a region task without boxes."""
        ...

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        """The same question about some of its boxes only: what an answer left out is asked again."""
        ...

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        """One text for an image task, one per box of the ask for a region task; None for a box that was left out.

        Raises AnswerError where nothing at all can be read.
        """
        ...


def boxes_of(record: Record) -> list[Box]:
    """The boxes of a record in the order that asks count them: regions in order, boxes in each."""
    return [box for region in record.regions for box in region.boxes]
