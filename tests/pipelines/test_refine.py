from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llmdet.errors import BusyError, MissingError, SettingError
from llmdet.phrases import resolve_parser
from llmdet.prompts.example import prompt_hash
from llmdet.record import Caption, Provenance, Record, from_batch
from llmdet.rejects import Reject
from llmdet.rules.length import RequireLength
from llmdet.rules.links import LinkPhrases
from llmdet.workspace import Table, Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.lease import hold
from pipelines.refine import RefineSettings, refine
from tests.pipelines.fakes import (
    DropImage,
    Fake,
    FakeImage,
    FakeRegion,
    GiveNothing,
    NeedAttempt,
    NeedAttemptAt,
    Raise,
    ShiftText,
    record,
    told,
    write_records,
)

LeftOut = Callable[[Table], list[Reject]]
PLAIN = RefineSettings(rules=())


@pytest.fixture
def engine(tmp_path: Path) -> Fake:
    return Fake(log=str(tmp_path / "asked.jsonl"))


def rows(workspace: Workspace) -> list[Record]:
    return [one for part in workspace.captions("hand").batches() for one in from_batch(part)]


def test_answers_come_to_the_right_records_and_boxes(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(i, boxes=i % 4) for i in range(9)], part_rows=2)
    caption(workspace, "hand", engine, CaptionSettings(chunk_images=2))
    done = refine(workspace, "hand", PLAIN)
    assert (done.records, done.rejects, done.asks, done.skipped) == (9, {}, 0, False)
    refined = rows(workspace)
    assert [one.id for one in refined] == [f"hand/{i}/{i}" for i in range(9)]
    for i, one in enumerate(refined):
        assert [c.text for c in one.captions] == [f"{i}.jpg attempt 0"]
        assert [box.caption and box.caption.text for box in one.boxes] == [f"{i}.jpg x={x}" for x in range(i % 4)]
    told_by = refined[1].captions[0]
    assert told_by.provenance == Provenance(
        "lmm", "fake-image@1", prompt_hash(FakeImage()), model="fake", engine="fake", engine_version="1"
    )
    assert prompt_hash(FakeImage()) != prompt_hash(FakeRegion())
    assert (told_by.prompt_tokens, told_by.answer_tokens, told_by.attempt, len(told_by.request_id)) == (7, 3, 0, 32)


def test_records_of_one_photo_share_its_answer(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(i, image=i % 2) for i in range(6)], part_rows=4)
    caption(workspace, "hand", engine, CaptionSettings(task="image"))
    refine(workspace, "hand", PLAIN)
    assert [one.captions[0].text for one in rows(workspace)] == [f"{i % 2}.jpg attempt 0" for i in range(6)]


def test_without_answers_records_stay_as_they_are(local: None, workspace: Workspace) -> None:
    records = [record(i) for i in range(3)]
    write_records(workspace, records, part_rows=2)
    assert refine(workspace, "hand").records == 3
    assert rows(workspace) == records


