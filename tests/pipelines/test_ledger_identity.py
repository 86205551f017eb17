"""What changes an answer changes the ledger: a changed prompt, model, revision or sampling never mixes with the old."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llmdet.prompts.prompt import Prompt, Task
from llmdet.workspace import Workspace
from pipelines.answers import latest, ledgers_of
from pipelines.caption import CaptionSettings, caption
from pipelines.engines.engine import Identity
from pipelines.engines.template import TemplateEngine
from tests.pipelines.fakes import Fake, FakeImage, FakeRegion, record, write_records

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Changeable(Fake):
    """The fake engine with everything that a ledger depends on as a field."""

    revision: str = "r1"
    prompt_version: str = "1"
    temperature: float = 0.2
    max_pixels: int = 100
    workers_wanted: int = 1  # counts as nothing that changes an answer; no more does the version of the engine
    version: str = "1"

    def identity(self) -> Identity:
        sampling, preprocessing = {"temperature": self.temperature}, {"max_pixels": self.max_pixels}
        return Identity("fake", self.version, self.model, self.revision, sampling, preprocessing)

    def prompts(self) -> dict[Task, Prompt]:
        return {"image": FakeImage(version=self.prompt_version), "region": FakeRegion()}


CHANGES: list[dict[str, Any]] = [
    {"model": "other"},
    {"revision": "r2"},
    {"prompt_version": "2"},
    {"temperature": 0.3},
    {"max_pixels": 101},
]


def urls(workspace: Workspace, engine: Fake, seed: int = 0) -> dict[Task, str]:
    return {task: one.url for task, one in ledgers_of(workspace, "hand", engine, ("image", "region"), seed).items()}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_each_change_is_a_new_ledger(workspace: Workspace, change: dict[str, Any]) -> None:
    engine = Changeable(log="")
    before, after = urls(workspace, engine), urls(workspace, replace(engine, **change))
    assert before["image"] != after["image"]
    assert (before["region"] == after["region"]) == ("prompt_version" in change)  # that of the image prompt alone


def test_the_seed_counts_where_something_is_drawn(workspace: Workspace) -> None:
    engine = Changeable(log="")
    assert set(urls(workspace, engine, 0).values()).isdisjoint(urls(workspace, engine, 1).values())
    fixed = replace(engine, deterministic=True)
    assert urls(workspace, fixed, 0) == urls(workspace, fixed, 1)


def test_what_changes_no_answer_changes_no_ledger(workspace: Workspace) -> None:
    engine = Changeable(log="")
    assert urls(workspace, engine) == urls(workspace, replace(engine, workers_wanted=8, version="2"))


def test_every_setting_asks_everything_anew_and_touches_no_file_of_another(
    local: None, workspace: Workspace, tmp_path: Path
) -> None:
    import ray

    from tests.pipelines import test_ledger_identity

    ray.cloudpickle.register_pickle_by_value(test_ledger_identity)
    write_records(workspace, [record(i) for i in range(4)], part_rows=4)
    engine = Changeable(log=str(tmp_path / "asked.jsonl"))
    kept: dict[Path, bytes] = {}
    for number, change in enumerate([{}, *CHANGES[:2]], 1):
        done = caption(workspace, "hand", replace(engine, **change), CaptionSettings(task="image", chunk_images=2))
        assert (done.asked, done.answered, len(engine.asked())) == (4, 4, 4 * number)
        assert {path: path.read_bytes() for path in kept} == kept
        kept |= {path: path.read_bytes() for path in Path(done.ledgers["image"]).glob("part-*")}
        assert latest(workspace, "hand")["image"].ledger.url == done.ledgers["image"]
    assert len(workspace.children("responses", "hand")) == 3


def test_a_second_driver_stops_with_one_line_that_names_the_first(workspace: Workspace, tmp_path: Path) -> None:
    write_records(workspace, [record(0)], part_rows=4)
    (ledger,) = ledgers_of(workspace, "hand", TemplateEngine(), ("image",)).values()
    code = "import sys, time; from pipelines.lease import hold\n"
    code += "with hold(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    first = subprocess.Popen([sys.executable, "-c", code, ledger.url], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    words = ["caption", "--source", "hand", "--engine", "template", "--workspace", workspace.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        second = subprocess.run(
            [sys.executable, "-m", "cli", *words], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 1
    errors = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"(pid {first.pid}) is writing to {ledger.url}" in errors[0]
    assert "Traceback" not in second.stderr
