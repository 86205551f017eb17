"""retry: ask again what failed for a reason, and nothing else.

Two kinds of failures count: requests to which the engine gave an error (a timeout, a refusal), and answers that refine
gave up on. Who is asked, and how, is as it was: `caption` wrote it down beside its answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from llmdet import rejects
from llmdet.errors import MissingError, SettingError
from llmdet.prompts.prompt import Task, boxes_of
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.workspace import Workspace
from pipelines.answers import Said, latest, ledgers_of, requests_of
from pipelines.asking import Again, open_asks
from pipelines.caption import CaptionOutcome, CaptionSettings, caption
from pipelines.engines.engine import Engine
from pipelines.ledger import Found, Ledger, ids_of
from pipelines.parts import Progress
from pipelines.readers import Values
from pipelines.recipe import engine_of


@dataclass(frozen=True, slots=True)
class Failures:
    """What of a source failed: the last error of each request without an answer, and what refine gave up on."""

    errors: dict[bytes, tuple[Task, str, int]] = field(default_factory=dict)  # request -> (task, reason, attempt)
    given_up: dict[bytes, list[tuple[str, str]]] = field(default_factory=dict)  # request -> [(reason, place)]

    def counts(self) -> dict[str, int]:
        """Requests by reason, most frequent first."""
        found = Counter(reason for _, reason, _ in self.errors.values())
        found.update(reason for places in self.given_up.values() for reason in {reason for reason, _ in places})
        return dict(found.most_common())


def failures(workspace: Workspace, source: str) -> Failures:
    """What failed of a source, by its newest answers. Raises MissingError where nothing was asked."""
    said = latest(workspace, source)
    if not said:
        raise MissingError(f"nothing was asked about {source} yet; run: llmdet-data caption --source {source}")
    errors = {request: row for task, one in said.items() for request, row in _errors(task, one.ledger)}
    return Failures(errors, _given_up(workspace, source))


def _errors(task: Task, ledger: Ledger) -> Iterator[tuple[bytes, tuple[Task, str, int]]]:
    """Requests whose last attempt ended in an error, with its reason."""
    for request, attempt, error in _last(ledger).iter_rows():
        yield request, (task, error, attempt)


def _last(ledger: Ledger) -> pl.DataFrame:
    """request_id, attempt and error of each request whose highest attempt has no answer."""
    columns = ["request_id", "attempt", "error"]
    parts = [pl.DataFrame(pl.from_arrow(ledger.read(name, columns))) for name in ledger.names()]
    if not parts:
        return pl.DataFrame(schema=columns)
    # An answer stands before an error of the same attempt.
    rows = pl.concat(parts).sort("attempt", "error", descending=[True, False], nulls_last=False, maintain_order=True)
    return rows.unique("request_id", keep="first", maintain_order=True).filter(pl.col("error").is_not_null())


def _given_up(workspace: Workspace, source: str) -> dict[bytes, list[tuple[str, str]]]:
    """What refine left out of the engine's answers."""
    table = workspace.rejects("refine", source)
    found: dict[bytes, list[tuple[str, str]]] = {}
    for part in table.batches() if table.manifest() else []:
        for reject in rejects.from_batch(part):
            if (request := _request(reject)) is not None:
                found.setdefault(request, []).append((reject.reason, reject.detail))
    return found


def _request(reject: Reject) -> bytes | None:
    """The request that a reject tells of; None for a record, and for a caption of the source's own."""
    if reject.level != "request" or len(reject.id) != 32:
        return None
    try:
        return bytes.fromhex(reject.id)
    except ValueError:
        return None


