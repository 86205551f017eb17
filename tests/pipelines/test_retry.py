from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from llmdet.errors import MissingError, SettingError
from llmdet.prompts.prompt import Prompt, Task
from llmdet.record import Record
from llmdet.rules.outcome import Kept, Loss, Retry
from llmdet.workspace import Workspace
from pipelines.answers import latest
from pipelines.caption import CaptionSettings, caption
from pipelines.engines import ENGINES
from pipelines.refine import RefineSettings, refine
from pipelines.retry import failures, retry
from tests.pipelines.fakes import Fake, FakeRegion, record, write_records

SMALL = CaptionSettings(chunk_images=2)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setitem(ENGINES, "fake", Fake)
    return Fake(log=str(tmp_path / "asked.jsonl"))


def asked_anew(engine: Fake) -> list[tuple[object, object, object]]:
    """(photo, task, attempt) of what was asked since the last look."""
    found = sorted((str(one["image"]), str(one["task"]), one["attempt"]) for one in engine.asked())
    Path(engine.log).unlink(missing_ok=True)
    return found  # type: ignore[return-value]


def test_nothing_asked_and_nothing_failed_are_said(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(0)], part_rows=4)
    with pytest.raises(MissingError, match="run: llmdet-data caption --source hand"):
        retry(workspace, "hand", ["timeout"])
    caption(workspace, "hand", engine, SMALL)
    assert failures(workspace, "hand").counts() == {}
    with pytest.raises(MissingError, match="nothing of hand failed for timeout; what failed: nothing"):
        retry(workspace, "hand", ["timeout"])


def test_only_failed_requests_of_the_reason_are_asked_with_another_seed(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    write_records(workspace, [record(i) for i in range(6)], part_rows=4)
    caption(workspace, "hand", replace(engine, fail=("1.jpg", "4.jpg")), SMALL)
    first = {one["image"]: one["seed"] for one in engine.asked() if one["task"] == "image"}
    asked_anew(engine)
    assert failures(workspace, "hand").counts() == {"engine_down": 4}
    done = retry(workspace, "hand", ["engine_down"], changes={"fail": ["4.jpg"]}, settings=SMALL)
    second = {one["image"]: one["seed"] for one in engine.asked() if one["task"] == "image"}
    assert asked_anew(engine) == [(f"{i}.jpg", task, 1) for i in (1, 4) for task in ("image", "region")]
    assert set(second) == {"1.jpg", "4.jpg"}
    assert all(second[name] != first[name] for name in second)
    assert (done.asked, done.failed, done.requests, done.answered) == (4, 2, 12, 10)
    assert done.faults == {"engine_down": 2}
    assert failures(workspace, "hand").counts() == {"engine_down": 2}


def test_the_other_failures_stay_as_they_were(local: None, workspace: Workspace, engine: Fake, left_out) -> None:
    write_records(workspace, [record(i) for i in range(4)], part_rows=4)
    write_records(workspace, [replace(record(0), image="../x.jpg"), *map(record, (1, 2, 3))], part_rows=4)
    caption(workspace, "hand", replace(engine, fail=("2.jpg",)), SMALL)
    assert failures(workspace, "hand").counts() == {"path_outside_root": 2, "engine_down": 2}
    done = retry(workspace, "hand", ["engine_down"], changes={"fail": []})
    assert done.faults == {"path_outside_root": 2}
    assert {(one.id, one.reason) for one in left_out(workspace.rejects("caption", "hand"))} == {
        (f"hand/0/0?{task}", "path_outside_root") for task in ("image", "region")
    }
    assert caption(workspace, "hand", engine, SMALL).asked == 2  # only those are open


def test_what_refine_gave_up_is_asked_once_more(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(i) for i in range(3)], part_rows=4)
    rules = RefineSettings(rules=(), max_attempts=1)
    caption(workspace, "hand", replace(engine, unreadable=("1.jpg",)), SMALL)
    assert refine(workspace, "hand", rules).asks == 0
    assert failures(workspace, "hand").counts() == {"answer_not_json": 1}
    asked_anew(engine)
    done = retry(workspace, "hand", ["answer_not_json"])
    assert asked_anew(engine) == [("1.jpg", "image", 1)]
    assert (done.asked, done.failed) == (1, 0)
    refine(workspace, "hand", rules)
    assert failures(workspace, "hand").counts() == {}
    texts = [one.captions[0].text for one in workspace.captions("hand").records()]
    assert texts == ["0.jpg attempt 0", "1.jpg attempt 1", "2.jpg attempt 0"]


