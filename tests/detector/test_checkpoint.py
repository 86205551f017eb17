"""Checkpoints: plain transformers opens them, and nothing in them is a pickle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector import checkpoint
from detector.config import quickstart_model
from detector.predict import Detector
from llmdet.errors import FormatError, MissingError

NAMES = ["red square", "blue star", "dog"]

# Runs far from this project: only transformers and what it needs.
PLAIN = """
import json, sys, torch
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
folder, photo = sys.argv[1:]
model = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)
inputs = processor(images=Image.open(photo), text="red square. blue star. dog.", return_tensors="pt")
with torch.no_grad():
    out = model(**inputs)
mine = [name for name in sys.modules if name.split(".")[0] in ("llmdet", "detector", "pipelines", "cli")]
print(json.dumps({"boxes": out.pred_boxes[0].tolist(), "logits": out.logits[0, :, :10].tolist(), "mine": mine,
                  "ids": inputs["input_ids"][0].tolist(), "kind": type(model).__name__}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    parts = checkpoint.start(quickstart_model(), seed=0)
    with torch.no_grad():
        for head in parts.model.bbox_embed:
            torch.nn.init.normal_(head.layers[-1].weight, std=0.2)
    place = tmp_path_factory.mktemp("model")
    checkpoint.write_model(place, parts)
    return place


def test_a_process_that_never_saw_this_project_gets_the_same_boxes(folder: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo)
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, str(folder), str(photo)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    plain = json.loads(answer.stdout)
    assert plain["mine"] == []
    assert plain["kind"] == "MMGroundingDinoForObjectDetection"

    found = Detector.load(folder, device="cpu").detect([Image.fromarray(pixels)], NAMES, top_k=30 * 3)[0]
    logits = torch.tensor(plain["logits"]).sigmoid().numpy()
    tokens = {"red square": [1, 2], "blue star": [4, 5], "dog": [7]}
    for label, name in enumerate(NAMES):
        scores = logits[:, tokens[name]].mean(1)
        order = np.argsort(-scores, kind="stable")
        x, y, w, h = np.array(plain["boxes"])[order].T
        expected = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1).clip(0, 1)
        mine = found.labels == label
        assert np.sort(found.scores[mine])[::-1] == pytest.approx(scores[order], abs=1e-5)
        assert found.boxes[mine] / [200, 150, 200, 150] == pytest.approx(expected, abs=1e-5)


def test_a_folder_holds_safetensors_and_json_only(folder: Path) -> None:
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".txt"}
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["MMGroundingDinoForObjectDetection"]


def test_reading_back_gives_the_same_weights_and_pixels(folder: Path) -> None:
    first = checkpoint.read(folder)
    checkpoint.write_model(folder / "again", first)
    second = checkpoint.read(folder / "again")
    assert first.pixels == second.pixels == checkpoint.start(quickstart_model(), 0).pixels
    for (name, a), (_, b) in zip(first.model.state_dict().items(), second.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_folders_without_a_model_or_with_another_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"neither config\.json nor a step-"):
        checkpoint.read(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(FormatError, match="model of type bert"):
        checkpoint.read(tmp_path)


def copy(folder: Path, place: Path) -> Path:
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("again"))
    return place


def test_a_cut_file_of_weights_is_an_error_of_one_line(folder: Path, tmp_path: Path) -> None:
    broken = copy(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(FormatError, match="holds no whole model"):
        checkpoint.read(broken)


@pytest.mark.parametrize("pattern", ["model.safetensors", "preprocessor_config.json", "tokenizer*"])
def test_a_model_folder_that_lacks_a_file_is_refused(folder: Path, tmp_path: Path, pattern: str) -> None:
    broken = copy(folder, tmp_path / "broken")
    for path in (*broken.glob(pattern), *(broken.glob("processor_config.json") if "pre" in pattern else ())):
        path.unlink()
    with pytest.raises(FormatError, match="broken holds no"):
        checkpoint.read(broken)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("step-1000000", "step-999999", "step-000005", "step-copy"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-000005", "step-999999", "step-1000000"]
