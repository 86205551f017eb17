"""Evaluation with a tiny detector: results, pages, and going on after a kill."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from detector import checkpoint
from detector.config import quickstart_model
from llmdet import files
from llmdet.world import write_world
from pipelines import detect
from pipelines import evaluate as evaluating
from pipelines.evaluate import EvaluateOutcome, EvaluationSet, evaluate, score
from pipelines.scoring import Rules
from tests.pipelines.test_ground_kills import kill_after, start

pytest.importorskip("faster_coco_eval")
SCENES, MANY = 6, 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    checkpoint.write_model(folder, checkpoint.start(quickstart_model(), 0))
    return str(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, SCENES, 0)
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is done in this process, without Ray."""
    monkeypatch.setattr(detect, "run_parts", lambda items, work, **options: [work(item) for item in items])
    monkeypatch.setattr(evaluating, "cluster", lambda *writes, **options: contextlib.nullcontext())


def lvis_of(world: Path, to: Path) -> str:
    """The world as LVIS: categories that are searched everywhere, photos by their address."""
    truth = json.loads((world / "annotations.json").read_text())
    ids = [row["id"] for row in truth["categories"]]
    for row in truth["images"]:
        row["coco_url"] = f"http://images.cocodataset.org/images/{row.pop('file_name')}"
        row |= {"neg_category_ids": ids, "not_exhaustive_category_ids": []}
    for number, row in enumerate(truth["categories"]):
        row["frequency"] = "rcf"[number % 3]
    to.write_text(json.dumps(truth))
    return str(to)


def refcoco_of(world: Path, to: Path) -> str:
    truth = json.loads((world / "annotations.json").read_text())
    names = {row["id"]: row["name"] for row in truth["categories"]}
    photos = {row["id"]: row for row in truth["images"]}
    images, boxes = [], []
    for number, row in enumerate(truth["annotations"][:6]):
        caption = f"the {names[row['category_id']]} on the left"
        images.append({**photos[row["image_id"]], "id": number, "caption": caption, "dataset_name": "refcoco+"})
        boxes.append({"id": number, "image_id": number, "bbox": row["bbox"]})
    to.write_text(json.dumps({"images": images, "annotations": boxes}))
    return str(to)


def test_sets_of_several_tasks_are_asked_and_their_result_files_score_the_same(
    here: None, model: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lvis, refcoco = lvis_of(world, tmp_path / "lvis.json"), refcoco_of(world, tmp_path / "ref.json")
    photos = str(world / "images")
    sets = [
        EvaluationSet(task="coco", annotations=str(world / "annotations.json"), images=photos, top_k=20),
        EvaluationSet(
            task="lvis-fixed", annotations=lvis, images=str(world), names_per_prompt=10, top_k=9, per_category=30
        ),
        EvaluationSet(task="refcoco", annotations=refcoco, images=photos, protocol="mm_grounding_dino"),
    ]
    found = evaluate(sets, model, "out", workers=1)  # actors stand elsewhere
    for one, outcome in zip(sets, found, strict=True):
        assert outcome.missing == {}
        again = score(one.annotations, outcome.detections, rules=Rules.of(one))
        assert again.metrics == outcome.metrics
        assert again.classes == outcome.classes
        written = json.loads((tmp_path / "out" / f"{one.task}_metrics.json").read_text())
        assert written["protocol"] == outcome.protocol
    assert [outcome.images for outcome in found] == [
        SCENES,
        SCENES,
        len({row["file_name"] for row in _images(refcoco)}),
    ]
    protocol = found[1].protocol
    assert (protocol["names_per_prompt"], protocol["top_k"], protocol["top_k_per"]) == (10, 9, "chunk")
    assert protocol["prompts"] == -(-protocol["names"] // 10)
    assert protocol["limit_per_category"] == 30
    assert (protocol["short_side"], protocol["long_side"]) == (128, 128)
    rows = json.loads(Path(found[2].detections).read_text())
    assert len(rows) == 6 * 30
    assert "AP" in found[1].metrics
    page = (tmp_path / "out" / "lvis-fixed.html").read_text()
    assert "Most confident false positives" in page
    assert page.count("data:image/jpeg;base64,") > 10


def _images(file: str) -> list[dict[str, Any]]:
    return list(json.loads(Path(file).read_text())["images"])


def test_a_page_runs_nothing_and_shows_data_as_text(tmp_path: Path) -> None:
    name = '<img src=x onerror="alert(1)">'
    truth = {
        "images": [{"id": 1, "width": 64, "height": 48, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 20]}],
        "categories": [{"id": 1, "name": name}],
    }
    Image.new("RGB", (64, 48), (90, 120, 60)).save(tmp_path / "a.png")
    rows = [{"image_id": 1, "category_id": 1, "bbox": [40, 20, 20, 20], "score": 0.75}]
    for file, value in (("truth.json", truth), ("rows.json", rows)):
        (tmp_path / file).write_bytes(orjson.dumps(value))
    address, given = str(tmp_path / "truth.json"), str(tmp_path / "rows.json")
    outcome = score(address, given, images=str(tmp_path), out=str(tmp_path / "out"))
    page = Path(outcome.page).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt; 0.75, image 1" in page
    assert page.count("data:image/jpeg;base64,") == 4  # one false box and one missed, each with two pictures
    (style,) = re.findall("<style>(.*?)</style>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src &#x27;none&#x27;; img-src data:; style-src &#x27;sha256-{digest}&#x27;" in page
    plain = Path(score(address, given, out=str(tmp_path / "plain")).page).read_text()
    assert "data:image/jpeg" not in plain
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt; 0.75, image 1" in plain


def test_figures_of_a_set_without_its_photos_are_no_success() -> None:
    few = EvaluateOutcome("mine", {}, missing={"7": "image_missing: a.jpg"}, images=20)
    assert few.too_many_missing(0.05) == ""
    assert few.too_many_missing(0.04) == (
        "evaluate mine: 1 of 20 photos could not be used (image 7: image_missing: a.jpg)"
    )
    assert EvaluateOutcome("mine", {}).too_many_missing(0.05) == ""  # a result file has no photos


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_another_protocol_starts_anew(here: None, model: str, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world", MANY, 0).parent
    truth, photos, out = str(world / "annotations.json"), str(world / "images"), tmp_path / "broken"
    one = EvaluationSet(annotations=truth, images=photos, batch_size=1)
    parts = out / "coco_parts"
    words = ("evaluate", "--annotations", truth, "--images", photos, "--checkpoint", model, "--cpu")
    process = start(tmp_path, *words, "--workers", "1", "--batch-size", "1", "--out", "broken")
    while not (folders := [*parts.glob("[0-9a-f]" * 16)]) and process.poll() is None:
        time.sleep(0.05)
    assert kill_after(process, folders[0], 5) >= 5
    kept = {path.name: path.stat().st_mtime_ns for path in folders[0].glob("part-*.parquet")}
    assert len(kept) < MANY
    assert not files.exists(str(out / "coco_metrics.json"))
    evaluate([one], model, str(out), workers=1)
    times = {path.name: path.stat().st_mtime_ns for path in folders[0].glob("part-*.parquet")}
    assert len(times) == MANY
    assert {name: times[name] for name in kept} == kept  # no photo was asked again
    evaluate([one], model, str(tmp_path / "unbroken"), workers=1)
    for name in ("coco_detections.json", "coco_metrics.json"):
        assert (out / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    evaluate([replace(one, threshold=0.5)], model, str(out), workers=1)
    assert len([*parts.glob("[0-9a-f]" * 16)]) == 2
