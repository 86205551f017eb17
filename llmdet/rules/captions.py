"""All captions of a record through one judgement: how rules about text see image and region captions alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from llmdet.record import Box, Caption, Record
from llmdet.rules.outcome import Drop, Kept, Loss, Retry, Target

Level = Literal["image", "region"]
Judge = Callable[[Caption, Level], Caption | Drop | Retry]

BOTH: tuple[Level, ...] = ("image", "region")


def judge_captions(record: Record, judge: Judge, levels: tuple[Level, ...] = BOTH) -> Record | Kept:
    """The record with every caption judged; captions that are dropped or sent back are taken out.

    A judge that raises costs that caption only, as a loss of kind `fault`.
    """
    losses: list[Loss] = []
    if "image" in levels and record.captions:
        kept = []
        for index, caption in enumerate(record.captions):
            judged = _judge(record, caption, judge, "image_caption", index, losses)
            if judged is not None:
                kept.append(judged)
        captions = tuple(kept)
        if captions != record.captions:
            record = replace(record, captions=captions)
    if "region" in levels and any(box.caption is not None for region in record.regions for box in region.boxes):
        record = _judge_boxes(record, judge, losses)
    return Kept(record, tuple(losses)) if losses else record


def _judge_boxes(record: Record, judge: Judge, losses: list[Loss]) -> Record:
    def judged(box: Box) -> Box:
        if box.caption is None:
            return box
        caption = _judge(record, box.caption, judge, "region_caption", box.order, losses)
        return box if caption is box.caption else replace(box, caption=caption)

    regions = tuple([replace(region, boxes=tuple([judged(box) for box in region.boxes])) for region in record.regions])
    return record if regions == record.regions else replace(record, regions=regions)


def _judge(
    record: Record, caption: Caption, judge: Judge, target: Target, index: int, losses: list[Loss]
) -> Caption | None:
    try:
        verdict = judge(caption, "image" if target == "image_caption" else "region")
    except Exception as error:
        fault = Drop("rule_raised", f"{type(error).__name__}: {error}"[:300])
        losses.append(Loss(record.id, target, fault, "", "fault", index, caption.request_id, caption.attempt))
        return None
    if isinstance(verdict, Caption):
        return verdict
    losses.append(Loss(record.id, target, verdict, "", "policy", index, caption.request_id, caption.attempt))
    return None


def with_text(caption: Caption, text: str) -> Caption | Drop:
    """The caption with another text, or Drop where none is left.

    The text before the first change stays as `raw`; links go, since their spans were of the old text.
    """
    if text == caption.text:
        return caption
    if not text.strip():
        return Drop("caption_empty", "nothing was left after cleaning")
    return replace(caption, text=text, raw=caption.raw or caption.text, links=())


def lost(caption: Caption, reason: str, detail: str = "") -> Drop | Retry:
    """Ask a language model again; anyone else's text is dropped (a person or a template would say the same again)."""
    return Retry(reason, detail) if caption.provenance.origin == "lmm" else Drop(reason, detail)
