"""Training on one GPU: images per second, share of the peak (MFU) and memory of every size, with and without captions.

    PYTHONPATH=.:benchmarks python benchmarks/gpu_training.py --out gpu
    PYTHONPATH=.:benchmarks python benchmarks/gpu_training.py --llm lmms-lab/llava-onevision-qwen2-0.5b-ov --out gpu
    PYTHONPATH=.:benchmarks python benchmarks/gpu_training.py --device cpu --sizes tiny --batches 1 --steps 1

Random weights of the real shapes; `--llm random` is a model of the shape of Qwen2-0.5B. Photos are as large as each
size sees them (800 x 1333, Swin-L 1000 x 1560), with seven boxes; bfloat16 on a GPU. A step is forward, losses (those
of denoising queries too, and of captions where they are on), backward, clipping and fused AdamW; photos are ready.

Each row is a process of its own; one that runs out of memory is a row that says so. Operations are those of matrix
products, convolutions and attention of one step, counted by PyTorch, what is made again in the backward pass included;
the peak is that of bfloat16 without sparsity (`--peak-tflops` for other GPUs). Writes gpu_training.md and .json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from train_speed import CLIP, RATE, Scene, collated, write_llm

SCENES = dict.fromkeys(("swin-t", "swin-b"), (800, 1333)) | {"swin-l": (1000, 1560), "tiny": (128, 128)}
PEAKS = {
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L20": 119.5,
    "L4": 121,
    "4090": 165,
    "3090": 71,
}  # TFLOP/s
COLUMNS = ("size", "batch", "captions", "images_per_s", "step_s", "mfu", "peak_gb", "note")


def main() -> None:
    """Run the command of the module's docstring, or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SCENES, default=["swin-t", "swin-b", "swin-l"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--llm", default="random", help="folder or hub id of a causal language model")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bfloat16")
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(json.loads(args.row), args)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            child({"size": size, "batch": batch, "captions": llm}, args)
            for size in args.sizes
            for llm in ("", language_model(args.llm, size, Path(folder)))
            for batch in args.batches
        ]
    write(rows, args)


def language_model(name: str, size: str, folder: Path) -> str:
    """Where the language model is; a random one is made."""
    place = folder / ("tiny" if size == "tiny" else "0.5b")
    if name == "random" and not place.exists():
        write_llm(place, *((128, 4, 1024) if size == "tiny" else (896, 24, 151_936)))
    return str(place) if name == "random" else name


def child(row: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """A row of the table, from a process of its own."""
    options = ["--device", args.device, "--steps", str(args.steps)]
    options += ["--peak-tflops", str(args.peak_tflops)] if args.peak_tflops else []
    command = [sys.executable, __file__, *options, "--row", json.dumps(row)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        answer = json.loads(done.stdout.splitlines()[-1])
    else:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        short = done.returncode == -9 or "OutOfMemoryError" in last or "can't allocate memory" in last
        answer = {"note": "out of memory" if short else last}
    whole: dict[str, Any] = row | {"captions": "on" if row["captions"] else "off"} | answer
    print(json.dumps(whole), flush=True)
    return whole


def measure(row: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Be a process: train for some steps, the first of which warms up and is counted in operations."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):
        """Operations of what runs, by PyTorch's own formulas."""

        total = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func._overloadpacket in flop_registry:
                self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
            return out

    step = prepare(row, torch.device(args.device))
    with Counter() as counter:
        step()
    step()
    began = now(args.device)
    for _ in range(args.steps):
        step()
    taken = (now(args.device) - began) / args.steps
    peak = args.peak_tflops or next((value for name, value in PEAKS.items() if name in hardware(args.device)), None)
    return {
        "images_per_s": round(row["batch"] / taken, 3),
        "step_s": round(taken, 3),
        "tflop": round(counter.total / 1e12, 3),
        "mfu": round(counter.total / taken / peak / 1e12, 4) if peak else None,
        "peak_gb": round(memory(args.device) / 1e9, 2),
    }


def prepare(row: dict[str, Any], device: Any) -> Any:
    """A step of training."""
    import torch

    from detector import checkpoint
    from detector.captions import start as captions
    from detector.config import CaptionSettings, ModelSettings, TrainSettings, tiny_captions
    from detector.criterion import criterion
    from detector.pixels import Pixels

    scene = Scene(row["batch"], *SCENES[row["size"]])
    parts = checkpoint.start(ModelSettings(start=row["size"]), seed=0)
    net = parts.model.to(device).train()
    parts = replace(parts, pixels=Pixels(scene.height, scene.width))
    if row["captions"]:
        spoken = tiny_captions() if row["size"] == "tiny" else CaptionSettings()
        heads = captions.start(replace(spoken, llm=row["captions"]), net.config, (), Path(), 0, device)
        parts = replace(parts, captions=heads)
    weights = list(parts.named_parameters().values())
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=1e-4, fused=True)
    settings = TrainSettings(batch_size=scene.batch)
    batch = collated(parts, scene, [scene.photo()] * scene.batch, settings).to(device)
    positives = float(sum(batch.targets.counts))

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = net(batch.pixel_values, batch.pixel_mask, batch.input_ids, batch.attention_mask, noise=batch.noise)
        loss = criterion(out.matched, out.denoised, batch.noise, batch.targets, settings.criterion, positives)
        if parts.captions is not None:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = loss.plus(parts.captions(out.features, loss.match_BQ, batch.words))
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()

    return step


def now(device: str) -> float:
    """Seconds, once the device has done what it was told."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize()
    return time.monotonic()


def memory(device: str) -> float:
    """Bytes at the peak: allocated on the GPU, or resident in memory."""
    import torch

    if device != "cpu":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0  # Linux counts in KiB


def hardware(device: str) -> str:
    """The name of the device."""
    import torch

    return "CPU" if device == "cpu" else torch.cuda.get_device_name()


def write(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """The table and the facts beside it."""
    import torch

    facts = {
        "hardware": hardware(args.device),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "llm": args.llm,
        "command": " ".join(sys.argv),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "gpu_training.json").write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")
    lines = [", ".join(f"{name}: {value}" for name, value in facts.items()), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in COLUMNS) + " |" for row in rows]
    (args.out / "gpu_training.md").write_text("\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


if __name__ == "__main__":
    main()
