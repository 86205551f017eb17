from __future__ import annotations

import json
import socket
from pathlib import Path

import psutil
import pytest

from llmdet import rejects
from llmdet.errors import DamagedError, MissingError
from llmdet.prompts.prompt import Ask
from llmdet.record import to_batch
from llmdet.rejects import Reject
from llmdet.workspace import Manifest, Workspace
from pipelines.engines.engine import Answer, Request
from pipelines.lease import hold
from pipelines.ledger import Ledger, entry
from pipelines.status import newest_detector, status
from tests.llmdet.example_records import FULL, SENTENCE

ROWS = to_batch([FULL, SENTENCE])


def write_table(workspace: Workspace) -> None:
    table = workspace.records("coco")
    part = table.write_part(0, "a" * 16, ROWS)
    counts = {"records": 2, "rejects": {"crowd": 2, "cut_jpg": 1}, "faults": {"cut_jpg": 1}, "seconds": 1.5}
    table.commit(Manifest("ingest", "a" * 16, (part,), counts))


def answer(number: int, attempt: int = 0, error: str = "") -> tuple[object, ...]:
    request = Request(number.to_bytes(16, "big"), "image", Ask("?"), attempt)
    said = Answer("a dog", error=error, prompt_tokens=10, cached_tokens=4, answer_tokens=2)
    return entry(request, f"coco/{number}/0", said)


def test_no_workspace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no workspace at"):
        status(Workspace.at(str(tmp_path / "none")))


def test_a_finished_table_is_told_by_its_manifest(workspace: Workspace) -> None:
    write_table(workspace)
    (found,) = status(workspace).tables
    assert (found.table, found.stage, found.source, found.finished) == ("records/coco", "ingest", "coco", True)
    assert (found.rows, found.parts, found.pending, found.seconds) == (2, 1, 0, 1.5)
    assert (found.rejects, found.faults) == ({"crowd": 2, "cut_jpg": 1}, {"cut_jpg": 1})


def test_a_running_stage_shows_its_finished_parts(workspace: Workspace) -> None:
    table = workspace.records("coco")
    for index in (0, 1, 5):
        table.write_part(index, "b" * 16, ROWS)
    (found,) = status(workspace).tables
    assert (found.finished, found.rows, found.parts, found.pending) == (False, 0, 0, 3)
    write_table(workspace)
    table.write_part(0, "c" * 16, ROWS)
    (found,) = status(workspace).tables
    assert (found.finished, found.rows, found.parts, found.pending) == (True, 2, 1, 1)


def test_rejects_of_caption_are_counted_by_reason(workspace: Workspace) -> None:
    rows = [Reject(f"coco/{n}/0?image", "request", "fault", "caption", reason) for n, reason in enumerate("aab")]
    table = workspace.rejects("caption", "coco")
    part = table.write_part(0, "d" * 16, rejects.to_batch(rows))
    table.commit(Manifest("caption", "d" * 16, (part,)))
    (found,) = status(workspace).tables
    assert (found.table, found.rows, found.rejects) == ("rejects/caption/coco", 3, {"a": 2, "b": 1})


def test_a_ledger_counts_each_request_once(workspace: Workspace) -> None:
    ledger = Ledger(workspace.responses("coco", "image", "f" * 16))
    ledger.append(0, 0, [answer(1), answer(2, error="timeout"), answer(3, error="timeout")])
    ledger.append(1, 0, [answer(2), answer(1, attempt=1)])
    (found,) = status(workspace).ledgers
    assert (found.source, found.ledger, found.newest, found.files) == ("coco", f"image-{'f' * 16}", False, 2)
    assert (found.answered, found.failed) == (2, 1)
    assert (found.prompt_tokens, found.cached_tokens, found.answer_tokens) == (50, 20, 10)


def test_a_damaged_ledger_says_what_to_do(workspace: Workspace) -> None:
    ledger = Ledger(workspace.responses("coco", "image", "f" * 16))
    ledger.append(0, 0, [answer(1)])
    Path(ledger.url, ledger.names()[0]).write_bytes(b"PAR1 cut")
    with pytest.raises(DamagedError, match="doctor --verify --remove-damaged"):
        status(workspace)


def test_leases_say_who_is_at_work_and_who_is_gone(workspace: Workspace) -> None:
    url = workspace.responses("coco", "image", "f" * 16)
    with hold(url, (0, 2)):
        (held,) = status(workspace).leases
    assert (held.shard, held.host, held.pid, held.alive) == ("0/2", socket.gethostname(), psutil.Process().pid, True)
    assert status(workspace).leases == []
    with hold(workspace.groundingcap().url):
        (held,) = status(workspace).leases
    assert (held.place, held.shard) == ("groundingcap", "0/1")
    newest = max(Path(url, "leases").glob("*.json"))
    left = {**json.loads(newest.read_text()), "owner": "ann", "pid": 2**22 + 1}
    newest.write_text(json.dumps(left))
    (gone,) = status(workspace).leases
    assert (gone.place, gone.owner, gone.alive) == (f"responses/coco/image-{'f' * 16}", "ann", False)


def test_detectors_and_runs(workspace: Workspace) -> None:
    with pytest.raises(MissingError, match="run: llmdet-data train"):
        newest_detector(workspace)
    folder = Path(workspace.path("detector", "tiny"))
    (folder / "step-000500").mkdir(parents=True)
    (folder / "evaluations").mkdir()
    figures = {"metrics": {"AP": 0.25, "AP50": 0.5, "AR1": 0.75}, "classes": {}, "missing": {}}
    (folder / "evaluations" / "seen_metrics.json").write_text(json.dumps(figures))
    runs = Path(workspace.path("runs"))
    runs.mkdir()
    for number in range(7):
        run = {"recipe": {"name": f"r{number}"}, "version": "0", "outcome": {"records": number, "seconds": 1.0}}
        (runs / f"2026010{number}T000000Z-aa.json").write_text(json.dumps(run))
    found = status(workspace)
    (detector,) = found.detectors
    assert (detector.name, detector.checkpoints, detector.finished) == ("tiny", ("step-000500",), False)
    assert detector.metrics == {"seen AP": 0.25, "seen AP50": 0.5}
    assert [run.recipe for run in found.runs] == ["r2", "r3", "r4", "r5", "r6"]
    assert newest_detector(workspace) == str(folder)
