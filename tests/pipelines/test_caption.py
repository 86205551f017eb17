from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace

import orjson
import pyarrow.parquet as pq
import pytest

from llmdet import files, rejects
from llmdet.errors import BusyError, MissingError
from llmdet.rejects import Reject
from llmdet.workspace import Table, Workspace
from llmdet.world import write_world
from pipelines import lease
from pipelines.answers import latest, ledgers_of, requests_of
from pipelines.caption import CaptionSettings, caption
from pipelines.chunks import chunks_of
from pipelines.engines.engine import Answer
from pipelines.engines.template import TemplateEngine
from pipelines.lease import _mine, hold
from pipelines.ledger import Ledger, entry
from pipelines.refine import RefineSettings, refine
from tests.pipelines.fakes import Fake, record, told, write_records

LeftOut = Callable[[Table], list[Reject]]


@pytest.fixture
def engine(tmp_path) -> Fake:
    return Fake(log=str(tmp_path / "asked.jsonl"))


def answers(ledger: Ledger) -> Counter[tuple[str, str | None]]:
    """(record, error) of every row of a ledger."""
    rows = [row for name in ledger.names() for row in pq.read_table(f"{ledger.url}/{name}").to_pylist()]
    return Counter((row["record_id"], row["error"]) for row in rows)


def test_a_source_that_was_not_ingested_is_named(workspace: Workspace, engine: Fake) -> None:
    with pytest.raises(MissingError, match="llmdet-data ingest --source hand"):
        caption(workspace, "hand", engine)


def test_every_request_is_asked_once_and_counted(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(i, boxes=3) for i in range(10)], part_rows=4)
    done = caption(workspace, "hand", engine, CaptionSettings(chunk_images=3))
    # one image request and two region requests (two boxes, then one) per record
    assert (done.records, done.requests, done.answered) == (10, 30, 30)
    assert (done.prompt_tokens, done.cached_tokens, done.answer_tokens) == (10 * 7 + 20 * 5, 10 * 2, 10 * 3)
    assert Counter(one["task"] for one in engine.asked()) == {"image": 10, "region": 20}
    assert {one["url"] for one in engine.asked()} == {f"/photos/{i}.jpg" for i in range(10)}
    again = caption(workspace, "hand", engine, CaptionSettings(chunk_images=3))
    assert (again.skipped, again.requests, again.answered) == (True, 30, 30)
    assert len(engine.asked()) == 30


def test_a_photo_with_several_texts_is_asked_about_once(local: None, workspace: Workspace, engine: Fake) -> None:
    # 12 records over 4 photos, the records of a photo spread over three parts
    write_records(workspace, [record(i, image=i % 4, boxes=2) for i in range(12)], part_rows=4)
    done = caption(workspace, "hand", engine, CaptionSettings(chunk_images=1))
    assert (done.requests, done.answered) == (8, 8)
    assert Counter((one["image"], one["task"]) for one in engine.asked()) == {
        (f"{i}.jpg", task): 1 for i in range(4) for task in ("image", "region")
    }


def test_boxes_that_render_alike_in_one_record_are_one_request(local: None, workspace: Workspace, engine: Fake) -> None:
    one = record(0, boxes=4)
    twins = replace(one.regions[0], boxes=one.regions[0].boxes[:2] * 2)
    write_records(workspace, [replace(one, regions=(twins,))], part_rows=4)
    done = caption(workspace, "hand", engine, CaptionSettings(task="region"))
    assert (done.requests, done.answered, len(engine.asked())) == (1, 1, 1)


@pytest.mark.parametrize("chunk_images", [1, 2, 3, 5, 100])
def test_chunks_hold_every_row_once_and_every_photo_whole(workspace: Workspace, chunk_images: int) -> None:
    # An order in which the first and the last row of a chunk can be as far apart as it has rows, with others between.
    shown = [0, 1, 2, 1, 9, 0, 3, 4, 4, 2, 5, 9, 0]
    records = [record(i, image=image) for i, image in enumerate(shown)]
    write_records(workspace, records, part_rows=6)
    table = workspace.records("hand")
    manifest = table.require("")
    chunks = chunks_of(table, manifest, chunk_images)
    numbers = {part.name: 6 * i for i, part in enumerate(manifest.parts)}
    rows = [
        [
            numbers[run["part"]] + row
            for run in chunk["rows"]
            for row in run.get("rows", range(run.get("slice", [0])[0], sum(run.get("slice", [0]))))
        ]
        for chunk in chunks
    ]
    assert sorted(row for chunk in rows for row in chunk) == list(range(len(shown)))
    photos = [{shown[row] for row in chunk} for chunk in rows]
    assert sum(map(len, photos)) == len(set(shown))  # no photo in two chunks
    assert [len(one) for one in photos[:-1]] == [min(chunk_images, 7)] * (len(photos) - 1)


