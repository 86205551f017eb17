from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmdet.workspace import Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.engines import ENGINES
from pipelines.engines.template import TemplateEngine
from pipelines.engines.vllm import VllmEngine
from pipelines.estimate import BOX_ANSWER, IMAGE_ANSWER, Spend, plan_caption, spend
from pipelines.live import Live, Meter
from pipelines.prices import Prices
from pipelines.refine import RefineSettings, refine
from tests.pipelines.fakes import Fake, NeedAttemptAt, record, write_records

# Qwen2-VL's processor: 448 x 448 pixels are 16 x 16 tokens of 28 pixels (transformers' smart_resize).
ENGINE = VllmEngine(model="no/such-model", family="qwen2_vl", region_prompt="region-batch", gpus=1, replicas=2)
SETTINGS = CaptionSettings(price=Prices(gpu_hour=3.0, tokens_per_s=500.0))


def sized(number: int, boxes: int, side: int = 448) -> object:
    return replace(record(number, boxes=boxes), width=side, height=side)


def test_pictures_count_as_the_family_sees_them(workspace: Workspace) -> None:
    found = plan_caption(workspace, "hand", ENGINE, SETTINGS, [sized(i, boxes=3) for i in range(2)])
    counts = found.plan["hand"]
    # an image and a region request each, with the picture in both
    assert (counts["image requests"], counts["region requests"]) == (2, 2)
    assert counts["picture tokens"] == 4 * 16 * 16
    assert counts["prompt tokens"] > counts["picture tokens"] + counts["image tokens"] + counts["region tokens"]
    assert counts["answer tokens"] == 2 * (IMAGE_ANSWER + 3 * BOX_ANSWER)
    assert counts["answer limit"] >= counts["answer tokens"]


def test_a_picture_of_unknown_size_counts_as_a_usual_one(workspace: Workspace) -> None:
    plan = plan_caption(workspace, "hand", ENGINE, SETTINGS, [sized(0, boxes=0, side=0)]).plan["hand"]
    assert plan["picture tokens"] == 23 * 17  # 640 x 480 as 644 x 476


def test_hours_and_money_follow_from_speed_and_prices(workspace: Workspace) -> None:
    found = plan_caption(workspace, "hand", ENGINE, SETTINGS, [sized(i, boxes=3) for i in range(50)])
    counts = found.plan["hand"]
    hours = 2 * (counts["prompt tokens"] + counts["answer tokens"]) / 500 / 3600  # two GPUs
    assert found.spend == Spend(pytest.approx(hours), pytest.approx(3 * hours), "price.tokens_per_s")


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (Prices(), Spend(None, None, "")),
        (Prices(gpu_hour=2.0), Spend(None, None, "")),
        (Prices(prompt_million=1.0, answer_million=4.0), Spend(None, 1.0 + 2.0, "")),
        (Prices(tokens_per_s=1000.0, gpus=4), Spend(4 * 1_500_000 / 1000 / 3600, None, "price.tokens_per_s")),
    ],
)
def test_what_is_not_known_is_not_guessed(workspace: Workspace, prices: Prices, expected: Spend) -> None:
    assert spend(workspace, ENGINE, prices, 1_000_000, 500_000) == expected


def test_the_speed_of_the_last_run_of_the_same_model_counts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENGINES, "fake", Fake)
    engine = Fake(log="")
    head = Live(source="small", task="all", shard="0/1", engine="fake", model="fake", ledgers={}, chunks=1)
    meter = Meter(workspace, head, Prices())
    meter.live = replace(meter.live, started=100.0, prompt_tokens=9_000, answer_tokens=1_000)
    monkeypatch.setattr("pipelines.live.time.time", lambda: 150.0)
    with meter.running():
        pass
    found = spend(workspace, engine, Prices(gpus=2), 1_000_000, 0)
    assert found == Spend(2 * 1_000_000 / 200 / 3600, None, "as the last run about small had it")
    assert spend(workspace, replace(engine, model="other"), Prices(gpus=2), 1_000_000, 0).gpu_hours is None


