"""What training says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from detector.meters import Speed
from detector.train import StepReport
from llmdet.errors import SettingError
from llmdet.workspace import Workspace
from pipelines import train as module
from pipelines.evaluate import EvaluateOutcome
from pipelines.recipe import TrainSection
from pipelines.sets import EvaluationSet
from pipelines.train import train
from pipelines.train_log import curve, entry, line
from tests.pipelines import training

HELD_OUT = EvaluationSet(name="held_out", task="coco", annotations="a.json", images="images")


def report(step: int, speed: Speed) -> StepReport:
    return StepReport(step, 9, 1.5, {"loss/decoder": 1.0, "last/l1": 0.5}, 1e-4, 2.0, 60.0, speed, None)


def test_an_entry_has_losses_rates_and_speed_and_the_curve_has_losses_only(tmp_path: Path) -> None:
    fast = Speed(20.0, 0.031, 3 * 2**30, 400.0, 0.404)
    (tmp_path / "train.jsonl").write_bytes(entry(report(1, fast)) + entry(report(2, Speed(1.0, 0.5, 2**29))) + b'{"st')
    first = orjson.loads(entry(report(1, fast)))
    assert first["learning_rate"] == 1e-4
    assert first["gradient"] == 2.0
    assert {name: first[f"speed/{name}"] for name in ("images_per_second", "data_wait", "memory_bytes", "mfu")} == {
        "images_per_second": 20.0,
        "data_wait": 0.031,
        "memory_bytes": 3 * 2**30,
        "mfu": 0.404,
    }
    losses = {"loss": 1.5, "loss/decoder": 1.0, "last/l1": 0.5}
    assert curve(str(tmp_path)) == ([{"step": 1, **losses}, {"step": 2, **losses}], 1)


def test_people_read_one_line() -> None:
    fast = orjson.loads(entry(report(1, Speed(20.0, 0.031, 3 * 2**30, 400.0, 0.404))))
    assert line(fast) == "loss 1.500, 20.0 images/s, waits for data 3%, 3.0 GiB, MFU 40%"
    assert line({"step": 1, "loss": 2.0}) == "loss 2.000"  # of an older version


class Processes:
    """Training processes that write nothing but their checkpoint."""

    def __init__(self) -> None:
        self.until: list[int] = []
        self.asked: list[str] = []

    def launch(self, config: dict[str, Any], section: TrainSection) -> dict[str, Any]:
        before = module.newest(config["out"])
        Path(config["out"], f"step-{config['until']:06d}").mkdir(exist_ok=True)
        self.until.append(config["until"])
        losses = [float(step) for step in range(before, config["until"])]
        return {"steps": config["until"], "first_step": before, "losses": losses, "seconds": 1.0}

    def evaluate(self, sets: list[EvaluationSet], checkpoint: str, out: str, gpu: bool) -> list[EvaluateOutcome]:
        assert Path(checkpoint).is_dir()
        self.asked.append(Path(checkpoint).name)
        return [EvaluateOutcome(one.name, {"AP": 0.25, "AP50": 0.5}) for one in sets]


@pytest.fixture
def processes(local: None, monkeypatch: pytest.MonkeyPatch) -> Processes:
    found = Processes()
    monkeypatch.setattr(module, "_launch", found.launch)
    monkeypatch.setattr(module, "evaluate", found.evaluate)
    return found


def test_checkpoints_are_evaluated_on_the_way(processes: Processes, tmp_path: Path) -> None:
    where, out = training.workspace(tmp_path), tmp_path / "out"
    section = TrainSection(settings={"steps": 7, "evaluate_every": 3})
    done = train(where, section, str(out), sets=[HELD_OUT])
    assert processes.until == [3, 6, 7]
    assert done.evaluated == {f"step-00000{n}": {"held_out": {"AP": 0.25, "AP50": 0.5}} for n in (3, 6)}
    assert (done.first_step, done.steps, done.losses, done.seconds) == (0, 7, tuple(map(float, range(7))), 3.0)
    assert list((out / "log").glob("events.*"))
    again = train(where, section, str(out), sets=[HELD_OUT])  # finished: nothing is asked again
    assert (processes.until[3:], processes.asked, again.evaluated) == ([7], ["step-000003", "step-000006"], {})


def test_a_run_that_was_killed_before_its_evaluation_makes_up_for_it(processes: Processes, tmp_path: Path) -> None:
    where, out = training.workspace(tmp_path), tmp_path / "out"
    (out / "step-000003").mkdir(parents=True)
    train(where, TrainSection(settings={"steps": 7, "evaluate_every": 3}), str(out), sets=[HELD_OUT])
    assert processes.asked == ["step-000003", "step-000006"]
    assert processes.until == [6, 7]


@pytest.mark.slow
def test_evaluating_on_the_way_changes_nothing_of_the_run(local: None, tmp_path: Path) -> None:
    """Real processes, which end for each evaluation and go on behind it."""
    where = training.workspace(tmp_path)
    held_out = EvaluationSet(
        name="held_out", annotations=str(tmp_path / "annotations.json"), images=str(tmp_path / "images")
    )
    trained = {}
    for name, every in (("unbroken", 0), ("evaluated", 2)):
        settings = training.settings(5, evaluate_every=every)
        section = TrainSection(workers=2, short_side=training.SIZE, long_side=training.SIZE, settings=settings)
        trained[name] = train(where, section, str(tmp_path / name), sets=[held_out])
    assert list(trained["evaluated"].evaluated) == ["step-000002", "step-000004"]
    for figures in trained["evaluated"].evaluated.values():
        assert 0 <= figures["held_out"]["AP50"] <= 1
    assert trained["evaluated"].losses == trained["unbroken"].losses
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in trained]
    assert weights[0] == weights[1]


def test_evaluating_on_the_way_needs_sets(tmp_path: Path) -> None:
    section = TrainSection(settings={"steps": 7, "evaluate_every": 3})
    with pytest.raises(SettingError, match="evaluate_every needs sets: give a --recipe with an evaluate section"):
        train(training.workspace(tmp_path), section, str(tmp_path / "out"))


def test_a_folder_is_trained_in_by_one_driver(tmp_path: Path) -> None:
    from llmdet.errors import BusyError
    from pipelines.lease import hold

    with hold(str(tmp_path / "out")), pytest.raises(BusyError, match="is writing to"):
        train(Workspace.at(training.workspace(tmp_path).url), TrainSection(), str(tmp_path / "out"))
