"""Result files of each task, as the command line scores them."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detector.metrics.coco_o import DOMAINS
from llmdet.errors import FormatError, MissingError
from pipelines import scoring
from pipelines.evaluate import score
from pipelines.scoring import Rules
from tests.detector.metrics.federated import FIGURES, PER_CATEGORY, federated
from tests.detector.metrics.test_refcoco import LEFT, RIGHT, found, truth


def written(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


@pytest.fixture
def federated_files(tmp_path: Path) -> tuple[str, str]:
    """The third random set as two files."""
    annotations, rows = federated(3)
    return written(tmp_path / "truth.json", annotations), written(tmp_path / "rows.json", rows)


@pytest.mark.parametrize("stream", [False, True])
def test_lvis_and_fixed_ap_of_a_file_read_as_a_whole_or_in_pieces(
    federated_files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    if stream:
        monkeypatch.setattr(scoring, "_STREAM_BYTES", 0)
        monkeypatch.setattr(scoring, "_ROWS_AT_ONCE", 50)
    expected = json.loads(FIGURES.read_text())["sets"][3]
    standard = score(*federated_files, "minival", Rules(task="lvis"))
    assert standard.metrics == pytest.approx(expected["standard"], abs=1e-9)
    assert standard.name == "minival"
    assert len(standard.classes) == 14
    fixed = score(*federated_files, rules=Rules(task="lvis-fixed", top_k=PER_CATEGORY))
    assert fixed.metrics == pytest.approx(expected["fixed"], abs=1e-9)


def test_a_packed_result_file_is_read_like_a_plain_one(federated_files: tuple[str, str], tmp_path: Path) -> None:
    annotations, rows = federated_files
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(Path(rows).read_bytes()))
    rules = Rules(task="lvis-fixed")
    assert score(annotations, str(packed), rules=rules).metrics == score(annotations, rows, rules=rules).metrics


def test_refcoco_has_two_protocols(tmp_path: Path) -> None:
    annotations = written(tmp_path / "truth.json", truth(("bright dog", RIGHT)))
    rows = written(tmp_path / "rows.json", [found(0, LEFT, 0.6), found(0, RIGHT, 0.3)])
    for protocol, expected in (("llmdet", 1.0), ("mm_grounding_dino", 0.0)):
        rules = Rules(task="refcoco", protocol=protocol)  # type: ignore[arg-type]
        assert score(annotations, rows, rules=rules).metrics["refcoco_precision@1"] == expected


def test_flickr30k_takes_the_split_that_was_predicted(samples: Path) -> None:
    expected = json.loads((samples / "eval/flickr30k/val_expected.json").read_text())["recall"]
    rules = Rules(task="flickr30k")
    outcome = score(str(samples / "flickr30k"), str(samples / "eval/flickr30k/val_preds.json"), rules=rules)
    assert outcome.metrics == {
        f"{kind}/{rank}": value["all"] for kind, ranks in expected.items() for rank, value in ranks.items()
    }
    assert outcome.classes["merged_boxes/R@5/people"] == expected["merged_boxes"]["R@5"]["people"]


def test_files_of_another_task_are_refused(federated_files: tuple[str, str], tmp_path: Path) -> None:
    annotations, rows = federated_files
    plain = written(tmp_path / "list.json", [])
    with pytest.raises(FormatError, match="not RefCOCO ground truth"):
        score(plain, rows, rules=Rules(task="refcoco"))
    with pytest.raises(FormatError, match="not COCO ground truth"):
        score(plain, rows, rules=Rules(task="lvis"))
    with pytest.raises(FormatError, match="not a COCO result file"):
        score(annotations, annotations, rules=Rules(task="lvis"))
    coco = written(
        tmp_path / "coco.json",
        {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]},
    )
    with pytest.raises(FormatError, match="no LVIS ground truth"):
        score(coco, plain, rules=Rules(task="lvis"))


def test_the_command_scores_without_torch(federated_files: tuple[str, str]) -> None:
    annotations, rows = federated_files
    code = "import sys, cli.main\ntry: cli.main.main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    words = ["evaluate", "--task", "lvis-fixed", "--annotations", annotations, "--detections", rows]
    words += ["--top-k", str(PER_CATEGORY), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    expected = json.loads(FIGURES.read_text())["sets"][3]["fixed"]
    assert json.loads(done.stdout.splitlines()[-1])["metrics"] == pytest.approx(expected, abs=1e-9)
    assert done.stderr.splitlines()[-1] == "False"


def test_every_task_needs_photos_or_a_result_file(federated_files: tuple[str, str]) -> None:
    words = ["evaluate", "--task", "lvis", "--annotations", federated_files[0]]
    done = subprocess.run([sys.executable, "-m", "cli", *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: --images says where the photos are")


def test_sets_of_several_are_scored_from_a_folder(tmp_path: Path) -> None:
    image, category = {"id": 1, "width": 64, "height": 64}, {"id": 3, "name": "dog"}
    box = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [2, 2, 40, 40], "area": 1600, "iscrowd": 0}
    rows = [{"image_id": 1, "category_id": 3, "bbox": [2, 2, 40, 40], "score": 0.5}]
    rules = Rules(task="coco-o")
    for name in DOMAINS:
        folder = tmp_path / name / "annotations"
        folder.mkdir(parents=True)
        truth = {"images": [image], "annotations": [box], "categories": [category]}
        written(folder / "instances_val2017.json", truth)
        written(tmp_path / f"{name}.json", rows if name != "tattoo" else [])
    outcome = score(str(tmp_path), str(tmp_path), rules=rules)
    assert outcome.metrics["AP"] == pytest.approx(5 / 6)
    assert outcome.metrics["tattoo/AP"] == 0
    assert outcome.classes["sketch/dog"] == pytest.approx(1.0)
    (tmp_path / "sketch.json").unlink()
    with pytest.raises(MissingError, match="a result file for each set of coco-o"):
        score(str(tmp_path), str(tmp_path), rules=rules)
