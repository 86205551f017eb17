"""The loop with captions: both losses fall, runs go on bit for bit, and the detector's folder stays what it was."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForZeroShotObjectDetection

from detector.captions import tiny
from detector.captions.start import texts_of
from detector.config import CaptionSettings, TrainSettings
from detector.data import TrainData
from detector.train import StepReport, train
from llmdet.errors import FormatError, MissingError
from llmdet.record import Caption, Record, to_batch
from llmdet.workspace import to_parquet
from tests.detector import example_run
from tests.detector.captions.example_llm import qwen
from tests.detector.example_run import MODEL
from tests.detector.test_train import stop_after


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def records() -> list[Record]:
    """Scenes with captions that name what is there, but for one scene."""
    rows = example_run.records(6)
    said = [", ".join(phrase for region in row.regions for phrase in region.phrases) for row in rows]
    return [
        replace(row, captions=(Caption(f"A scene with {text}."),)) if text and row.image_id != "1" else row
        for row, text in zip(rows, said, strict=True)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    place = tmp_path_factory.mktemp("world")
    made = example_run.data(place)
    for part in (place / "records").iterdir():
        part.unlink()
    (place / "records" / "part-00000.parquet").write_bytes(to_parquet(to_batch(records())))
    return made


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llm") / "model"
    size = tiny.TinySettings(layers=2, hidden=32, vocabulary=300, steps=2, batch=2)
    tiny.write(folder, *texts_of(records()), size)
    return str(folder)


def settings(steps: int, llm: str, captions: dict[str, object] | None = None, **changes: object) -> TrainSettings:
    small: dict[str, object] = {"levels": (-1,), "grids": (4,), "lora_rank": 4, "look_layers": 1, "region_tokens": 120}
    small["lora_alpha"] = 8.0
    chosen = CaptionSettings(llm=llm, **(small | (captions or {})))  # type: ignore[arg-type]
    return example_run.settings(steps, captions=chosen, **changes)


def same(a: Path, b: Path, name: str) -> bool:
    one, other = load_file(a / name), load_file(b / name)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_continued_run_with_captions_equals_an_unbroken_one_bit_for_bit(
    data: TrainData, llm: str, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(settings(3, llm), MODEL, data, whole)
    plan = settings(3, llm, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(plan, MODEL, data, broken, on_step=stop_after(2))
    rest = train(plan, MODEL, data, broken)
    assert rest.first_step == 2
    for name in ("model.safetensors", "captions.safetensors"):
        assert same(whole, broken, name)
    assert same(whole / "step-000003/training", broken / "step-000003/training", "optimizer.safetensors")
    facts = json.loads((whole / "captions.json").read_text())
    assert facts["settings"]["llm"] == llm
    _, loading = AutoModelForZeroShotObjectDetection.from_pretrained(whole, output_loading_info=True)
    assert not loading["unexpected_keys"]
    assert not loading["missing_keys"]


def test_the_losses_are_in_the_log_and_in_the_total(data: TrainData, llm: str, tmp_path: Path) -> None:
    reports: list[StepReport] = []
    train(settings(1, llm), MODEL, data, tmp_path, on_step=reports.append)
    parts = reports[0].parts
    assert parts["loss/caption_image"] > 0
    assert parts["loss/caption_region"] > 0
    assert reports[0].loss == pytest.approx(sum(v for name, v in parts.items() if name.startswith("loss/")), rel=1e-5)


@pytest.mark.slow
def test_alignment_moves_the_connector_and_nothing_of_the_detector(data: TrainData, llm: str, tmp_path: Path) -> None:
    first, aligned = tmp_path / "first", tmp_path / "aligned"
    train(settings(1, llm, {"stage": "align"}, learning_rate=0.0), MODEL, data, first)
    train(settings(2, llm, {"stage": "align"}), MODEL, data, aligned)
    assert same(first, aligned, "model.safetensors")
    assert not same(first, aligned, "captions.safetensors")
    names = load_file(aligned / "captions.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"connector"}
    train(settings(1, llm, {"start": str(aligned)}, learning_rate=0.0), MODEL, data, tmp_path / "full")
    full = load_file(tmp_path / "full" / "captions.safetensors")
    before = load_file(aligned / "captions.safetensors")
    assert all(torch.equal(full[name], before[name]) for name in before)
    assert all(torch.equal(full[f"region_{name}"], before[name]) for name in before)


@pytest.mark.slow
def test_the_tiny_model_is_made_once_from_the_records(
    data: TrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = tiny.TinySettings(layers=1, hidden=32, vocabulary=300, steps=1, batch=2)
    monkeypatch.setattr(tiny, "TinySettings", lambda: quick)
    train(settings(1, "tiny"), MODEL, data, tmp_path)
    made = (tmp_path / "llm" / "model.safetensors").stat().st_mtime_ns
    train(settings(1, "tiny"), MODEL, data, tmp_path)
    assert (tmp_path / "llm" / "model.safetensors").stat().st_mtime_ns == made


@pytest.mark.slow
def test_a_kill_between_the_tiny_model_and_the_first_step_changes_nothing(
    data: TrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = tiny.TinySettings(layers=1, hidden=32, vocabulary=300, steps=1, batch=2)
    monkeypatch.setattr(tiny, "TinySettings", lambda: quick)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(settings(2, "tiny"), MODEL, data, whole)
    (broken / ".llm.7.tmp").mkdir(parents=True)  # an earlier one was killed while it wrote
    with monkeypatch.context() as patch:
        patch.setattr("detector.captions.llm.read", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings(2, "tiny"), MODEL, data, broken)
    assert [path.name for path in broken.iterdir()] == ["llm"]
    train(settings(2, "tiny"), MODEL, data, broken)
    for name in ("model.safetensors", "captions.safetensors", "llm/model.safetensors"):
        assert same(whole, broken, name)


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_used_is_one_line(data: TrainData, llm: str, tmp_path: Path) -> None:
    qwen().save_pretrained(tmp_path / "bare")
    with pytest.raises(MissingError, match="has no tokenizer beside it"):
        train(settings(1, str(tmp_path / "bare")), MODEL, data, tmp_path / "out")
    with pytest.raises(MissingError, match=r"holds no captions\.safetensors"):
        train(settings(1, llm, {"start": str(tmp_path)}), MODEL, data, tmp_path / "out")


GROUP = """
import json, sys
import torch.distributed as dist
from detector.data import TrainData
from detector.train import train
from tests.detector.captions.test_training import settings
from tests.detector.example_run import MODEL
rank, place, llm, records, root = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{place}/group", rank=rank, world_size=2)
result = train(settings(3, llm), MODEL, TrainData(records, {"w": root}), f"{place}/out")
print(json.dumps(result.losses))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(data: TrainData, llm: str, tmp_path: Path) -> None:
    """Also in steps in which one of them has no caption of an image."""
    alone = train(settings(3, llm), MODEL, data, tmp_path / "alone")
    arguments = [str(tmp_path), llm, data.records, data.roots["w"]]
    group = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", GROUP, str(rank), *arguments], stdout=subprocess.PIPE)
        for rank in range(2)
    ]
    shares = [json.loads(process.communicate(timeout=200)[0].splitlines()[-1]) for process in group]
    assert np.mean(shares, axis=0) == pytest.approx(alone.losses, rel=2e-3)


@pytest.mark.slow
def test_captions_of_another_size_do_not_continue_a_run(data: TrainData, llm: str, tmp_path: Path) -> None:
    train(settings(1, llm), MODEL, data, tmp_path / "first")
    with pytest.raises(FormatError, match="does not fit"):
        train(settings(1, llm, {"start": str(tmp_path / "first"), "lora_rank": 2}), MODEL, data, tmp_path / "second")