def test_rows_that_skip_others_are_read_as_they_are(local: None, workspace: Workspace, engine: Fake) -> None:
    shown = [0, 1, 2, 1, 9, 0]  # photos 0 and 1 are rows 0, 5, 1, 3: four rows between 0 and 3, yet not rows 0 to 3
    write_records(workspace, [record(i, image=image, boxes=i + 1) for i, image in enumerate(shown)], part_rows=6)
    caption(workspace, "hand", engine, CaptionSettings(chunk_images=2, task="region"))
    asked = Counter((one["image"], one["text"]) for one in engine.asked())
    assert max(asked.values()) == 1
    assert ("0.jpg", "Boxes at [4.0, 5.0]") in asked  # only the last record of photo 0 has six boxes


def test_a_deleted_response_file_is_asked_again_and_nothing_else(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    write_records(workspace, [record(i) for i in range(9)], part_rows=4)
    settings = CaptionSettings(chunk_images=3, task="image")
    done = caption(workspace, "hand", engine, settings)
    ledger = Ledger(done.ledgers["image"])
    gone = pq.read_table(f"{ledger.url}/{ledger.names()[1]}")["record_id"].to_pylist()
    os.unlink(f"{ledger.url}/{ledger.names()[1]}")
    os.unlink(engine.log)
    again = caption(workspace, "hand", engine, settings)
    assert (again.skipped, again.requests, again.answered) == (False, 9, 9)
    assert sorted(str(one["record"]) for one in engine.asked()) == sorted(gone) == ["hand/3/3", "hand/4/4", "hand/5/5"]
    assert answers(ledger) == {(f"hand/{i}/{i}", None): 1 for i in range(9)}


def test_what_the_end_of_a_run_left_unasked_is_no_row_and_is_asked_by_the_next(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(i) for i in range(4)], part_rows=4)
    done = caption(workspace, "hand", replace(engine, stopped=("1.jpg", "2.jpg")))
    assert (done.requests, done.answered, done.asked, done.rejects) == (8, 4, 4, {})
    assert left_out(workspace.rejects("caption", "hand")) == []
    assert answers(Ledger(done.ledgers["image"])) == {("hand/0/0", None): 1, ("hand/3/3", None): 1}
    os.unlink(engine.log)
    again = caption(workspace, "hand", engine)
    assert (again.skipped, again.answered, again.asked) == (False, 8, 4)
    assert {one["image"] for one in engine.asked()} == {"1.jpg", "2.jpg"}


def test_workers_remember_nothing_of_a_ledger_that_was_deleted(local: None, workspace: Workspace, engine: Fake) -> None:
    """The files of the next one have the same names."""
    write_records(workspace, [record(i) for i in range(20)], part_rows=20)
    settings = CaptionSettings(task="image", chunk_images=1)
    for model in ("first", "second"):
        caption(workspace, "hand", replace(engine, fail=("3.jpg",) if model == "second" else ()), settings)
        refine(workspace, "hand", RefineSettings(rules=()))
        texts = [one.captions[0].text if one.captions else "" for one in workspace.captions("hand").records()]
        assert texts == [f"{i}.jpg attempt 0" if i != 3 or model == "first" else "" for i in range(20)]
        shutil.rmtree(workspace.url + "/responses")
        shutil.rmtree(workspace.url + "/captions")
    assert len(engine.asked()) == 40


def test_failed_requests_are_rejects_and_only_they_are_asked_again(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(i) for i in range(6)], part_rows=6)
    settings = CaptionSettings(chunk_images=2)
    done = caption(workspace, "hand", replace(engine, fail=("1.jpg", "4.jpg")), settings)
    assert (done.requests, done.answered) == (12, 8)
    assert done.rejects == done.faults == {"engine_down": 4}
    table = workspace.rejects("caption", "hand")
    assert told(left_out(table)) == [
        (f"hand/{i}/{i}?{task}", "request", "fault", "engine_down") for i in (1, 4) for task in ("image", "region")
    ]
    os.unlink(engine.log)
    again = caption(workspace, "hand", replace(engine, fail=("4.jpg",)), settings)
    assert (again.skipped, again.requests, again.answered, again.faults) == (False, 12, 10, {"engine_down": 2})
    assert {one["image"] for one in engine.asked()} == {"1.jpg", "4.jpg"}
    last = caption(workspace, "hand", engine, settings)
    assert (last.requests, last.answered, last.faults, left_out(table)) == (12, 12, {}, [])
    assert caption(workspace, "hand", engine, settings).skipped


