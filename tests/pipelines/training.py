"""A small workspace to train in, and training as it is typed or as two bare processes: for tests that end it early."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from llmdet.record import Caption, Record, to_batch
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Manifest, Workspace
from tests.detector import example_run

ROOT = Path(__file__).parents[2]
SIZE = 64  # pixels


def records() -> list[Record]:
    """Scenes with captions that name what is there."""
    rows = example_run.records(12)
    said = [", ".join(phrase for region in row.regions for phrase in region.phrases) for row in rows]
    return [
        replace(row, captions=(Caption(f"A scene with {text or 'nothing'}."),))
        for row, text in zip(rows, said, strict=True)
    ]


def workspace(place: Path) -> Workspace:
    """Twelve scenes, merged."""
    example_run.data(place, 12)
    made = Workspace.at(str(place / "workspace"))
    info = SourceInfo("w", "hand", "CC0", "", str(place))
    for table in (made.records("w"), made.groundingcap()):
        part = table.write_part(0, "k", to_batch(records()))
        table.commit(Manifest("merge", "k", (part,), {"seconds": 0}, info=info.to_dict()))
    return made


def llm(folder: Path) -> str:
    """A tiny language model of these captions."""
    from detector.captions import tiny
    from detector.captions.start import texts_of

    tiny.write(folder, *texts_of(records()), tiny.TinySettings(layers=2, hidden=32, vocabulary=300, steps=2, batch=2))
    return str(folder)


def settings(steps: int, **changes: Any) -> dict[str, Any]:
    """Of training, as values."""
    return asdict(example_run.settings(steps, batch_size=4, log_records=True, **changes))


def captions(folder: str) -> dict[str, Any]:
    """Of caption losses with the language model of a folder, as values."""
    small = {"levels": [-1], "grids": [4], "lora_rank": 4, "lora_alpha": 8.0, "look_layers": 1, "region_tokens": 120}
    return {"llm": folder, **small}


@dataclass(frozen=True)
class Run:
    """One run of training in a folder, by two processes."""

    workspace: str
    out: Path
    settings: dict[str, Any]
    captions: dict[str, Any] | None = None

    def start(self) -> subprocess.Popen[str]:
        """`llmdet-data train`, as it is typed."""
        section = {"workers": 2, "short_side": SIZE, "long_side": SIZE, "settings": self.settings}
        recipe = self.out.with_suffix(".yaml")
        recipe.write_text(json.dumps({"sources": {}, "train": {**section, "captions": self.captions}}))
        words = ["train", "--cpu", "--recipe", str(recipe), "--workspace", self.workspace, "--out", str(self.out)]
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def pair(self, dies: int = 0) -> list[int | None]:
        """The two processes alone. The second one kills itself after step `dies`; exit codes."""
        self.out.mkdir(exist_ok=True)
        (self.out / "group").unlink(missing_ok=True)
        fresh = multiprocessing.get_context("forkserver")  # torch is imported once for all of them
        fresh.set_forkserver_preload(["detector.train", "pipelines.settings"])
        both = [fresh.Process(target=member, args=(self, rank, dies)) for rank in range(2)]
        for process in both:
            process.start()
        both[1].join()
        if dies:
            both[0].kill()
        both[0].join()
        return [process.exitcode for process in both]

    def log(self) -> list[dict[str, Any]]:
        """What is in train.jsonl so far, half lines left out."""
        path = self.out / "train.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for(self, driver: subprocess.Popen[str], step: int) -> bool:
        """Until a step is done; False where the run ended before."""
        before = len(self.log())
        while driver.poll() is None:
            if any(entry["step"] >= step for entry in self.log()[before:]):
                return True
            time.sleep(0.02)
        return False

    def shown(self) -> dict[int, dict[int, list[str]]]:
        """Rank -> step -> its records. A step that was run twice must have had the same ones."""
        found: dict[int, dict[int, list[str]]] = {}
        for rank in range(2):
            steps = found.setdefault(rank, {})
            for line in (self.out / f"records-{rank}.jsonl").read_bytes().split(b"\n")[:-1]:
                entry = json.loads(line)
                assert steps.setdefault(entry["step"], entry["records"]) == entry["records"]
        return found

    def files(self) -> dict[str, bytes]:
        """Weights and state of the optimizer at the end."""
        names = ["model.safetensors", *(["captions.safetensors"] if self.captions else [])]
        last = f"step-{self.settings['steps']:06d}/training/optimizer.safetensors"
        return {name: (self.out / name).read_bytes() for name in (*names, last)}


def workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The training processes of a driver."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def member(run: Run, rank: int, dies: int) -> None:
    """One of two bare processes."""
    import torch
    import torch.distributed as dist

    from detector.config import ModelSettings, TrainSettings
    from detector.data import TrainData
    from detector.train import StepReport, train
    from pipelines.settings import build

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{run.out}/group", rank=rank, world_size=2)

    def on_step(report: StepReport) -> None:
        if rank and report.step == dies:
            os.kill(os.getpid(), signal.SIGKILL)

    where = Workspace.at(run.workspace)
    place = where.records("w").require("made by the test").info["images"]
    data = TrainData(where.groundingcap().url, {"w": place})
    settings = build(TrainSettings, {**run.settings, "captions": run.captions}, "settings")
    train(settings, ModelSettings(short_side=SIZE, long_side=SIZE), data, run.out, on_step)
    dist.destroy_process_group()