def retry(
    workspace: Workspace,
    source: str,
    reasons: Sequence[str],
    *,
    changes: Values | None = None,
    settings: CaptionSettings | None = None,
    progress: Progress | None = None,
) -> CaptionOutcome:
    """Ask the engine of the newest answers again what failed for these reasons; `changes` are fields of it.

    Another attempt has another seed. Raises MissingError where nothing was asked or nothing failed so, SettingError
    for changes that would make other answers: those belong into another ledger, by `caption`.
    """
    found, said = failures(workspace, source), latest(workspace, source)
    engine, tasks = _engine(workspace, source, said, changes or {})
    only = _again(workspace, source, {task: said[task] for task in tasks}, found, set(reasons))
    if not only:
        there = ", ".join(f"{count} {reason}" for reason, count in found.counts().items()) or "nothing"
        raise MissingError(f"nothing of {source} failed for {' or '.join(reasons)}; what failed: {there}")
    task = tasks[0] if len(tasks) == 1 else "all"
    chosen = replace(settings or CaptionSettings(), task=task, seed=said[tasks[0]].seed, shard=(0, 1))
    return caption(workspace, source, engine, chosen, progress, only)


def _engine(
    workspace: Workspace, source: str, said: Mapping[Task, Said], changes: Values
) -> tuple[Engine, tuple[Task, ...]]:
    """The engine of the newest answers, and the tasks that it answered."""
    tasks: tuple[Task, ...] = tuple(said)
    first = said[tasks[0]]
    engine = engine_of(first.provenance.engine, {**first.settings, **changes})
    now = ledgers_of(workspace, source, engine, tasks, first.seed)
    same = tuple(task for task in tasks if now[task].url == said[task].ledger.url)
    if not same:
        raise SettingError(
            f"with these settings the answers would not be those of {first.ledger.url}: the model, a prompt, sampling "
            "or preprocessing changed since. Give them as they were, or ask everything again: llmdet-data caption"
        )
    return engine, same


def _again(
    workspace: Workspace, source: str, said: Mapping[Task, Said], found: Failures, reasons: set[str]
) -> dict[bytes, Again]:
    """The requests that failed so, each with its next attempt and the boxes that it is about."""
    deterministic = any(one.deterministic for one in said.values())
    sent_back = open_asks(workspace, source)
    again = {
        request: Again(attempt if deterministic else attempt + 1, sent_back.get(request, Again(0)).boxes)
        for request, (task, reason, attempt) in found.errors.items()
        if reason in reasons and task in said
    }
    wanted = {
        request: {_WHOLE if _unread(reason, detail) else detail for reason, detail in losses if reason in reasons}
        for request, losses in found.given_up.items()
        if request not in again and any(reason in reasons for reason, _ in losses)
    }
    if wanted and not deterministic:  # asked again, it would say the same
        for one in said.values():
            again |= _answered(workspace, source, one, wanted)
    return again


_WHOLE = ""  # in the place of a detail: all boxes of the question


def _unread(reason: str, detail: str) -> bool:
    """Whether nothing of an answer could be read: refine tells of its first box only."""
    return detail.startswith("parse") and reason != "box_left_out"


def _answered(workspace: Workspace, source: str, said: Said, wanted: Mapping[bytes, set[str]]) -> dict[bytes, Again]:
    """Requests of one task that were answered and given up: one attempt more than any before, about the lost boxes."""
    index = said.ledger.index(attempts=True)
    lost: dict[bytes, tuple[int, set[int]]] = {}  # request -> boxes of its question, places of those that were lost
    for record in workspace.best_records(source).records():
        for request in requests_of(record, said.prompt, said.ledger):
            if request.id in wanted:
                _, places = lost.setdefault(request.id, (len(request.ask.boxes), set()))
                places.update(_places(record, request.ask.boxes, wanted[request.id]))
    return {
        request: Again(
            _highest(index, request) + 1,
            () if _WHOLE in wanted[request] or len(places) in (0, count) else tuple(sorted(places)),
        )
        for request, (count, places) in lost.items()
    }


def _places(record: Record, asked: tuple[int, ...], details: set[str]) -> tuple[int, ...]:
    """Of the boxes that a request asks about, the places of those that the details of rejects name by their order."""
    boxes = boxes_of(record)
    ends = [f"({record.id} region_caption {boxes[box].order})" for box in asked]
    return tuple(place for place, end in enumerate(ends) if any(detail.endswith(end) for detail in details))


def _highest(index: Found, request: bytes) -> int:
    """The highest attempt of a request, -1 where it was never asked."""
    _, at = index.runs(ids_of([request]))
    return max((int(index.attempt[position]) for position in at), default=-1)
