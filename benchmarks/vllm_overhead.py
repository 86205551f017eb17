"""What our pipeline around vLLM costs: beside a bare loop of `LLM.chat`, and beside Ray Data's own LLM processor.

    python benchmarks/vllm_overhead.py [--images 175] [--max-seqs 64] [--model FOLDER]

Every peer answers the same questions in a process of its own, one after the other: eight about each 448 x 448 photo
(one about the whole, seven about a box), 16 tokens each, greedily. Starting and warming up the engine is not counted:
- bare: from the first photo opened to the last answer, in one call per 64 photos;
- ours: from the moment the engine is warm to the end of `caption`, ledger written;
- ray.data.llm: from the answers to a first batch, for which all other rows wait, to its last answer. Its stages before
  the engine would otherwise do all their work while the engine starts.
Without --model a tiny Qwen2-VL with random weights is made, so that what is left is mostly everybody's own work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from llmdet.record import Box, Record, Region, to_batch
from llmdet.workspace import Manifest, Workspace
from pipelines.answers import requests_of
from pipelines.caption import caption
from pipelines.cluster import cluster
from pipelines.engines.engine import Answerer, Job, Request
from pipelines.engines.lmm import Sampling
from pipelines.engines.vllm import VllmEngine
from pipelines.ledger import Ledger

SIDE, BOXES, TOKENS = 448, 7, 16
PHOTOS_PER_CALL = 64
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
# Ray starts its workers with low priority: on a busy machine that would be measured, not the pipeline.
os.environ.update(ENVIRONMENT, HF_HUB_OFFLINE="1", RAY_worker_niceness="0")


@dataclass(frozen=True, kw_only=True)
class TimedEngine(VllmEngine):
    """Writes down when it is warm."""

    ready: str = ""

    def start(self) -> Answerer:
        answerer = super().start()
        photo = f"{self.ready}.png"
        Image.effect_noise((SIDE, SIDE), 90).convert("RGB").save(photo)
        answerer.answer([_job(record(0), photo, self)])
        Path(self.ready).write_text(str(time.time()))
        return answerer


def engine_of(model: str, max_seqs: int, ready: str = "") -> TimedEngine:
    """The same settings for all peers."""
    cpu: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "block_size": 32}
    return TimedEngine(
        model=model,
        **({} if shutil.which("nvidia-smi") else cpu),
        max_model_len=2048,
        max_num_seqs=max_seqs,
        region_prompt="region-each",
        prompt_settings={"region-each": {"min_words": 1, "max_words": TOKENS // 4}},
        sampling=Sampling(temperature=0.0, max_tokens=TOKENS),
        environment=ENVIRONMENT,
        chunk_images=16,
        ready=ready,
    )


def record(number: int) -> Record:
    """One photo with its boxes."""
    boxes = tuple(Box((50.0 * i, 20.0, 50.0 * i + 80.0, 300.0), order=i) for i in range(BOXES))
    regions = (Region(("thing",), ((0, 5),), boxes),)
    name = str(number)
    return Record(
        f"hand/{name}/0", "hand", name, "0", "detection", f"{name}.jpg", "hand", SIDE, SIDE, "thing.", regions
    )


def _job(one: Record, photo: str, engine: VllmEngine) -> Job:
    prompts = engine.prompts()
    asked = [request for task in prompts for request in requests_of(one, prompts[task], Ledger(f"x/{task}-0"))]
    return Job(one, photo, tuple(asked))


def requests(engine: VllmEngine, number: int) -> tuple[Request, ...]:
    """The questions about one photo."""
    return _job(record(number), "", engine).requests


# --- the peers -----------------------------------------------------------------------------------------------------


def bare(folder: Path, engine: VllmEngine, images: int) -> float:
    """Seconds of `LLM.chat`."""
    from vllm import LLM, SamplingParams

    arguments = engine.arguments()
    llm = LLM(**{name: value for name, value in arguments.items() if value is not None})
    sampling = SamplingParams(temperature=0.0, max_tokens=TOKENS)

    def chat(photo: Path, numbers: list[int]) -> list[Any]:
        questions = []
        for number in numbers:
            with Image.open(photo if photo.is_file() else photo / f"{number}.jpg") as opened:
                picture = opened.convert("RGB")
            for request in requests(engine, number):
                parts = [{"type": "image_pil", "image_pil": picture}, {"type": "text", "text": request.ask.text}]
                questions.append([{"role": "user", "content": parts}])
        return llm.chat(questions, sampling, use_tqdm=False)

    warm = folder / "warm.png"
    Image.effect_noise((SIDE, SIDE), 91).convert("RGB").save(warm)
    chat(warm, [0])
    started = time.monotonic()
    answered = 0
    for first in range(0, images, PHOTOS_PER_CALL):
        answered += len(chat(folder / "photos", list(range(first, min(first + PHOTOS_PER_CALL, images)))))
    assert answered == images * (BOXES + 1)
    return time.monotonic() - started


def ours(folder: Path, engine: VllmEngine, images: int) -> float:
    """Seconds of `caption` after the engine was warm."""
    workspace = Workspace.at(str(folder / "workspace"))
    table = workspace.records("hand")
    part = table.write_part(0, "k", to_batch([record(number) for number in range(images)]))
    table.commit(Manifest("ingest", "k", (part,), {"seconds": 0}, info={"images": str(folder / "photos")}))
    with cluster():
        done = caption(workspace, "hand", engine)
        ended = time.time()
    assert done.answered == done.requests == images * (BOXES + 1), done
    assert isinstance(engine, TimedEngine)
    return ended - float(Path(engine.ready).read_text())


def ray_data_llm(folder: Path, engine: VllmEngine, images: int) -> float:
    """Seconds of ray.data.llm's processor after the engine was warm."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    arguments = engine.arguments()
    model = arguments.pop("model")
    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs={name: value for name, value in arguments.items() if value is not None},
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}]},
        concurrency=1,
        batch_size=PHOTOS_PER_CALL,
        runtime_env={"env_vars": ENVIRONMENT},
        prepare_multimodal_stage={"enabled": True, "model_config_kwargs": {"allowed_local_media_path": str(folder)}},
    )

    opened = folder / "opened"

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        while row["waits"] and not opened.exists():
            time.sleep(0.05)
        parts = [{"type": "image_url", "image_url": {"url": row["url"]}}, {"type": "text", "text": row["text"]}]
        sampling = {"temperature": 0.0, "max_tokens": TOKENS}
        return {"messages": [{"role": "user", "content": parts}], "sampling_params": sampling}

    def told(row: dict[str, Any]) -> dict[str, Any]:
        if not opened.exists():
            opened.write_text(str(time.time()))
        return {"text": row["generated_text"]}

    def rows(numbers: range, waits: bool) -> list[dict[str, Any]]:
        return [
            {"url": f"file://{folder}/photos/{number}.jpg", "text": request.ask.text, "waits": waits}
            for number in numbers
            for request in requests(engine, number)
        ]

    first, rest = rows(range(PHOTOS_PER_CALL // (BOXES + 1)), False), rows(range(images), True)
    # Its stages want a CPU each and wait for ever without.
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    processor = build_processor(config, preprocess=ask, postprocess=told)
    waiting = ray.data.from_items(rest, override_num_blocks=max(1, len(rest) // PHOTOS_PER_CALL))
    dataset = ray.data.from_items(first, override_num_blocks=1).union(waiting)
    answered = sum(1 for _ in processor(dataset).iter_rows())
    ended = time.time()
    assert answered == len(first) + len(rest)
    return ended - float(opened.read_text())


PEERS = {"bare": bare, "ours": ours, "ray.data.llm": ray_data_llm}


def main() -> None:
    """Compare, or be one of those that are compared."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=175)
    parser.add_argument("--max-seqs", type=int, default=64)
    parser.add_argument("--model", default="")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        folder = Path(given.folder)
        engine = engine_of(given.model, given.max_seqs, str(folder / "ready"))
        seconds = PEERS[given.only](folder, engine, given.images)
        print(json.dumps({"peer": given.only, "seconds": seconds}), flush=True)
        os._exit(0)  # engines and Ray take their time to end, and have nothing more to say
    with tempfile.TemporaryDirectory() as name:
        _compare(Path(name), given)


def _compare(folder: Path, given: argparse.Namespace) -> None:
    (folder / "photos").mkdir()
    for number in range(given.images):
        noise = Image.effect_noise((SIDE, SIDE), 40 + number % 60).convert("RGB")
        noise.save(folder / "photos" / f"{number}.jpg", quality=90)
    model = given.model
    if not model:
        from tests.pipelines.engines.tiny_vlm import write_tiny_vlm

        model = str(write_tiny_vlm(folder / "model"))
    found = {}
    for peer in given.peers.split(","):
        command = [sys.executable, __file__, "--only", peer, "--folder", str(folder), "--model", model]
        command += ["--images", str(given.images), "--max-seqs", str(given.max_seqs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"peer"')]
        if not lines:
            sys.exit(f"{peer} failed:\n{done.stderr[-3000:]}")
        found[peer] = given.images * (BOXES + 1) / json.loads(lines[-1])["seconds"]
        print(f"{peer}: {found[peer]:.1f} requests/s", flush=True)
    for peer in set(found) - {"ours"}:
        if "ours" in found:
            print(f"ours / {peer}: {found['ours'] / found[peer]:.2f}")


if __name__ == "__main__":
    main()
