"""The newest image caption that an engine gave of each record, cleaned by the rules that look at texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from llmdet.record import Record
from llmdet.rules.chain import DEFAULT_CHAIN
from llmdet.rules.length import RequireLength
from pipelines.answers import Said, requests_of
from pipelines.ledger import Found, Ledger
from pipelines.offers import offer_of, take

# Short captions name things too; refine sends them back, where that is wanted.
CLEANING = tuple(rule for rule in DEFAULT_CHAIN if not isinstance(rule, RequireLength))


def image_texts(records: Sequence[Record], said: Said) -> list[str | None]:
    """The text of each record's highest attempt that the rules accept; None where there is none."""
    requests = [requests_of(record, said.prompt, said.ledger)[:1] for record in records]
    index = _index(said.ledger, said.names, said.look)
    rows = iter(said.ledger.answers(index, [request.id for one in requests for request in one]))
    texts: list[str | None] = []
    for record, asked in zip(records, requests, strict=True):
        offers = [offer for request in asked if (offer := offer_of(request, said, next(rows)))]
        cleaned, _ = take(replace(record, captions=()), offers, CLEANING)
        captions = cleaned.captions if cleaned else ()
        texts.append(captions[0].text if captions else None)
    return texts


@lru_cache(maxsize=4)
def _index(ledger: Ledger, names: tuple[str, ...], look: str) -> Found:
    return ledger.index(names, attempts=True)
