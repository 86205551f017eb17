"""refine: answers become captions, and a chain of rules cleans and checks them.

An answer that a rule sends back (`Retry`) is written to `asks/<source>/` with its next attempt; caption asks again. The
rows of `captions/<source>/` are those of the records, in their order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Literal

import pyarrow as pa

from llmdet import validate
from llmdet.errors import DamagedError, MissingError
from llmdet.prompts.prompt import Task
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.rules.chain import DEFAULT_CHAIN, Rule, check_chain, with_images
from llmdet.workspace import Manifest, Part, Table, Workspace, fingerprint
from pipelines.answers import Said, latest, requests_of
from pipelines.cluster import cluster
from pipelines.lease import hold
from pipelines.ledger import Found, Ledger
from pipelines.offers import Ask, Offer, offer_of, settle, take
from pipelines.parts import Outcome, PartOutput, Progress, Row, StageTables, outcome_of, run_parts, stored

ASKS = pa.schema(
    [
        ("request_id", pa.binary(16)),
        ("attempt", pa.int32()),
        ("boxes", pa.list_(pa.int32())),  # places among the question's boxes of those that are asked again; empty: all
        ("task", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """The chain of rules and what happens to answers that it sends back."""

    rules: tuple[Rule, ...] = tuple(DEFAULT_CHAIN)
    max_attempts: int = 3  # answers asked for one request before it is given up
    source_captions: Literal["keep", "drop"] = "keep"  # the source's own, after the engine's


@dataclass(frozen=True, slots=True)
class RefineOutcome(Outcome):
    """What refine did."""

    asks: int = 0  # answers sent back, open until caption runs again


def refine(
    workspace: Workspace, source: str, settings: RefineSettings | None = None, progress: Progress | None = None
) -> RefineOutcome:
    """Write `captions/<source>/` from its records and the newest answers.

    Raises MissingError when the source was not ingested, SettingError for a chain that cannot run.
    """
    settings = settings or RefineSettings()
    started = time.monotonic()
    check_chain(settings.rules)
    # What depends on the machine is chosen here, once, and stands in the manifest.
    settings = replace(settings, rules=tuple(map(_resolved, settings.rules)))
    records = workspace.best_records(source)
    manifest = records.require(f"run: llmdet-data ingest --source {source}")
    said = latest(workspace, source)
    inputs = {"records": manifest.fingerprint}
    inputs |= {task: fingerprint([one.ledger.url, one.names]) for task, one in said.items()}
    rules = [[type(rule).__name__, asdict(rule)] for rule in settings.rules]  # type: ignore[call-overload]
    shown = {**asdict(replace(settings, rules=())), "rules": rules}
    tables = StageTables(
        "refine",
        workspace.captions(source),
        workspace.rejects("refine", source),
        fingerprint({"inputs": inputs, "settings": shown}),
    )
    done, sent_back = tables.done(), workspace.asks(source).manifest()
    if done and sent_back and sent_back.fingerprint == done.fingerprint:
        result = outcome_of(done.counts, done.counts["seconds"], skipped=True)
        return RefineOutcome(**asdict(result), asks=_asked(workspace, source))
    with hold(tables.table.url) as held, cluster(workspace.url):
        items = [{"index": index, "part": part.name} for index, part in enumerate(manifest.parts)]
        # Where the photos lie is no setting: the same photos elsewhere give the same captions.
        ready = replace(settings, rules=with_images(settings.rules, str(manifest.info.get("images", ""))))
        work = _Refine(tables, workspace.asks(source), records, said, ready)
        rows = run_parts(items, work, progress=progress)
        held.check()
        _commit_asks(workspace.asks(source), tables.fingerprint, rows)
        result = tables.commit(rows, started=started, settings=shown, inputs=inputs, info=manifest.info)
    return RefineOutcome(**asdict(result), asks=_asked(workspace, source))


def _resolved(rule: Rule) -> Rule:
    resolve: Callable[[], Rule] | None = getattr(rule, "resolved", None)
    return resolve() if resolve else rule


def _commit_asks(asks: Table, key: str, rows: list[Row]) -> None:
    parts = tuple(Part(*row["asks"]) for row in sorted(rows, key=lambda row: row["index"]))
    asks.commit(Manifest("refine", key, parts))


def _asked(workspace: Workspace, source: str) -> int:
    manifest = workspace.asks(source).manifest()
    return manifest.rows if manifest else 0


@dataclass(frozen=True)
class _Refine:
    """The work on one part: attach answers, run the chain, write captions, rejects and asks."""

    tables: StageTables
    asks: Table
    records: Table
    said: dict[Task, Said]
    settings: RefineSettings

    def __call__(self, item: Row) -> Row:
        index = item["index"]
        name = self.tables.table.part_name(index, self.tables.fingerprint)
        adopted = self.tables.adopt(index)
        if adopted:  # asks are written before the part, so they are there unless somebody removed them
            with suppress(MissingError, DamagedError):
                part, _ = stored(self.asks, name)
                return {**adopted, "asks": [part.name, part.rows, part.sha256]}
        for rule in self.settings.rules:
            getattr(rule, "prepare", lambda: None)()  # a worker that lacks what a rule needs must not go on without
        kept, left_out, asks = self._refined(from_batch(self.records.read(item["part"])))
        columns = zip(*asks, strict=True) if asks else ([] for _ in ASKS)
        batch = pa.RecordBatch.from_arrays(
            [pa.array(c, f.type) for c, f in zip(columns, ASKS, strict=True)], schema=ASKS
        )
        part = self.asks.write_part(index, self.tables.fingerprint, batch)
        return {
            **self.tables.write(index, PartOutput(to_batch(kept), left_out)),
            "asks": [part.name, part.rows, part.sha256],
        }

    def _refined(self, records: list[Record]) -> tuple[list[Record], list[Reject], list[Ask]]:
        kept: list[Record] = []
        left_out: list[Reject] = []
        asks: list[Ask] = []
        if self.settings.source_captions == "drop":
            records = [replace(record, captions=()) for record in records]
        for record, offers in zip(records, self._offers(records), strict=True):
            refined, losses = take(record, offers, self.settings.rules)
            if refined is not None and not (faults := validate.faults(refined)):
                kept.append(refined)
            elif refined is not None:
                left_out.append(Reject(record.id, "record", "fault", "refine", faults[0].split(":")[0], faults[0]))
            elif not any(loss.target == "record" for loss in losses):
                left_out.append(Reject(record.id, "record", "fault", "refine", "rule_gave_nothing"))
            back, lost = settle(record, offers, self.settings.max_attempts)
            asks += back
            left_out += [loss.reject() for loss in (*losses, *lost)]
        return kept, left_out, list(dict.fromkeys(asks))

    def _offers(self, records: list[Record]) -> list[list[Offer]]:
        """What the engine said of each record."""
        offers: list[list[Offer]] = [[] for _ in records]
        for said in self.said.values():
            requests = [requests_of(record, said.prompt, said.ledger) for record in records]
            flat = [(number, request) for number, group in enumerate(requests) for request in group]
            index = _index(said.ledger, said.names, said.look)
            rows = said.ledger.answers(index, [request.id for _, request in flat])
            for (number, request), answers in zip(flat, rows, strict=True):
                if offer := offer_of(request, said, answers):
                    offers[number].append(offer)
        return offers


@lru_cache(maxsize=4)
def _index(ledger: Ledger, names: tuple[str, ...], look: str) -> Found:
    """Where the answers are in the files that the fingerprint of this run names, and in no later ones."""
    return ledger.index(names, attempts=True)