def test_what_the_ledger_holds_is_not_counted_again(local: None, workspace: Workspace, tmp_path: Path) -> None:
    engine = Fake(log=str(tmp_path / "log"), fail=("2.jpg",))
    write_records(workspace, [record(i) for i in range(4)], part_rows=4)
    before = plan_caption(workspace, "hand", engine, CaptionSettings()).plan["hand"]
    assert (before["image requests"], before["region requests"], before["answered"]) == (4, 4, 0)
    caption(workspace, "hand", engine, CaptionSettings(task="image"))
    after = plan_caption(workspace, "hand", engine, CaptionSettings())
    assert after.plan["hand"]["answered"] == 3  # images, but for the one that failed
    assert [(one.record, one.task) for one in after.examples] == [
        ("hand/0/0", "region"),
        ("hand/1/1", "region"),
        ("hand/2/2", "image"),
    ]


def test_three_requests_are_shown_as_the_engine_gets_them(workspace: Workspace) -> None:
    found = plan_caption(workspace, "hand", ENGINE, SETTINGS, [sized(i, boxes=2, side=500) for i in range(9)])
    assert [one.task for one in found.examples] == ["image", "region", "image"]
    region = found.examples[1]
    assert region.picture == "504x504"  # 500 to the nearest multiple of 28
    assert region.view == {"kind": "whole"}
    assert '"type"' in region.schema
    assert (region.sampling["temperature"], region.sampling["top_p"]) == (0.2, 0.9)
    assert region.sampling["seed"] != found.examples[0].sampling["seed"]


def test_a_model_that_cannot_be_looked_up_counts_as_its_family(workspace: Workspace) -> None:
    unknown = VllmEngine(model="no/Qwen2-VL-7B-of-ours")
    found = plan_caption(workspace, "hand", unknown, SETTINGS, [sized(0, boxes=0)])
    assert found.note.endswith("counted as a model of the family qwen2_vl")
    assert found.plan["hand"]["picture tokens"] == 16 * 16
    other = plan_caption(workspace, "hand", VllmEngine(model="no/name"), SETTINGS, [sized(0, boxes=0)])
    assert other.note.endswith("counted by the questions of the template engine, without pictures")
    assert (other.plan["hand"]["image requests"], other.plan["hand"]["picture tokens"]) == (1, 0)


def test_a_picture_too_narrow_for_the_model_costs_nothing_and_stops_nothing(workspace: Workspace) -> None:
    narrow = replace(record(0, boxes=1), width=3000, height=10)
    found = plan_caption(workspace, "hand", ENGINE, SETTINGS, [narrow])
    assert (found.plan["hand"]["image requests"], found.plan["hand"]["picture tokens"]) == (1, 0)
    assert [one.picture for one in found.examples] == ["3000x10"] * 2


def test_the_gpus_of_the_measured_run_count_not_those_that_are_here_now(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Fake(log="")
    head = Live(source="a", task="all", shard="0/1", engine="fake", model="fake", ledgers={}, chunks=1, gpus=8)
    meter = Meter(workspace, head, Prices())
    meter.live = replace(meter.live, started=100.0, prompt_tokens=8_000)
    monkeypatch.setattr("pipelines.live.time.time", lambda: 110.0)
    with meter.running():
        pass
    found = spend(workspace, engine, Prices(gpu_hour=2.0), 100 * 3600, 0)  # 100 tokens a second and GPU
    assert (found.gpu_hours, found.cost) == (pytest.approx(1.0), pytest.approx(2.0))


def test_only_the_boxes_that_are_asked_again_are_counted(local: None, workspace: Workspace, tmp_path: Path) -> None:
    engine = Fake(log=str(tmp_path / "log"))
    write_records(workspace, [record(0, boxes=2)], part_rows=4)
    settings = CaptionSettings(task="region")
    caption(workspace, "hand", engine, settings)
    refine(workspace, "hand", RefineSettings(rules=(NeedAttemptAt((("0", 1),)),)))
    (example,) = plan_caption(workspace, "hand", engine, settings).examples
    assert (example.attempt, example.text) == (1, "Boxes at [null,1.0]")


def test_who_has_no_model_needs_no_tokens(workspace: Workspace) -> None:
    found = plan_caption(workspace, "hand", TemplateEngine(), SETTINGS, [sized(0, boxes=2)])
    assert (found.plan["hand"]["prompt tokens"], found.spend.gpu_hours, found.spend.cost) == (0, 0.0, 0.0)
