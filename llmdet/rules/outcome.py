"""What a rule can say about a record or a caption, and how losses are told.

A rule takes a Record and returns one of four things:
    Record   go on with this one
    Kept     go on with this one, from which single captions were taken out (boxes and the other captions stay)
    Drop     never again: the record goes, with its boxes
    Retry    the engine failed on this record: ask again

Most rules judge captions, one at a time (see `llmdet.rules.captions`). For a caption, Drop and Retry take out that
caption only: a picture with a bad text keeps its boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmdet.record import Record
from llmdet.rejects import Kind, Reject

Target = Literal["record", "image_caption", "region_caption"]


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave out for good."""

    reason: str  # a short word that reports count by
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The engine failed: leave out and ask again."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that a rule took out, with all that a reject row or a new request needs."""

    record_id: str
    target: Target
    verdict: Drop | Retry
    rule: str = ""  # class name; the chain fills it in
    kind: Kind = "policy"  # fault: the rule raised
    index: int = 0  # of the caption among the record's captions, or of the box in the source's order
    request_id: str = ""  # of the answer, where an engine gave one
    attempt: int = 0

    def reject(self, stage: str = "refine") -> Reject:
        """The row that tells of this loss: of a request for a caption, of a record for a record."""
        detail = f"{self.rule}: {self.verdict.detail}" if self.verdict.detail else self.rule
        if self.target == "record":
            return Reject(self.record_id, "record", self.kind, stage, self.verdict.reason, detail)
        place = f"{self.record_id} {self.target} {self.index}"
        key = self.request_id or f"{self.record_id}#{self.target}-{self.index}"
        return Reject(key, "request", self.kind, stage, self.verdict.reason, f"{detail} ({place})")


@dataclass(frozen=True, slots=True)
class Kept:
    """The record without the captions that a rule took out."""

    record: Record
    losses: tuple[Loss, ...]


Outcome = Record | Kept | Drop | Retry