def test_failures_of_a_task_stay_when_the_other_is_asked(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(0), record(1)], part_rows=6)
    broken = replace(engine, fail=("1.jpg",))
    caption(workspace, "hand", broken, CaptionSettings(task="region"))
    done = caption(workspace, "hand", broken, CaptionSettings(task="image"))
    assert done.faults == {"engine_down": 1}
    assert [reject.id for reject in left_out(workspace.rejects("caption", "hand"))] == [
        "hand/1/1?image",
        "hand/1/1?region",
    ]


def test_shards_together_answer_everything_and_share_no_file(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(i) for i in range(10)], part_rows=4)
    broken = replace(engine, fail=("3.jpg",))
    whole = caption(workspace, "hand", broken, CaptionSettings(chunk_images=2))  # chunks 0 to 4, one with a failure
    assert (whole.answered, whole.faults) == (18, {"engine_down": 2})
    names = Ledger(whole.ledgers["image"]).names()
    halves = [caption(workspace, "hand", engine, CaptionSettings(chunk_images=2, shard=(i, 2))) for i in (0, 1)]
    assert [half.requests for half in halves] == [12, 8]  # chunks 0, 2, 4 and 1, 3
    assert [half.answered for half in halves] == [12, 8]
    ledger = Ledger(whole.ledgers["image"])
    assert set(names) < set(ledger.names())  # the shard's answers are beside the first run's, not in their place
    assert answers(ledger) == {
        **{(f"hand/{i}/{i}", None): 1 for i in range(10)},
        ("hand/3/3", "engine_down"): 1,
    }
    assert [left_out(table) for _, _, table in workspace.reject_tables()] == []


def test_shards_alone_give_the_same_answers_as_one_run(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(i) for i in range(10)], part_rows=4)
    for i in (1, 0):
        caption(workspace, "hand", engine, CaptionSettings(chunk_images=2, shard=(i, 2)))
    assert Counter((one["image"], one["task"]) for one in engine.asked()) == {
        (f"{i}.jpg", task): 1 for i in range(10) for task in ("image", "region")
    }
    whole = caption(workspace, "hand", engine, CaptionSettings(chunk_images=2))
    assert (whole.requests, whole.answered, len(engine.asked())) == (20, 20, 20)


def test_failures_of_shards_stay_side_by_side_until_a_whole_run(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(i, boxes=0) for i in range(4)], part_rows=4)
    broken = replace(engine, fail=("0.jpg", "3.jpg"))
    for i in (0, 1):
        caption(workspace, "hand", broken, CaptionSettings(chunk_images=2, shard=(i, 2)))
    found = {stage: [r.id for r in left_out(table)] for stage, _, table in workspace.reject_tables()}
    assert found == {"caption-0-of-2": ["hand/0/0?image"], "caption-1-of-2": ["hand/3/3?image"]}
    caption(workspace, "hand", engine, CaptionSettings(chunk_images=2))
    assert [stage for stage, _, table in workspace.reject_tables() if left_out(table)] == []


def test_changed_engine_settings_are_another_ledger(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(i) for i in range(3)], part_rows=4)
    first = caption(workspace, "hand", engine)
    second = caption(workspace, "hand", replace(engine, model="other"))
    assert set(first.ledgers.values()).isdisjoint(second.ledgers.values())
    assert second.answered == 6
    assert len(engine.asked()) == 12
    assert {said.ledger.url for said in latest(workspace, "hand").values()} == set(second.ledgers.values())
    back = caption(workspace, "hand", engine)
    assert back.skipped
    assert {said.ledger.url for said in latest(workspace, "hand").values()} == set(first.ledgers.values())


def test_corrected_boxes_are_new_requests_and_counts_are_of_what_is_needed_now(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [record(i, boxes=2) for i in range(3)], part_rows=4)
    caption(workspace, "hand", replace(engine, fail=("2.jpg",)))
    write_records(workspace, [record(0, boxes=4), record(1, boxes=2)], part_rows=4, key="later")
    done = caption(workspace, "hand", engine)
    # two image requests; two region requests of record 0, the first of them as before; one of record 1
    assert (done.requests, done.answered, done.faults) == (5, 5, {})
    assert left_out(workspace.rejects("caption", "hand")) == []


def test_no_records_and_no_boxes_are_no_requests(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [], part_rows=4)
    done = caption(workspace, "hand", engine)
    assert (done.records, done.requests, done.answered, engine.asked()) == (0, 0, 0, [])
    write_records(workspace, [record(0, boxes=0)], part_rows=4, key="later")
    done = caption(workspace, "hand", engine)
    assert (done.records, done.requests, done.answered) == (1, 1, 1)