@dataclass(frozen=True)
class SecondBoxBad:
    """Sends back the caption of every box that starts at x = 1, until the attempt is 1."""

    def __call__(self, record: Record) -> Record | Kept:
        regions, losses = [], []
        for region in record.regions:
            boxes = []
            for box in region.boxes:
                if box.caption and box.order == 1 and box.caption.attempt == 0:
                    verdict, key = Retry("second_bad"), box.caption.request_id
                    losses.append(Loss(record.id, "region_caption", verdict, index=1, request_id=key))
                    box = replace(box, caption=None)
                boxes.append(box)
            regions.append(replace(region, boxes=tuple(boxes)))
        return Kept(replace(record, regions=tuple(regions)), tuple(losses)) if losses else record


def test_only_the_boxes_that_were_given_up_are_asked_about(local: None, workspace: Workspace, engine: Fake) -> None:
    import ray

    from tests.pipelines import test_retry

    ray.cloudpickle.register_pickle_by_value(test_retry)
    write_records(workspace, [record(0, boxes=2), record(1, boxes=1)], part_rows=4)
    caption(workspace, "hand", engine, SMALL)
    refine(workspace, "hand", RefineSettings(rules=(SecondBoxBad(),), max_attempts=1))
    assert failures(workspace, "hand").counts() == {"second_bad": 1}
    (again,) = _only(workspace)
    assert (again.attempt, again.boxes) == (1, (1,))


def test_all_boxes_of_an_answer_that_nobody_could_read_are_asked_about(
    local: None, workspace: Workspace, engine: Fake
) -> None:
    write_records(workspace, [record(i, image=0, boxes=2) for i in range(2)], part_rows=4)
    caption(workspace, "hand", replace(engine, unreadable_boxes=("0.jpg",)), SMALL)
    refine(workspace, "hand", RefineSettings(rules=(), max_attempts=1))
    retry(workspace, "hand", ["answer_not_json"])
    assert [one["text"] for one in engine.asked() if one["attempt"]] == ["Boxes at [0.0, 1.0]"]
    refine(workspace, "hand", RefineSettings(rules=(), max_attempts=1))
    assert failures(workspace, "hand").counts() == {}


def _only(workspace: Workspace) -> list:
    from pipelines.retry import _again

    said = latest(workspace, "hand")
    return list(_again(workspace, "hand", said, failures(workspace, "hand"), {"second_bad"}).values())


def test_changes_that_would_make_other_answers_are_refused(local: None, workspace: Workspace, engine: Fake) -> None:
    write_records(workspace, [record(0)], part_rows=4)
    caption(workspace, "hand", replace(engine, fail=("0.jpg",)), SMALL)
    with pytest.raises(SettingError, match="the answers would not be those of"):
        retry(workspace, "hand", ["engine_down"], changes={"model": "other"})
    with pytest.raises(SettingError, match="no setting 'modle'; did you mean model"):
        retry(workspace, "hand", ["engine_down"], changes={"modle": "other"})


@dataclass(frozen=True, kw_only=True)
class Secretive(Fake):
    """An engine whose workers get a token by their environment."""

    environment: tuple[tuple[str, str], ...] = (("HF_TOKEN", "hf_secret"),)

    def prompts(self) -> dict[Task, Prompt]:
        return {**super().prompts(), "region": FakeRegion()}


def test_what_may_hold_a_key_is_not_written_down(local: None, workspace: Workspace, tmp_path: Path) -> None:
    import ray

    from tests.pipelines import test_retry

    ray.cloudpickle.register_pickle_by_value(test_retry)
    write_records(workspace, [record(0)], part_rows=4)
    caption(workspace, "hand", Secretive(log=str(tmp_path / "log")), SMALL)
    path = Path(workspace.path("responses", "hand", "latest-image.json"))
    assert json.loads(path.read_bytes())["settings"]["log"] == str(tmp_path / "log")
    written = [one.read_bytes() for one in Path(workspace.url).rglob("*") if one.is_file()]
    assert not any(b"hf_secret" in content for content in written)
