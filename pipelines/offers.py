"""From answers to captions: what each attempt of a request offers, and which of it a record takes.

The highest attempt that the rules accept counts, for each box of a question on its own: a later attempt asks only about
the boxes that the earlier ones left out or lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llmdet.prompts.prompt import AnswerError, Task, boxes_of
from llmdet.record import Box, Caption, Record, Region
from llmdet.rules.chain import Rule, run_chain
from llmdet.rules.outcome import Loss, Retry
from pipelines.answers import Said
from pipelines.engines.engine import Request

Ask = tuple[bytes, int, tuple[int, ...], Task, str]  # a row of `pipelines.refine.ASKS`


@dataclass
class Offer:
    """What all answers to one request offer a record; a slot is one caption that was asked for."""

    request: Request
    said: Said
    attempt: int  # the highest that was answered
    slots: list[list[Caption]]  # of each slot, the highest attempt first
    unread: AnswerError | None = None  # why nothing of the highest attempt could be read
    losses: dict[int, Loss] = field(default_factory=dict)  # why a slot got nothing from its highest attempt

    @property
    def task(self) -> Task:
        return self.request.task


def offer_of(request: Request, said: Said, rows: Sequence[dict[str, object]]) -> Offer | None:
    """What the rows of a ledger offer, the highest attempt first; None where the engine gave no answer at all."""
    answered = [row for row in rows if not row["error"]]
    if not answered:
        return None  # caption has a reject row for it, or was not asked for this task
    offer = Offer(request, said, _attempt(answered[0]), [[] for _ in request.ask.boxes or (0,)])
    for row in answered:
        try:
            texts = _read(request, said, row)
        except AnswerError as error:
            offer.unread = error if row is answered[0] else offer.unread
            continue
        for slot, text in zip(offer.slots, texts, strict=True):
            if text is not None:
                slot.append(_caption(text, row, said))
    return offer


def _read(request: Request, said: Said, row: dict[str, object]) -> list[str | None]:
    """The texts of an answer. One that was cut off is read only where its form shows what is whole."""
    if row["finish"] == "length" and not request.ask.schema:
        raise AnswerError("answer_cut_off", "the engine stopped at its limit of tokens")
    return said.prompt.parse(request.ask, str(row["text"]))


def _attempt(row: dict[str, object]) -> int:
    return int(str(row["attempt"]))


def _caption(text: str, row: dict[str, object], said: Said) -> Caption:
    request = row["request_id"]
    assert isinstance(request, bytes)
    prompt, answer = (int(str(row[name])) or None for name in ("prompt_tokens", "answer_tokens"))
    return Caption(text, text, said.provenance, request.hex(), _attempt(row), prompt, answer)


def take(record: Record, offers: Sequence[Offer], rules: Sequence[Rule]) -> tuple[Record | None, list[Loss]]:
    """The record with its captions after the rules, and what the rules took from it besides the offers' captions.

    Each offer's `losses` say which of its slots got nothing from their highest attempt.
    """
    while True:
        refined, losses = run_chain(rules, _with(record, offers))
        others, again = [], False
        for loss in losses:
            slot = _slot(record, offers, loss)
            if slot is None:
                others.append(loss)
            else:
                offer, number = slot
                offer.losses.setdefault(number, loss)
                offer.slots[number].pop(0)
                again |= bool(offer.slots[number])
        if not again:
            return refined, others


def settle(record: Record, offers: Sequence[Offer], max_attempts: int) -> tuple[list[Ask], list[Loss]]:
    """What is to be asked again, and what is lost for good. Call it after `take`."""
    asks: list[Ask] = []
    lost: list[Loss] = []
    for offer in offers:
        empty = [number for number, slot in enumerate(offer.slots) if not slot]
        # Accepted from a lower attempt: the highest one is told of, and nothing is missing.
        lost += [loss for number, loss in offer.losses.items() if number not in empty]
        losses = [offer.losses.get(number) or _missing(record, offer, number) for number in empty]
        open_ = offer.attempt + 1 < max_attempts and not offer.said.deterministic
        back = [number for number, loss in zip(empty, losses, strict=True) if isinstance(loss.verdict, Retry) and open_]
        if back:
            reason = losses[empty.index(back[0])].verdict.reason
            places = () if len(back) == len(offer.slots) else tuple(back)
            asks.append((offer.request.id, offer.attempt + 1, places, offer.task, reason))
        gone = [loss for number, loss in zip(empty, losses, strict=True) if number not in back]
        lost += gone[:1] if offer.unread and len(gone) == len(offer.slots) else gone
    return asks, lost


def _with(record: Record, offers: Sequence[Offer]) -> Record:
    """The record with the first caption of every slot: those about the image before the source's own."""
    about = tuple(slot[0] for offer in offers if offer.task == "image" for slot in offer.slots if slot)
    said: dict[int, Caption] = {}
    for offer in offers:
        said.update({box: slot[0] for box, slot in zip(offer.request.ask.boxes, offer.slots, strict=False) if slot})
    record = replace(record, captions=(*about, *record.captions)) if about else record
    return _with_box_captions(record, said) if said else record


def _with_box_captions(record: Record, said: dict[int, Caption]) -> Record:
    regions: list[Region] = []
    number = 0
    for region in record.regions:
        boxes: list[Box] = []
        for box in region.boxes:
            boxes.append(replace(box, caption=said[number]) if number in said else box)
            number += 1
        regions.append(replace(region, boxes=tuple(boxes)))
    return replace(record, regions=tuple(regions))


def _slot(record: Record, offers: Sequence[Offer], loss: Loss) -> tuple[Offer, int] | None:
    """The offer and slot that a lost caption came from."""
    for offer in offers:
        if loss.request_id == offer.request.id.hex() and loss.target != "record":
            if offer.task == "image":
                return (offer, 0) if offer.slots[0] else None
            orders = [box.order for box in boxes_of(record)]
            for number, box in enumerate(offer.request.ask.boxes):
                if orders[box] == loss.index and offer.slots[number]:
                    return offer, number
    return None


def _missing(record: Record, offer: Offer, number: int) -> Loss:
    """The loss of a slot that no answer said anything for."""
    region = offer.task == "region"
    error = offer.unread or AnswerError("box_left_out", "the answer says nothing about this box")
    return Loss(
        record.id,
        "region_caption" if region else "image_caption",
        Retry(error.reason, error.detail),
        rule="parse",
        kind="fault",
        index=boxes_of(record)[offer.request.ask.boxes[number]].order if region else 0,
        request_id=offer.request.id.hex(),
        attempt=offer.attempt,
    )
