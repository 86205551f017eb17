"""What a check finds, in words that reports count by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmdet.record import Span

Reason = Literal[
    "ungrounded_object",
    "count_contradiction",
    "position_contradiction",
    "colour_contradiction",
    "box_not_mentioned",
    "region_caption_off_phrase",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim of a caption that what is known of the picture contradicts."""

    reason: Reason
    span: Span  # in the caption
    detail: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check looked at and what it found there."""

    claims: int  # that could be checked
    findings: tuple[Finding, ...] = ()
