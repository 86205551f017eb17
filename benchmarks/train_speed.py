"""Steps of training per second and peak memory: ours, a plain transformers loop, and mmdet, in one run.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/train_speed.py --size tiny --steps 20 --rounds 3
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/train_speed.py --size swin-t --steps 1 --rounds 2 \\
        --mmdet .venv-mmdet/bin/python

Contenders, each a process of its own, one after another (A B C A B C ...), from the same weights, photos and boxes,
with the same precision, number of threads, clipping and fused AdamW:

- `plain`: MMGroundingDinoForObjectDetection with its own processor and loss, auxiliary losses on;
- `equal`: ours with the terms that `plain` has: every decoder layer and the encoder;
- `boxes`: ours with denoising queries as well (as many as mmdet makes);
- `all`: with the caption losses of the photos and of up to 16 boxes each too, through a random language model;
- `mmdet`: its GroundingDINO with denoising, where --mmdet names the Python of an environment that has it
  (`.ci/mmdet_env`); Swin-T only, from the same weights.

A step that warms up is not counted. Seconds of processor time are what the tables are about, where others use the
machine too; `wall_s` is the clock. `peak_mb` is the largest resident size of the process. One JSON line a process,
then one with medians and ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("dog", "red cup", "tall tree", "car", "young man")
CAPTION = "Two girls in yellow raincoats jump over a puddle on a paved road while a wooden fence runs behind them. " * 5
BOXES = 7  # of each photo
OURS = ("equal", "boxes", "all")
PHASES = ("data", "forward", "loss", "backward", "optimizer")
CLIP, RATE = 0.1, 1e-5


@dataclass(frozen=True)
class Scene:
    """What is trained on: a batch of photos of one size, each with the same seven boxes."""

    batch: int
    height: int
    width: int

    def photo(self) -> Any:
        """Noise, as a PIL image."""
        import numpy as np
        from PIL import Image

        noise = np.random.default_rng(0).integers(0, 256, (self.height, self.width, 3), dtype=np.uint8)
        return Image.fromarray(noise)

    def boxes(self) -> Any:
        """(N, 4) cxcywh in 0..1."""
        import numpy as np

        rng = np.random.default_rng(0)
        return np.concatenate([rng.uniform(0.3, 0.7, (BOXES, 2)), rng.uniform(0.1, 0.4, (BOXES, 2))], 1)

    def labels(self) -> list[int]:
        return [number % len(NAMES) for number in range(BOXES)]


SCENES = {"tiny": Scene(8, 128, 128), "swin-t": Scene(1, 480, 640), "swin-b": Scene(1, 480, 640)}


def main() -> None:
    """Run the command of the module's docstring, or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SCENES, default="tiny")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=20, help="steps of each process that count")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender")
    parser.add_argument("--contenders", nargs="+", choices=("plain", *OURS, "mmdet"))
    parser.add_argument("--mmdet", help="Python of an environment that has mmdet")
    parser.add_argument("--runner", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.runner:
        print(json.dumps(run(*args.runner, args)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), args)


def compare(folder: Path, args: argparse.Namespace) -> None:
    """Prepare weights, then one process after another."""
    names = list(args.contenders or ("plain", *OURS, "mmdet"))
    if "mmdet" in names and (not args.mmdet or args.size == "tiny"):
        names.remove("mmdet")
        why = "its MM-Grounding-DINO has no such size" if args.mmdet else "--mmdet names no Python that has it"
        print(f"mmdet is left out: {why}", file=sys.stderr)
    child([sys.executable], "prepare", folder, args)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            python = args.mmdet if name == "mmdet" else sys.executable
            answer = child([python], name, folder, args)
            print(json.dumps({"contender": name, **answer}), flush=True)
            found[name].append(answer)
    print(json.dumps(summary(found) | {"load": os.getloadavg()[0], "threads": os.environ.get("OMP_NUM_THREADS")}))


def child(command: Sequence[str], name: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The answer of a process."""
    options = ["--size", args.size, "--precision", args.precision, "--steps", str(args.steps)]
    line = [*command, str(HERE / "train_speed.py"), *options, "--runner", name, str(folder)]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the processes, and how many steps each makes while `plain` makes one."""
    middle = {
        name: {key: round(statistics.median(one[key] for one in answers), 4) for key in answers[0]}
        for name, answers in found.items()
    }
    plain = middle.get("plain", {}).get("step_cpu_s")
    ratios = {name: round(plain / one["step_cpu_s"], 3) for name, one in middle.items()} if plain else {}
    return {"medians": middle, "plain_over": ratios, "machine": platform.processor() or platform.machine()}


def run(name: str, folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """Be a process: what a step takes, phase by phase."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(0)
    place = Path(folder)
    if name == "prepare":
        prepare(place, args.size)
        return {}
    make: Callable[[Path, argparse.Namespace, Clock], Callable[[], None]] = {"plain": plain, "mmdet": mmdet}.get(
        name, lambda *rest: ours(name, *rest)
    )
    clock = Clock()
    step = make(place, args, clock)
    loaded = peak_mb()
    step()
    clock.forget()
    for _ in range(args.steps):
        step()
    return clock.medians() | {"loaded_mb": loaded, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """The largest resident size of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)  # Linux counts in KiB


class Clock:
    """Processor and wall time of phases."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.taken: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began, wall = time.process_time(), time.monotonic()
        yield
        self.taken.setdefault(phase, []).append(time.process_time() - began)
        self.wall.setdefault(phase, []).append(time.monotonic() - wall)

    def medians(self) -> dict[str, float]:
        """Seconds of the processor by phase and step, and of the clock; 0 for a phase that is part of another."""
        whole = [sum(one) for one in zip(*self.taken.values(), strict=True)]
        walls = [sum(one) for one in zip(*self.wall.values(), strict=True)]
        phases = {f"{name}_cpu_s": statistics.median(self.taken.get(name, [0.0])) for name in PHASES}
        return phases | {"step_cpu_s": statistics.median(whole), "wall_s": statistics.median(walls)}


def prepare(folder: Path, size: str) -> None:
    """The same weights for everyone, and a language model."""
    from detector import checkpoint
    from detector.config import ModelSettings
    from detector.pixels import Pixels
    from detector.weights import convert

    scene = SCENES[size]
    parts = checkpoint.start(ModelSettings(start=size), seed=0)
    parts = replace(parts, pixels=Pixels(min(scene.height, scene.width), max(scene.height, scene.width)))
    (folder / "model").mkdir()
    checkpoint.write_model(folder / "model", parts)
    write_llm(folder / "llm", *((128, 4, 1024) if size == "tiny" else (256, 8, 32000)))
    if size != "tiny":
        convert.to_mmdet(folder / "model", folder / "mmdet")
        parts.model.model.text_backbone.save_pretrained(folder / "bert")
        parts.tokenizer.save_pretrained(folder / "bert")


def write_llm(folder: Path, hidden: int, layers: int, vocabulary: int) -> None:
    """A Qwen2 of random weights with a tokenizer that knows the texts."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from detector.captions.tiny import make_tokenizer

    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=max(hidden // 64, 2),
        num_key_value_heads=2, intermediate_size=hidden * 38 // 7, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    make_tokenizer([CAPTION, *NAMES], 1000).save_pretrained(folder)


def ours(name: str, folder: Path, args: argparse.Namespace, clock: Clock) -> Callable[[], None]:
    """A step of this package's training."""
    import torch

    from detector import checkpoint
    from detector.captions import start as captions
    from detector.config import CaptionSettings, TrainSettings, tiny_captions
    from detector.criterion import criterion

    scene = SCENES[args.size]
    parts = checkpoint.read(folder / "model")
    net = parts.model.train()
    heads = None
    if name == "all":
        spoken = tiny_captions() if args.size == "tiny" else CaptionSettings(lora_rank=16, recompute=False)
        spoken = replace(spoken, llm=str(folder / "llm"))
        heads = captions.start(spoken, net.config, (), folder, 0, torch.device("cpu"))
    parts = replace(parts, captions=heads)
    groups = 0 if name == "equal" else max(100 // (2 * BOXES), 1)
    settings = TrainSettings(batch_size=scene.batch)
    settings = replace(settings, denoising=replace(settings.denoising, groups=groups))
    weights = list(parts.named_parameters().values())
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=1e-4, fused=True)
    photos = [scene.photo()] * scene.batch

    def step() -> None:
        with clock("data"):
            batch = collated(parts, scene, photos, settings)
        with clock("forward"), autocast(args):
            out = net(batch.pixel_values, batch.pixel_mask, batch.input_ids, batch.attention_mask, noise=batch.noise)
        with clock("loss"):
            positives = float(sum(batch.targets.counts))
            loss = criterion(out.matched, out.denoised, batch.noise, batch.targets, settings.criterion, positives)
            if heads is not None:
                with autocast(args):
                    loss = loss.plus(heads(out.features, loss.match_BQ, batch.words))
        learn(loss.total, weights, optimizer, clock)

    return step


def collated(parts: Any, scene: Scene, photos: Sequence[Any], settings: Any) -> Any:
    """A batch as the loader of training makes it of photos that are open."""
    import numpy as np

    from detector import text
    from detector.data import Collate, Sample
    from detector.words import Words

    samples = []
    for number, photo in enumerate(photos):
        encoded = text.encode(parts.tokenizer, text.from_names(NAMES), parts.model.config.max_text_len)
        labels = scene.labels()
        words = Words(CAPTION, tuple(f"{NAMES[label].capitalize()}." for label in labels), (0, number))
        boxes, tokens = scene.boxes().astype(np.float32), encoded.tokens[labels]
        samples.append(Sample("", parts.pixels(photo), encoded.ids, boxes, tokens, (0, number), words))
    return Collate(settings, parts.model.config.num_queries)(samples)


def plain(folder: Path, args: argparse.Namespace, clock: Clock) -> Callable[[], None]:
    """A step of a loop that has nothing but transformers."""
    import torch
    from transformers import AutoProcessor, MMGroundingDinoForObjectDetection

    scene = SCENES[args.size]
    net = MMGroundingDinoForObjectDetection.from_pretrained(folder / "model").train()
    processor = AutoProcessor.from_pretrained(folder / "model")
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-4, fused=True)
    photos = [scene.photo()] * scene.batch
    prompt = " ".join(f"{name}." for name in NAMES)

    def step() -> None:
        with clock("data"):
            inputs = processor(images=photos, text=[prompt] * scene.batch, return_tensors="pt")
            target = {"class_labels": torch.tensor(scene.labels()), "boxes": torch.tensor(scene.boxes()).float()}
        with clock("forward"), autocast(args):
            loss = net(**inputs, labels=[target] * scene.batch).loss
        learn(loss, list(net.parameters()), optimizer, clock)

    return step


def mmdet(folder: Path, args: argparse.Namespace, clock: Clock) -> Callable[[], None]:
    """A step of mmdet's GroundingDINO."""
    sys.path.insert(0, str(HERE.parent / "tests" / "consumers"))
    import mmdet_shims

    mmdet_shims.put_in_place()
    import mmdet
    import torch
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    configs = Path(mmdet.__file__).parent / ".mim/configs/mm_grounding_dino"
    model = Config.fromfile(configs / "grounding_dino_swin-t_pretrain_obj365.py").model
    model.language_model.name = str(folder / "bert")
    model.backbone.update(init_cfg=None, with_cp=False)
    model.encoder.num_cp = 0
    detector = MODELS.build(model).train()
    detector.init_weights()
    stored = torch.load(folder / "mmdet" / "mmdet.pth", weights_only=True)["state_dict"]
    detector.load_state_dict(stored, strict=False)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=RATE, weight_decay=1e-4, fused=True)
    scene = SCENES[args.size]
    photo = torch.tensor(list(scene.photo().tobytes()), dtype=torch.uint8).view(scene.height, scene.width, 3)

    def step() -> None:
        with clock("data"):
            samples = {"inputs": [photo.permute(2, 0, 1)] * scene.batch, "data_samples": mmdet_samples(scene)}
            batch = detector.data_preprocessor(samples, training=True)
        with clock("forward"), autocast(args):
            loss, _ = detector.parse_losses(detector(**batch, mode="loss"))
        learn(loss, list(detector.parameters()), optimizer, clock)

    return step


def mmdet_samples(scene: Scene) -> list[Any]:
    """The scene's boxes and text in mmdet's classes."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    size = torch.tensor([scene.width, scene.height] * 2)
    boxes = torch.tensor(scene.boxes()).float() * size
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    text, spans = "", {}
    for number, name in enumerate(NAMES):
        spans[number] = [[len(text), len(text) + len(name)]]
        text += f"{name}. "
    shape = (scene.height, scene.width)
    sample = DetDataSample(metainfo={"img_shape": shape, "ori_shape": shape, "text": text.strip()})
    sample.set_metainfo({"tokens_positive": spans})
    sample.gt_instances = InstanceData(bboxes=corners, labels=torch.tensor(scene.labels()))
    return [sample] * scene.batch


def autocast(args: argparse.Namespace) -> Any:
    """bfloat16 where it is asked for."""
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bf16")


def learn(loss: Any, weights: Sequence[Any], optimizer: Any, clock: Clock) -> None:
    """Backward pass, clipping and update."""
    import torch

    with clock("backward"):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
    with clock("optimizer"):
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()


if __name__ == "__main__":
    main()