def test_a_second_call_does_nothing_and_new_answers_do_it_again(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    write_records(workspace, [record(0)], part_rows=2)
    assert not refine(workspace, "hand", PLAIN).skipped
    assert refine(workspace, "hand", PLAIN).skipped
    caption(workspace, "hand", engine)
    assert not refine(workspace, "hand", PLAIN).skipped
    assert refine(workspace, "hand", PLAIN).skipped
    assert not refine(workspace, "hand", RefineSettings(rules=(RequireLength(),))).skipped


def test_a_source_that_was_not_ingested_is_named(workspace: Workspace) -> None:
    with pytest.raises(MissingError, match="llmdet-data ingest --source hand"):
        refine(workspace, "hand")


def test_a_chain_of_what_is_no_rule_fails_first(workspace: Workspace) -> None:
    with pytest.raises(SettingError, match="at place 0"):
        refine(workspace, "hand", RefineSettings(rules=(RequireLength,)))  # type: ignore[arg-type]


def test_rules_that_fail_cost_one_row_each_with_reason(local: None, workspace: Workspace, left_out: LeftOut) -> None:
    write_records(workspace, [record(i) for i in range(6)], part_rows=4)
    rules = (Raise("1.jpg"), DropImage("2.jpg"), ShiftText("4.jpg"), GiveNothing("5.jpg"))
    done = refine(workspace, "hand", RefineSettings(rules=rules))  # type: ignore[arg-type]
    assert [one.id for one in rows(workspace)] == ["hand/0/0", "hand/3/3"]
    assert told(left_out(workspace.rejects("refine", "hand"))) == [
        ("hand/1/1", "record", "fault", "rule_raised"),
        ("hand/2/2", "record", "policy", "unwanted"),
        ("hand/4/4", "record", "fault", "phrase_not_at_span"),
        ("hand/5/5", "record", "fault", "rule_gave_nothing"),
    ]
    assert done.faults == {"phrase_not_at_span": 1, "rule_gave_nothing": 1, "rule_raised": 1}
    assert done.rejects == {**done.faults, "unwanted": 1}


def test_what_was_sent_back_is_asked_with_the_next_attempt_and_its_answer_wins(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    write_records(workspace, [record(i, image=i % 3) for i in range(6)], part_rows=2)
    settings = RefineSettings(rules=(NeedAttempt(2),))
    asks, attempts = [], []
    for _ in range(4):
        caption(workspace, "hand", engine, CaptionSettings(chunk_images=2))
        asks.append(refine(workspace, "hand", settings).asks)
        attempts.append(sorted(int(str(a["attempt"])) for a in engine.asked() if a["task"] == "image"))
    assert asks[2:] == [0, 0]
    assert asks[0] > 0
    assert attempts == [[0] * 3, [0] * 3 + [1] * 3, [0] * 3 + [1] * 3 + [2] * 3, [0] * 3 + [1] * 3 + [2] * 3]
    assert [one.captions[0].text for one in rows(workspace)] == [f"{i % 3}.jpg attempt 2" for i in range(6)]
    assert [one.captions[0].attempt for one in rows(workspace)] == [2] * 6
    seeds = {a["seed"] for a in engine.asked() if a["task"] == "image"}
    assert len(seeds) == 9  # every photo and attempt has its own


def test_attempts_end_and_the_last_failure_is_a_reject(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(0), record(1)], part_rows=2)
    settings = RefineSettings(rules=(NeedAttempt(9),), max_attempts=2)
    for expected in (2, 0, 0):
        caption(workspace, "hand", engine, CaptionSettings(task="image"))
        assert refine(workspace, "hand", settings).asks == expected
    assert len(engine.asked()) == 4  # attempts 0 and 1 of two photos
    assert [one.captions for one in rows(workspace)] == [(), ()]
    found = left_out(workspace.rejects("refine", "hand"))
    assert [(one.level, one.kind, one.reason) for one in found] == [("request", "policy", "too_early")] * 2


def test_a_failed_second_attempt_stays_open_and_is_asked_again(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(0)], part_rows=2)
    settings = RefineSettings(rules=(NeedAttempt(1),))
    caption(workspace, "hand", engine, CaptionSettings(task="image"))
    refine(workspace, "hand", settings)
    broken = replace(engine, fail=("0.jpg",))
    for _ in range(2):  # the first answer, which was sent back, does not make the request answered
        failed = caption(workspace, "hand", broken, CaptionSettings(task="image"))
        assert (failed.skipped, failed.requests, failed.answered, failed.faults) == (False, 1, 0, {"engine_down": 1})
        assert told(left_out(workspace.rejects("caption", "hand"))) == [
            ("hand/0/0?image", "request", "fault", "engine_down")
        ]
    assert refine(workspace, "hand", settings).asks == 1
    done = caption(workspace, "hand", engine, CaptionSettings(task="image"))
    assert (done.answered, left_out(workspace.rejects("caption", "hand"))) == (1, [])
    assert refine(workspace, "hand", settings).asks == 0
    assert [one.captions[0].attempt for one in rows(workspace)] == [1]
    assert [a["attempt"] for a in engine.asked()] == [0, 1, 1, 1]


def test_a_deterministic_engine_is_never_asked_twice(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(0)], part_rows=2)
    sure = replace(engine, deterministic=True)
    for _ in range(2):
        caption(workspace, "hand", sure, CaptionSettings(task="image"))
        assert refine(workspace, "hand", RefineSettings(rules=(NeedAttempt(1),))).asks == 0
    assert len(engine.asked()) == 1
    assert [one.reason for one in left_out(workspace.rejects("refine", "hand"))] == ["too_early"]


def test_an_answer_that_cannot_be_read_is_asked_again(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(0), record(1)], part_rows=2)
    odd = replace(engine, unreadable=("1.jpg",))
    caption(workspace, "hand", odd, CaptionSettings(task="image"))
    first = refine(workspace, "hand", PLAIN)
    assert (first.asks, first.records, first.rejects) == (1, 2, {})
    assert [len(one.captions) for one in rows(workspace)] == [1, 0]
    caption(workspace, "hand", odd, CaptionSettings(task="image"))
    assert refine(workspace, "hand", PLAIN).asks == 0
    assert [one.captions[0].text for one in rows(workspace)] == ["0.jpg attempt 0", "1.jpg attempt 1"]


def test_an_interrupted_run_writes_only_what_is_missing(
    local: None, workspace: Workspace, engine: Fake, ages: Callable[[str], dict[str, int]]
) -> None:
    write_records(workspace, [record(i) for i in range(6)], part_rows=2)
    caption(workspace, "hand", engine)
    settings = RefineSettings(rules=(NeedAttempt(1),))
    refine(workspace, "hand", settings)
    table, asks = workspace.captions("hand"), workspace.asks("hand")
    expected = (table.require("").parts, asks.require("").parts)
    before = {**ages(table.url), **{f"asks/{name}": age for name, age in ages(asks.url).items()}}
    gone = expected[0][1].name
    os.unlink(f"{table.url}/manifest.json")
    os.unlink(f"{table.url}/{gone}")
    assert refine(workspace, "hand", settings).asks == 6
    after = {**ages(table.url), **{f"asks/{name}": age for name, age in ages(asks.url).items()}}
    assert {name for name in after if after[name] != before[name]} == {gone, f"asks/{gone}"}
    assert (table.require("").parts, asks.require("").parts) == expected
    assert (table.damaged(), asks.damaged()) == ([], [])


