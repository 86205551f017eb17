"""Training: it learns, it continues bit for bit, and several processes do what one does."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from detector import checkpoint, learner
from detector import train as module
from detector.config import CriterionSettings
from detector.criterion import Loss
from detector.data import Batch, TrainData
from detector.model import OpenDetector
from detector.train import StepReport, TrainingError, train
from llmdet.errors import SettingError
from tests.detector import example_run
from tests.detector.example_run import MODEL, settings


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    return example_run.data(tmp_path_factory.mktemp("world"))


def stop_after(step: int) -> Callable[[StepReport], None]:
    def on_step(report: StepReport) -> None:
        if report.step == step:
            raise KeyboardInterrupt

    return on_step


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def test_a_continued_run_equals_an_unbroken_one_bit_for_bit(data: TrainData, tmp_path: Path) -> None:
    plan = settings(5)
    whole = train(plan, MODEL, data, tmp_path / "whole")
    broken = settings(5, checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(broken, MODEL, data, tmp_path / "broken", on_step=stop_after(3))
    rest = train(broken, MODEL, data, tmp_path / "broken")
    assert rest.first_step == 2
    assert rest.losses == whole.losses[2:]
    a, b = weights(whole.folder), weights(rest.folder)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    steps = [path.name for path in checkpoint.checkpoints(rest.folder)]
    assert steps == ["step-000004", "step-000005"]


def test_training_lowers_the_loss_and_writes_a_log(data: TrainData, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    result = train(settings(30, batch_size=6, warmup=5), MODEL, data, tmp_path, on_step=reports.append)
    assert [report.step for report in reports] == list(range(1, 31))
    assert np.mean(result.losses[-5:]) < 0.8 * np.mean(result.losses[:3])
    assert reports[-1].checkpoint == result.checkpoint
    assert reports[-2].checkpoint is None
    assert set(reports[0].parts) >= {"loss/decoder", "loss/encoder", "loss/auxiliary", "loss/denoising"}
    assert list((tmp_path / "log").glob("events.*"))


def test_a_finished_run_is_not_run_again(data: TrainData, tmp_path: Path) -> None:
    train(settings(1), MODEL, data, tmp_path)
    again = train(settings(1), MODEL, data, tmp_path)
    assert again.losses == ()
    assert again.first_step == 1


def test_the_search_for_idle_weights_takes_one_image(
    data: TrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch for eight GPUs would not fit into each of them."""
    seen: list[int] = []
    inner = learner.compute_loss

    def counted(model: OpenDetector, batch: Batch, *rest: Any, **named: Any) -> Loss:
        seen.append(len(batch.names))
        return inner(model, batch, *rest, **named)

    monkeypatch.setattr(module, "compute_loss", counted)
    monkeypatch.setattr(learner, "compute_loss", counted)
    train(settings(1, batch_size=4), MODEL, data, tmp_path)
    assert seen == [1, 4]


def test_other_settings_do_not_continue_a_run(data: TrainData, tmp_path: Path) -> None:
    train(settings(1), MODEL, data, tmp_path)
    with pytest.raises(SettingError, match=r"learning_rate 0\.004 -> 0\.001"):
        train(settings(1, learning_rate=0.001), MODEL, data, tmp_path)


def test_a_gradient_that_is_not_a_number_leaves_no_checkpoint(data: TrainData, tmp_path: Path) -> None:
    def poison(report: StepReport) -> None:
        raise AssertionError("no step may finish")

    with pytest.raises(TrainingError, match=r"step 1; records: w/\d/0, w/\d/0"):
        train(settings(2, criterion=CriterionSettings(l1_weight=float("nan"))), MODEL, data, tmp_path, on_step=poison)
    assert checkpoint.checkpoints(tmp_path) == []


@pytest.mark.slow
def test_a_running_mean_is_what_is_published_and_a_continued_run_has_the_same_one(
    data: TrainData, tmp_path: Path
) -> None:
    plan = settings(4, ema=0.5)
    whole = train(plan, MODEL, data, tmp_path / "whole")
    part = train(plan, MODEL, data, tmp_path / "parts", until=1)
    assert (part.steps, part.checkpoint) == (1, str(tmp_path / "parts" / "step-000001"))
    assert not (tmp_path / "parts" / "config.json").exists()  # nothing is published before the end
    asked: list[int] = []
    stopped = train(plan, MODEL, data, tmp_path / "parts", stop=lambda: asked.append(1) is None and len(asked) == 2)
    assert (stopped.first_step, stopped.steps) == (1, 3)
    rest = train(plan, MODEL, data, tmp_path / "parts")
    assert [*part.losses, *stopped.losses, *rest.losses] == list(whole.losses)
    mean, again = weights(whole.folder), weights(rest.folder)
    assert all(torch.equal(mean[name], again[name]) for name in mean)
    learned = load_file(Path(whole.checkpoint) / "training" / "weights.safetensors")
    resumed = load_file(Path(rest.checkpoint) / "training" / "weights.safetensors")
    assert all(torch.equal(learned[name], resumed[name]) for name in learned)
    assert not all(torch.equal(learned[name], mean[name]) for name in learned)  # the mean is not the last step


def test_a_checkpoint_of_an_older_version_did_what_is_now_the_default(data: TrainData, tmp_path: Path) -> None:
    train(settings(2), MODEL, data, tmp_path, until=1)
    note = tmp_path / "step-000001" / "training" / "state.json"
    state = json.loads(note.read_text())
    del state["settings"]["accumulate"], state["settings"]["ema"]
    note.write_text(json.dumps(state))
    with pytest.raises(SettingError, match=r"ema 0\.0 -> 0\.5"):
        train(settings(2, ema=0.5), MODEL, data, tmp_path)
    assert train(settings(2, log_records=True), MODEL, data, tmp_path).first_step == 1
    (line,) = (tmp_path / "records-0.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 2, "records": json.loads(line)["records"]}
    assert len(json.loads(line)["records"]) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accumulate": 3}, "batch_size 2 must be a multiple of accumulate 3"),
        ({"ema": 1.0}, "ema is a decay from 0 to below 1"),
        ({"milestones": (0.0,)}, "milestones are steps or shares above 0"),
        ({"keep": 0}, "keep is a number from 1 on"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingError, match=expected):
        settings(1, **changes)


GROUP = """
import json, sys
import torch.distributed as dist
from detector.data import TrainData
from detector.train import train
from tests.detector.example_run import MODEL, settings
rank, place, records, root = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{place}/group", rank=rank, world_size=2)
result = train(settings(3), MODEL, TrainData(records, {"w": root}), f"{place}/out")
print(json.dumps(result.losses))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(data: TrainData, tmp_path: Path) -> None:
    alone = train(settings(3), MODEL, data, tmp_path / "alone")
    arguments = [str(tmp_path), data.records, data.roots["w"]]
    group = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", GROUP, str(rank), *arguments], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    shares = [json.loads(process.communicate(timeout=200)[0].splitlines()[-1]) for process in group]
    # Each divides its own images by the mean number of boxes, so the mean of the two is the loss of the whole batch.
    assert np.mean(shares, axis=0) == pytest.approx(alone.losses, rel=2e-3)
    a, b = weights(alone.folder), weights(tmp_path / "out")
    moved = max(float((a[name] - b[name]).abs().max()) for name in a)
    assert moved < 0.02
