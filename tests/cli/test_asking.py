"""What asking costs, what it is doing, and asking again: caption --dry-run, retry, status, doctor --remove-damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cli.progress import Lines
from pipelines.live import Live, Teller
from tests.cli.coco_folder import BOXES, write_coco
from tests.cli.conftest import Made, Typed

VLLM = ("--engine", "vllm", "--set", "family=qwen2_vl")


@pytest.fixture
def copy(made: Made, here: Path) -> str:
    """A workspace of four captioned records that a test may spoil."""
    shutil.copytree(made.workspace, here / "w")
    return str(here / "w")


def test_dry_run_of_a_source_that_was_not_ingested_reads_its_annotations(typed: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco")
    words = ("caption", "--source", "coco", "--annotations", annotations, "--images", images, "--dry-run")
    done = typed(*words, *VLLM, "--json", "--workspace", "w")
    assert done.code == 0, done.err
    said = done.json
    assert (said["records"], said["image requests"], said["answered"]) == (4, 4, 0)
    assert said["prompt tokens"] > said["picture tokens"] > 0
    assert [one["task"] for one in said["examples"]] == ["image", "region", "image"]
    assert said["spend"] == {"gpu_hours": None, "cost": None, "speed": ""}
    assert not (here / "w").exists()
    assert typed(*words, *VLLM, "--limit", "2", "--json", "--workspace", "w").json["records"] == 2
    assert BOXES > 0


def test_dry_run_takes_off_what_is_answered_and_says_money(typed: Typed, made: Made) -> None:
    place = ("--source", "coco", "--workspace", made.workspace, "--dry-run")
    free = typed("caption", *place, "--engine", "template", "--json").json
    assert (free["answered"], free["image requests"] + free["region requests"]) == (8, 8)
    priced = typed("caption", *place, *VLLM, "--price", "prompt_million=2", "--price", "answer_million=6", "--json")
    said = priced.json
    assert said["spend"]["cost"] == pytest.approx((2 * said["prompt tokens"] + 6 * said["answer tokens"]) / 1e6)
    shown = typed("caption", *place, *VLLM).out
    assert "GPU-hours and cost are not known: give price.tokens_per_s" in shown
    assert "request 1: image of coco/" in shown
    wrong = typed("caption", *place, *VLLM, "--price", "gpu_hours=2")
    assert wrong.error == "price has no setting 'gpu_hours'; did you mean gpu_hour?"


def test_retry_lists_reasons_and_asks_only_those(typed_with_ray: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco")
    words = ("--source", "coco", "--annotations", annotations, "--images", images, "--workspace", "w")
    assert typed_with_ray("ingest", *words).code == 0
    photo = sorted((here / "coco" / "photos").iterdir())[0]
    pixels = photo.read_bytes()
    photo.unlink()
    asked = ("caption", "--source", "coco", "--workspace", "w", "--engine", "template", "--set", "colours=true")
    assert typed_with_ray(*asked).code == 3
    assert typed_with_ray("retry", "--workspace", "w", "--json").json["failed"] == {"coco": {"image_missing": 2}}
    assert typed_with_ray("retry", "--workspace", "w").out == "coco: 2 image_missing\n"
    none = typed_with_ray("retry", "--reason", "timeout", "--workspace", "w")
    assert none.error == "nothing of coco failed for timeout; what failed: 2 image_missing"
    photo.write_bytes(pixels)
    done = typed_with_ray("retry", "--reason", "image_missing", "--workspace", "w", "--json")
    assert done.code == 0, done.err
    assert (done.json["asked"], done.json["failed"], done.json["answered"]) == (2, 0, 8)
    assert typed_with_ray("retry", "--workspace", "w").out == "coco: nothing failed\n"
    refused = typed_with_ray("retry", "--reason", "image_missing", "--set", "colours=false", "--workspace", "w")
    assert refused.error.startswith("with these settings the answers would not be those of")


def test_status_shows_the_runs_of_caption(typed: Typed, made: Made) -> None:
    (run,) = typed("status", "--workspace", made.workspace, "--json").json["live"]
    assert (run["source"], run["engine"], run["state"], run["requests"]) == ("coco", "template", "finished", 8)
    shown = typed("status", "--watch", "--workspace", made.workspace).out
    assert "runs of caption" in shown
    assert "coco all, by template" in shown
    assert "requests/s" in shown


def test_doctor_takes_damaged_files_out_of_the_way(typed: Typed, copy: str) -> None:
    (path,) = Path(copy, "captions", "coco").glob("part-*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    found = typed("doctor", "--verify", "--workspace", copy, "--json")
    assert found.code == 1
    (broken,) = [one for one in found.json["findings"] if one["level"] == "fail"]
    assert broken["text"].startswith(f"{path} is damaged")
    assert path.exists()
    removed = typed("doctor", "--verify", "--remove-damaged", "--workspace", copy)
    assert removed.code == 0
    assert "run: llmdet-data refine --source coco" in removed.out
    assert not path.exists()


def test_lines_of_a_log_show_the_figures_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(
        source="s", task="all", shard="0/1", engine="vllm", model="m", ledgers={}, prompt_tokens=9, cache_hits=0.5
    )
    live = replace(live, images_per_s=12.5, requests_per_s=100.0, prompt_tokens_per_s=2000.0, waiting=0.25, cost=1.5)
    with Lines(every_s=0).stage("caption s") as progress:
        assert isinstance(progress, Teller)
        progress(0, 4)
        progress.tell(live.line())
        progress(1, 4)
    said = capsys.readouterr().err.splitlines()[2]
    assert said.startswith(
        "caption s: 1 of 4, about 0:00 left; 12.5 images/s, 100.0 requests/s, tokens/s 2000 in, 0 out"
    )
    assert said.endswith("cached 50%, engine waits 25%, cost 1.50")
