"""run: which recipe, which workspace, which data; the loop without training, on four drawn photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.coco_folder import BOXES, write_coco
from tests.cli.conftest import Typed

RECIPE = {
    "name": "four",
    "workspace": "from_recipe",
    "data_root": "coco",
    "sources": {"coco": {"annotations": "annotations.json", "images": "photos"}},
    "export": [{"format": "odvg"}],
}


@pytest.fixture
def recipe(here: Path) -> str:
    write_coco(here / "coco")
    (here / "four.yaml").write_text(yaml.safe_dump(RECIPE))
    return "four.yaml"


def test_dry_run_says_what_would_be_asked_and_writes_nothing(typed: Typed, recipe: str, here: Path) -> None:
    done = typed("run", recipe, "--dry-run", "--json")
    assert done.code == 0, done.err
    said = done.json
    assert said["workspace"] == str(here / "from_recipe")
    counts = {"records": 4, "rejects": 1, "boxes": BOXES, "image requests": 4, "region requests": 4}
    assert {key: said[key] for key in counts} == counts
    assert {key: said["plan"]["coco"][key] for key in counts} == counts
    assert not (here / "from_recipe").exists()
    shown = typed("run", recipe, "--dry-run", "--limit", "2").out
    assert shown.splitlines()[-1] == "then: refine, merge, export odvg, report"


def test_dry_run_plans_for_an_engine_that_is_not_there_and_a_run_refuses_it(typed: Typed, recipe: str) -> None:
    planned = typed("run", recipe, "--dry-run", "--json", "--set", "caption.engine=oracle")
    assert (planned.code, planned.json["image requests"]) == (0, 4)
    assert "no engine oracle yet" in planned.err
    refused = typed("run", recipe, "--set", "caption.engine=oracle")
    assert refused.code == 1
    assert "no engine 'oracle'" in refused.err


def test_dry_run_of_a_model_says_tokens_hours_money_and_three_requests(typed: Typed, recipe: str) -> None:
    words = ("--set", "caption.engine=vllm", "--set", "caption.engines.vllm.family=qwen2_vl")
    prices = ("--set", "caption.price={gpu_hour: 2.5, gpus: 8, tokens_per_s: 1000}")
    planned = typed("run", recipe, "--dry-run", "--json", *words, *prices)
    assert planned.code == 0, planned.err
    said = planned.json
    pictures = said["picture tokens"]
    assert said["prompt tokens"] > pictures > 0
    hours = 8 * (said["prompt tokens"] + said["answer tokens"]) / 1000 / 3600
    assert said["spend"]["gpu_hours"] == pytest.approx(hours)
    assert said["spend"]["cost"] == pytest.approx(2.5 * hours)
    assert len(said["examples"]) == 3
    assert {"text", "schema", "view", "sampling", "picture"} < set(said["examples"][0])
    shown = typed("run", recipe, "--dry-run", *words, *prices).out
    assert "GPU-hours (speed: price.tokens_per_s)" in shown
    assert "request 3: " in shown


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ((), {}, "from_recipe"),
        ((), {"LLMDET_WORKSPACE": "from_shell"}, "from_shell"),
        (("--workspace", "from_option"), {"LLMDET_WORKSPACE": "from_shell"}, "from_option"),
        (("--set", "workspace=from_set"), {}, "from_set"),
        (("--workspace", "2026"), {}, "2026"),
    ],
)
def test_workspace_is_that_of_option_then_shell_then_recipe(
    typed: Typed, recipe: str, here: Path, words: tuple[str, ...], environment: dict[str, str], expected: str
) -> None:
    said = typed("run", recipe, "--dry-run", "--json", *words, **environment).json
    assert said["workspace"] == str(here / expected)


def test_data_root_is_that_of_option_then_shell_then_recipe(typed: Typed, recipe: str, here: Path) -> None:
    (here / "coco").rename(here / "elsewhere")
    missing = typed("run", recipe, "--dry-run")
    assert missing.code == 1
    assert missing.error == f"no such file: {here / 'coco' / 'annotations.json'}"
    assert typed("run", recipe, "--dry-run", LLMDET_DATA_ROOT="elsewhere").code == 0
    assert typed("run", recipe, "--dry-run", "--data-root", "elsewhere", LLMDET_DATA_ROOT="nowhere").code == 0


def test_run_goes_through_every_stage_and_passes_over_them_the_second_time(
    typed_with_ray: Typed, recipe: str, here: Path
) -> None:
    first = typed_with_ray("run", recipe, "--json")
    assert first.code == 0, first.err
    said = first.json
    assert (said["command"], said["records"], said["rejects"], said["faults"]) == ("run", 4, {"crowd": 1}, {})
    assert (here / "from_recipe" / "exports" / "odvg" / "odvg.jsonl").read_text().count("\n") == 4
    assert Path(said["report"]).is_file()
    again = typed_with_ray("run", recipe, "--json").json
    assert {stage["skipped"] for stage in again["stages"].values()} == {True}
    assert len(list((here / "from_recipe" / "runs").glob("*.json"))) == 2


def test_run_with_too_many_faults_ends_with_3(typed_with_ray: Typed, recipe: str, here: Path) -> None:
    (here / "coco" / "photos" / "a.jpg").write_bytes(b"")
    done = typed_with_ray("run", recipe, "--json")
    assert done.code == 3
    assert done.error.startswith("ingest coco: 1 of 4 failed (")
    assert done.json["records"] == 3
    assert typed_with_ray("run", recipe, "--max-faults", "0.5").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nothing.yaml",), "no recipe at nothing.yaml; bundled ones: "),
        (("four.yaml", "--set", "caption.engin=openai"), "there is no setting caption.engin"),
        (("four.yaml", "--set", "caption.engine=oracle"), "no engine 'oracle'; there are: "),
        (("four.yaml", "--set", "export.0.format=papyrus"), "no format 'papyrus'; there are: "),
        (("four.yaml", "--set", "name=[1"), "cannot be read as a YAML value"),
        (("coco/annotations.json",), "sources must be given"),
        (("coco/photos/a.jpg",), "is not YAML"),
    ],
)
def test_a_wrong_recipe_fails_before_anything_runs(
    typed: Typed, recipe: str, here: Path, words: tuple[str, ...], expected: str
) -> None:
    done = typed("run", *words)
    assert done.code == 1
    assert expected in done.error
    assert not (here / "from_recipe").exists()


def test_dry_run_counts_what_was_ingested_and_answered_only_where_the_recipe_is_the_same(
    typed_with_ray: Typed, recipe: str
) -> None:
    assert typed_with_ray("run", recipe, "--limit", "2").code == 0
    names = ("records", "image requests", "answered")
    limited = typed_with_ray("run", recipe, "--dry-run", "--limit", "2", "--json").json
    assert [limited[name] for name in names] == [2, 2, 4]
    whole = typed_with_ray("run", recipe, "--dry-run", "--json").json
    assert [whole[name] for name in names] == [4, 4, 0]  # photos are not opened, so nobody knows that they are the same
