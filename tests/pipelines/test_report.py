"""The page of a workspace: which records it shows, what it says of those that were left out, what cannot stop it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llmdet import rejects
from llmdet.record import Caption, Record, to_batch
from llmdet.rejects import Reject
from llmdet.stats import RejectCounts, RejectKey
from llmdet.workspace import Manifest, Workspace
from pipelines.card import spent
from pipelines.ledger import SCHEMA as ANSWERS
from pipelines.picks import Picks, Place, place_of, with_their_records
from pipelines.report import ReportSettings, report
from tests.pipelines.fakes import INFO, record, write_records


def left_out(workspace: Workspace, stage: str, source: str, rows: Sequence[Reject]) -> None:
    table = workspace.rejects(stage, source)
    part = table.write_part(0, "k", rejects.to_batch(rows))
    table.commit(Manifest(stage, "k", (part,)))


def refined(workspace: Workspace, records: Sequence[Record]) -> None:
    table = workspace.captions("hand")
    part = table.write_part(0, "r", to_batch(records))
    table.commit(Manifest("refine", "r", (part,), {"seconds": 1}, inputs={"records": "k"}))


def page_of(workspace: Workspace, **settings: object) -> str:
    return Path(report(workspace, ReportSettings(**settings)).report).read_text()  # type: ignore[arg-type]


def shown(page: str) -> list[str]:
    return re.findall(r'<h3 dir="auto">([^<]*)</h3>', page)


def test_picks_are_the_same_however_the_table_is_cut_and_in_its_order() -> None:
    records = [replace(record(i), flags=("odd",) if i % 10 == 0 else ()) for i in range(200)]
    found = []
    for size in (1, 7, 200):
        picks = Picks(per_source=5, per_flag=3)
        for start in range(0, 200, size):
            picks.add(as_table(records[start : start + size]))
        found.append([one.id for one in picks.records])
    assert found[0] == found[1] == found[2]
    assert 5 <= len(found[0]) <= 8
    numbers = [int(name.rsplit("/", 1)[1]) for name in found[0]]
    assert numbers == sorted(numbers)
    assert sum(number % 10 == 0 for number in numbers) >= 3


def test_what_is_picked_changes_little_with_more_records() -> None:
    records = [record(i) for i in range(300)]
    random.Random(0).shuffle(records)
    few, many = Picks(per_source=20, per_flag=1), Picks(per_source=20, per_flag=1)
    few.add(as_table(records[:290]))
    many.add(as_table(records))
    assert len({one.id for one in few.records} & {one.id for one in many.records}) >= 17


def as_table(records: Sequence[Record]):  # type: ignore[no-untyped-def]
    import pyarrow as pa

    return pa.Table.from_batches([to_batch(records)])


@pytest.mark.parametrize(
    ("reject", "place"),
    [
        (Reject("a/1/0", "record", "fault", "refine", "x"), Place("a/1/0")),
        (Reject("a/1/0#image_caption-2", "annotation", "policy", "merge", "x"), Place("a/1/0", ("image_caption", 2))),
        (
            Reject(
                "ab" * 16, "request", "policy", "refine", "x", "Rule: says (no) (a/a photo (1)/0 region_caption 12)"
            ),
            Place("a/a photo (1)/0", ("region_caption", 12)),
        ),
        (
            Reject("ab" * 16, "request", "policy", "refine", "x", "Rule (a/1/0 image_caption 0)"),
            Place("a/1/0", ("image_caption", 0)),
        ),
        (Reject("77", "annotation", "policy", "ingest", "crowd", "iscrowd=1"), None),
    ],
)
def test_the_place_of_a_reject(reject: Reject, place: Place | None) -> None:
    assert place_of(reject, ["b", "a"]) == place


def test_what_was_left_out_is_shown_with_its_record_and_its_words(workspace: Workspace) -> None:
    bad = Caption("I cannot see it.")
    write_records(workspace, [replace(record(i), captions=(Caption("Fine."), bad)) for i in range(6)], 2)
    refined(workspace, [replace(record(i), captions=(Caption("Fine."),)) for i in range(5)])
    request = bytes(range(16))
    folder = workspace.responses("hand", "image", "f" * 16)
    answer = [request, "hand/3/3", 0, "Sorry, <b>no</b>.", None, None, "stop", 9, 4, 5]
    write_answers(folder, [answer])
    rows = [
        Reject("hand/2/2#image_caption-1", "request", "policy", "refine", "refusal", "R (hand/2/2 image_caption 1)"),
        Reject(request.hex(), "request", "policy", "refine", "refusal", "R (hand/3/3 image_caption 0)"),
        Reject("hand/5/5", "record", "fault", "refine", "rule_raised", "Broken: oh"),
        Reject("hand/99/99", "record", "policy", "merge", "over_cap"),
    ]
    found = [
        (one.id, len(one.captions), lost.reject.reason, lost.said) for one, lost in with_their_records(workspace, rows)
    ]
    assert found == [
        ("hand/2/2", 1, "refusal", "I cannot see it."),
        ("hand/3/3", 1, "refusal", "Sorry, <b>no</b>."),
        ("hand/5/5", 2, "rule_raised", ""),
    ]
    left_out(workspace, "refine", "hand", rows[:3])
    page = page_of(workspace, gallery=1)
    assert shown(page)[1:] == ["hand/2/2", "hand/5/5", "hand/3/3"]
    assert "<del>Sorry, &lt;b&gt;no&lt;/b&gt;.</del>" in page
    assert [
        (one.task, one.answers, one.prompt_tokens, one.cached_tokens, one.answer_tokens)
        for one in spent(workspace).asked
    ] == [("image", 1, 9, 4, 5)]


def write_answers(folder: str, rows: list[list[object]]) -> None:
    import pyarrow as pa

    from llmdet import files
    from llmdet.workspace import to_parquet

    table = pa.Table.from_pylist([dict(zip(ANSWERS.names, row, strict=True)) for row in rows], ANSWERS)
    files.write_bytes(files.join(folder, "part-00001-000000.parquet"), to_parquet(table))


def test_the_gallery_is_bounded_whatever_the_number_of_reasons(workspace: Workspace) -> None:
    write_records(workspace, [record(i) for i in range(400)], 100)
    left_out(
        workspace,
        "refine",
        "hand",
        [Reject(f"hand/{i}/{i}", "record", "policy", "refine", f"r{i % 60}") for i in range(400)],
    )
    assert len(shown(page_of(workspace, gallery=10))) <= 10 + 30
    assert shown(page_of(workspace, gallery=0)) == []


def test_rejects_of_merge_are_counted_by_the_source_in_their_ids(workspace: Workspace) -> None:
    from pipelines.report import _rejects

    rows = [Reject(f"{source}/1/0", "record", "policy", "merge", "over_cap") for source in ("a", "b", "b")]
    left_out(workspace, "merge", "all", rows)
    counts, examples = _rejects(workspace)
    key = RejectKey("merge", "record", "policy", "over_cap")
    assert {source: one.counts[key] for source, one in counts.items()} == {"a": 1, "b": 2}
    assert sum(counts.values(), RejectCounts()).total == len(examples) == 3


def test_half_a_line_in_the_training_log_costs_that_line_only(workspace: Workspace) -> None:
    write_records(workspace, [record(0)], 1)
    log = Path(workspace.path("detector", "d", "train.jsonl"))
    log.parent.mkdir(parents=True)
    log.write_bytes(
        b'{"step": 1, "loss": 3.0}\n{"step": 2, "lo{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 1.0}\n{"step": 4, "l'
    )
    page = page_of(workspace)
    assert "2 lines of the training log are broken and not in the curve." in page
    assert "first 3, last 1, lowest 1" in page
    log.write_bytes(b'{"st')
    assert "1 line of the training log" in page_of(workspace)


def test_photos_are_embedded_and_a_missing_one_is_named(workspace: Workspace, tmp_path: Path) -> None:
    Image.new("RGB", (100, 80), "grey").save(tmp_path / "0.jpg")
    table = workspace.records("hand")
    part = table.write_part(0, "k", to_batch([record(0), record(1)]))
    table.commit(Manifest("ingest", "k", (part,), {"seconds": 0}, info=replace(INFO, images=str(tmp_path)).to_dict()))
    page = page_of(workspace)
    assert page.count('src="data:image/jpeg;base64,') == 1
    assert "The photo is missing: <code>hand/1.jpg</code>" in page
    assert str(tmp_path) not in page