def test_asks_of_another_run_are_not_taken_for_its_own(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(0)], part_rows=2)
    caption(workspace, "hand", engine)
    one, other = RefineSettings(rules=(NeedAttempt(1),)), PLAIN
    refine(workspace, "hand", one)
    saved = {
        table.url: Path(table.url, "manifest.json").read_bytes()
        for table in (workspace.captions("hand"), workspace.rejects("refine", "hand"))
    }
    refine(workspace, "hand", other)
    for url, manifest in saved.items():  # as if the run with `other` had died after its asks
        Path(url, "manifest.json").write_bytes(manifest)
    done = refine(workspace, "hand", one)
    assert (done.skipped, done.asks) == (False, 1)


def test_captions_of_the_source_come_last_or_go(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [replace(record(0), captions=(Caption("The source says so."),))], part_rows=2)
    caption(workspace, "hand", engine, CaptionSettings(task="image"))
    refine(workspace, "hand", PLAIN)
    assert [c.text for c in rows(workspace)[0].captions] == ["0.jpg attempt 0", "The source says so."]
    refine(workspace, "hand", replace(PLAIN, source_captions="drop"))
    assert [c.text for c in rows(workspace)[0].captions] == ["0.jpg attempt 0"]


def test_no_records_are_no_captions(local: None, workspace: Workspace) -> None:
    write_records(workspace, [], part_rows=2)
    assert refine(workspace, "hand").records == 0
    assert rows(workspace) == []


def test_two_drivers_do_not_write_one_table(workspace: Workspace) -> None:
    write_records(workspace, [record(0)], part_rows=2)
    with hold(workspace.captions("hand").url), pytest.raises(BusyError):
        refine(workspace, "hand")


def test_the_parser_is_chosen_by_the_driver_and_stands_in_the_manifest(local: None, workspace: Workspace) -> None:
    write_records(workspace, [record(0)], part_rows=2)
    refine(workspace, "hand", RefineSettings(rules=(LinkPhrases(),)))
    manifest = workspace.captions("hand").manifest()
    assert manifest is not None
    (chosen,) = [fields["parser"] for name, fields in manifest.settings["rules"] if name == "LinkPhrases"]
    assert chosen == resolve_parser("auto")
    assert refine(workspace, "hand", RefineSettings(rules=(LinkPhrases(parser=chosen),))).skipped


def test_a_worker_without_the_parser_ends_the_run(
    local: None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(workspace, [record(0)], part_rows=2)
    monkeypatch.setattr(LinkPhrases, "resolved", lambda self: self)  # the driver has what the workers lack
    with pytest.raises(SettingError, match="resolved"):
        refine(workspace, "hand", RefineSettings(rules=(LinkPhrases(),)))


def test_what_two_records_send_back_of_one_answer_is_asked_together(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    write_records(workspace, [record(i, image=0, boxes=2) for i in range(2)], part_rows=1)
    rules = RefineSettings(rules=(NeedAttemptAt((("0", 0), ("1", 1))),))
    settings = CaptionSettings(task="region")
    caption(workspace, "hand", engine, settings)
    assert refine(workspace, "hand", rules).asks == 2
    assert caption(workspace, "hand", engine, settings).asked == 1
    assert engine.asked()[-1]["text"] == "Boxes at [0.0,1.0]"
    assert refine(workspace, "hand", rules).asks == 0
    assert all(box.caption for one in rows(workspace) for box in one.boxes)


def test_a_box_that_one_record_sends_back_is_the_same_box_in_another(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    """Two records ask the same about the boxes at 2 and 3, which have other numbers in each."""
    whole = record(0, image=0, boxes=4)
    (region,) = record(1, image=0, boxes=4).regions
    half = replace(record(1, image=0), regions=(replace(region, boxes=region.boxes[2:]),))
    write_records(workspace, [whole, half], part_rows=2)
    rules = RefineSettings(rules=(NeedAttemptAt((("1", 3),)),))
    settings = CaptionSettings(task="region")
    caption(workspace, "hand", engine, settings)
    assert refine(workspace, "hand", rules).asks == 1
    caption(workspace, "hand", engine, settings)
    assert engine.asked()[-1]["text"] == "Boxes at [null,3.0]"
    assert refine(workspace, "hand", rules).asks == 0
    captions = [[box.caption.text if box.caption else "" for box in one.boxes] for one in rows(workspace)]
    assert captions == [[f"0.jpg x={x}" for x in range(4)], ["0.jpg x=2", "0.jpg x=3"]]
