"""refine: answers become captions, and a chain of rules cleans and checks them.

An answer that a rule sends back (`Retry`) is written to `asks/<source>/` with its next attempt; caption asks again. The
rows of `captions/<source>/` are those of the records, in their order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Literal

import pyarrow as pa

from llmdet import validate
from llmdet.errors import DamagedError, MissingError
from llmdet.prompts.prompt import AnswerError, Task
from llmdet.record import Box, Caption, Record, Region, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.rules.chain import DEFAULT_CHAIN, Rule, check_chain, run_chain
from llmdet.rules.outcome import Loss, Retry
from llmdet.workspace import Manifest, Part, Table, Workspace, fingerprint
from pipelines.answers import Said, latest, requests_of
from pipelines.cluster import cluster
from pipelines.lease import hold
from pipelines.ledger import Found, Ledger
from pipelines.parts import Outcome, PartOutput, Progress, Row, StageTables, outcome_of, run_parts, stored

ASKS = pa.schema(
    [("request_id", pa.binary(16)), ("attempt", pa.int32()), ("task", pa.string()), ("reason", pa.string())]
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
    with hold(tables.table.url) as held, cluster():
        items = [{"index": index, "part": part.name} for index, part in enumerate(manifest.parts)]
        work = _Refine(tables, workspace.asks(source), records, said, settings)
        rows = run_parts(items, work, progress=progress)
        held.check()
        _commit_asks(workspace.asks(source), tables.fingerprint, rows)
        result = tables.commit(rows, started=started, settings=shown, inputs=inputs, info=manifest.info)
    return RefineOutcome(**asdict(result), asks=_asked(workspace, source))


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

    def _refined(self, records: list[Record]) -> tuple[list[Record], list[Reject], list[tuple[object, ...]]]:
        kept: list[Record] = []
        left_out: list[Reject] = []
        asks: list[tuple[object, ...]] = []
        for record, losses in self._with_answers(records):
            refined, more = run_chain(self.settings.rules, record)
            if refined is not None and not (faults := validate.faults(refined)):
                kept.append(refined)
            elif refined is not None:
                left_out.append(Reject(record.id, "record", "fault", "refine", faults[0].split(":")[0], faults[0]))
            elif not any(loss.target == "record" for loss in more):
                left_out.append(Reject(record.id, "record", "fault", "refine", "rule_gave_nothing"))
            for loss in (*losses, *more):
                if self._goes_back(loss):
                    task = "region" if loss.target == "region_caption" else "image"
                    asks.append((bytes.fromhex(loss.request_id), loss.attempt + 1, task, loss.verdict.reason))
                else:
                    left_out.append(loss.reject())
        return kept, left_out, list(dict.fromkeys(asks))

    def _goes_back(self, loss: Loss) -> bool:
        if not (isinstance(loss.verdict, Retry) and loss.request_id):
            return False
        task: Task = "region" if loss.target == "region_caption" else "image"
        asked_of = self.said.get(task)
        return asked_of is not None and not asked_of.deterministic and loss.attempt + 1 < self.settings.max_attempts

    def _with_answers(self, records: list[Record]) -> list[tuple[Record, list[Loss]]]:
        """Each record with what the engine said of it, and the answers that could not be read."""
        losses: list[list[Loss]] = [[] for _ in records]
        if self.settings.source_captions == "drop":
            records = [replace(record, captions=()) for record in records]
        for task, said in self.said.items():
            requests = [requests_of(record, said.prompt, said.ledger) for record in records]
            flat = [request.id for group in requests for request in group]
            answers = iter(said.ledger.answers(_index(said.ledger, said.names), flat))
            for number, group in enumerate(requests):
                for request in group:
                    row = next(answers)
                    if row is None or row["error"]:
                        continue  # caption has a reject row for it, or was not asked for this task
                    try:
                        texts = said.prompt.parse(request.ask, str(row["text"]))
                    except AnswerError as error:
                        losses[number].append(_unreadable(records[number], task, error, row))
                        continue
                    captions = [_caption(text, row, said) for text in texts]
                    records[number] = _attach(records[number], task, request.ask.boxes, captions)
        return list(zip(records, losses, strict=True))


@lru_cache(maxsize=4)
def _index(ledger: Ledger, names: tuple[str, ...]) -> Found:
    """Where the answers are in the files that the fingerprint of this run names, and in no later ones."""
    return ledger.index(names)


def _caption(text: str, row: dict[str, object], said: Said) -> Caption:
    request, attempt = row["request_id"], row["attempt"]
    assert isinstance(request, bytes)
    assert isinstance(attempt, int)
    prompt, answer = (int(str(row[name])) or None for name in ("prompt_tokens", "answer_tokens"))
    return Caption(text, text, said.provenance, request.hex(), attempt, prompt, answer)


def _attach(record: Record, task: Task, boxes: Sequence[int], captions: list[Caption]) -> Record:
    if task == "image":
        own = tuple(caption for caption in record.captions if caption.provenance.origin == "source")
        asked = tuple(caption for caption in record.captions if caption.provenance.origin != "source")
        return replace(record, captions=(*asked, *captions, *own))
    said = dict(zip(boxes, captions, strict=True))
    regions: list[Region] = []
    number = 0
    for region in record.regions:
        with_captions: list[Box] = []
        for box in region.boxes:
            with_captions.append(replace(box, caption=said[number]) if number in said else box)
            number += 1
        regions.append(replace(region, boxes=tuple(with_captions)))
    return replace(record, regions=tuple(regions))


def _unreadable(record: Record, task: Task, error: AnswerError, row: dict[str, object]) -> Loss:
    request, attempt = row["request_id"], row["attempt"]
    assert isinstance(request, bytes)
    assert isinstance(attempt, int)
    return Loss(
        record.id,
        "region_caption" if task == "region" else "image_caption",
        Retry(error.reason, error.detail),
        rule="parse",
        kind="fault",
        request_id=request.hex(),
        attempt=attempt,
    )