def test_a_live_driver_on_the_same_ledger_is_named(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(0)], part_rows=4)
    done = caption(workspace, "hand", engine, CaptionSettings(task="image"))
    write_records(workspace, [record(0), record(1)], part_rows=4, key="later")
    with hold(done.ledgers["image"]), pytest.raises(BusyError, match=f"pid {os.getpid()}"):
        caption(workspace, "hand", engine, CaptionSettings(task="image"))
    assert caption(workspace, "hand", engine, CaptionSettings(task="image")).answered == 2


def test_a_driver_that_was_taken_over_stops_and_declares_nothing_done(
    local: None, workspace: Workspace, engine: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    write_records(workspace, [record(i) for i in range(6)], part_rows=4)
    (ledger,) = ledgers_of(workspace, "hand", engine, ("image",)).values()

    def taken_over(done: int, total: int | None) -> None:
        if done == 1:
            far = replace(_mine(7, (0, 1)), host="far-away", heartbeat=time.time())
            files.write_bytes(f"{ledger.url}/leases/00007.json", orjson.dumps(asdict(far)))
            time.sleep(1)

    with pytest.raises(BusyError, match="another driver has taken over"):
        caption(workspace, "hand", engine, CaptionSettings(chunk_images=1, task="image"), taken_over)
    assert not files.exists(f"{ledger.url}/complete.json")
    assert latest(workspace, "hand") == {}
    with pytest.raises(BusyError, match="on far-away"):
        caption(workspace, "hand", engine, CaptionSettings(chunk_images=1, task="image"))


def test_a_worker_that_outlives_its_driver_adds_no_second_answer(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    write_records(workspace, [record(0), record(1)], part_rows=4)
    (ledger,) = ledgers_of(workspace, "hand", engine, ("image",)).values()
    with hold(ledger.url) as dead:
        pass
    done = caption(workspace, "hand", engine, CaptionSettings(task="image"))
    refine(workspace, "hand", RefineSettings(rules=()))
    # Only now the worker of the dead driver commits what it was asked: beside the other file, under its own epoch.
    (request,) = requests_of(record(0), engine.prompts()["image"], ledger)
    ledger.append(dead.epoch, 0, [entry(request, "hand/0/0", Answer("late"))])
    assert len(ledger.names()) == 2
    assert caption(workspace, "hand", engine, CaptionSettings(task="image")).answered == done.answered == 2
    assert refine(workspace, "hand", RefineSettings(rules=())).records == 2
    texts = [[c.text for c in one.captions] for one in workspace.captions("hand").records()]
    assert texts == [["late"], ["1.jpg attempt 0"]]  # one each; of two answers the earlier driver's
    assert len(engine.asked()) == 2


def test_a_photo_that_vanished_after_ingest_costs_its_own_requests(
    local: None, workspace: Workspace, tmp_path, left_out: LeftOut
) -> None:
    from llmdet.sources.coco import Coco
    from pipelines.ingest import IngestSettings, ingest

    world = tmp_path / "world"
    source = Coco(annotations=str(write_world(world, 5, 0)), images=str(world / "images"), name="hand")
    ingest(workspace, source, IngestSettings(part_rows=2))
    photo = world / "images" / "000000000003.jpg"
    pixels = photo.read_bytes()
    photo.unlink()
    done = caption(workspace, "hand", TemplateEngine(colours=True), CaptionSettings(chunk_images=2))
    assert (done.requests, done.answered, done.faults) == (10, 8, {"image_missing": 2})
    assert told(left_out(workspace.rejects("caption", "hand"))) == [
        ("hand/3/0?image", "request", "fault", "image_missing"),
        ("hand/3/0?region", "request", "fault", "image_missing"),
    ]
    photo.write_bytes(pixels)
    again = caption(workspace, "hand", TemplateEngine(colours=True), CaptionSettings(chunk_images=2))
    assert (again.requests, again.answered, again.faults) == (10, 10, {})


def test_a_path_that_leaves_the_root_is_never_given_to_an_engine(
    local: None, workspace: Workspace, engine: Fake, left_out: LeftOut
) -> None:
    write_records(workspace, [replace(record(0), image="../../x.jpg"), record(1)], part_rows=4)
    done = caption(workspace, "hand", engine, CaptionSettings(task="image"))
    assert done.faults == {"path_outside_root": 1}
    assert [one["image"] for one in engine.asked()] == ["1.jpg"]


def test_progress_counts_chunks(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(i) for i in range(5)], part_rows=4)
    seen: list[tuple[int, int | None]] = []
    caption(workspace, "hand", engine, CaptionSettings(chunk_images=2), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_rejects_of_caption_are_read_back_as_written(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(0)], part_rows=4)
    caption(workspace, "hand", replace(engine, fail=("0.jpg",)), CaptionSettings(task="image"))
    (part,) = workspace.rejects("caption", "hand").batches()
    assert rejects.from_batch(part) == [
        Reject("hand/0/0?image", "request", "fault", "caption", "engine_down", "by order of the test")
    ]
