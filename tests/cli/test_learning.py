"""train, evaluate and predict as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.coco_folder import write_coco
from tests.cli.conftest import Made, Typed

pytest.importorskip("faster_coco_eval")

SCORE = """
import sys
from cli.main import main
sys.argv = ["llmdet-data", *sys.argv[1:]]
try:
    main()
finally:
    print(sorted({"torch", "ray", "transformers"} & set(sys.modules)), file=sys.stderr)
"""


def truth_as_detections(annotations: str) -> list[dict[str, Any]]:
    """Every box that is not a crowd, found with full confidence."""
    rows = json.loads(Path(annotations).read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: row[key] for key in keys}, "score": 1.0} for row in rows if not row["iscrowd"]]


def test_a_result_file_is_scored_without_torch(tmp_path: Path) -> None:
    annotations, _ = write_coco(tmp_path / "coco")
    found = tmp_path / "found.json"
    found.write_text(json.dumps(truth_as_detections(annotations)))
    words = ["evaluate", "--task", "coco", "--annotations", annotations, "--detections", str(found), "--json"]
    done = subprocess.run([sys.executable, "-c", SCORE, *words], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["metrics"]["AP"] == said["metrics"]["AP50"] == pytest.approx(1.0)
    assert said["classes"] == pytest.approx({"red square": 1.0, "blue disc": 1.0, "green bar": 1.0})
    assert done.stderr.splitlines()[-1] == "[]"


def test_people_read_the_figures_of_a_result_file(typed: Typed, here: Path) -> None:
    annotations, _ = write_coco(here / "coco")
    found = [row for row in truth_as_detections(annotations) if row["category_id"] == 3]
    (here / "found.json").write_text(json.dumps(found))
    done = typed("evaluate", "--annotations", annotations, "--detections", "found.json")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "AP     0.3333"  # one class of three, all of it


@pytest.mark.parametrize(
    ("detections", "expected"),
    [('{"boxes": []}', "found.json is not a COCO result file"), ("boxes", "found.json"), ('[{"score": 1}]', "")],
)
def test_a_file_that_holds_no_results_is_an_error(typed: Typed, here: Path, detections: str, expected: str) -> None:
    annotations, _ = write_coco(here / "coco")
    (here / "found.json").write_text(detections)
    done = typed("evaluate", "--annotations", annotations, "--detections", "found.json")
    assert done.code == 1
    assert expected in done.error


def test_evaluate_needs_photos_or_detections(typed: Typed, here: Path) -> None:
    annotations, _ = write_coco(here / "coco")
    assert "--images" in typed("evaluate", "--annotations", annotations, "--checkpoint", ".").error
    gone = typed("evaluate", "--annotations", annotations, "--checkpoint", ".", "--images", "gone")
    assert gone.error == "no image folder at gone"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train",), "run: llmdet-data merge"),
        (("train", "--recipe", "nothing"), "no recipe at nothing"),
        (("train", "--set", "settings.leraning_rate=1"), "did you mean learning_rate?"),
        (("train", "--cpu", "--set", "worker=2"), "there is no setting worker"),
        (("predict", "a.jpg", "--text", "dog"), "no detector in"),
        (("predict", "a.jpg", "--text", " . ", "--checkpoint", "."), "the text names nothing to look for"),
        (("predict", "a.jpg", "--text", "dog", "--checkpoint", "."), "no model in"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(
    typed: Typed, made: Made, here: Path, words: tuple[str, ...], expected: str
) -> None:
    pytest.importorskip("transformers")
    workspace = made.workspace if "--set" in words else "none"
    done = typed(*words, "--workspace", workspace)
    assert done.code == 1
    assert expected in done.error


def test_train_evaluate_and_predict(typed_with_ray: Typed, made: Made, here: Path) -> None:
    pytest.importorskip("transformers")
    small = ("--set", "short_side=64", "--set", "long_side=96", "--set", "settings.batch_size=2")
    trained = typed_with_ray(
        "train", "--cpu", *small, "--steps", "2", "--out", "out", "--workspace", made.workspace, "--json"
    )
    assert trained.code == 0, trained.err
    assert (trained.json["checkpoint"], trained.json["steps"], len(trained.json["losses"])) == (str(here / "out"), 2, 2)
    truth = ("--annotations", made.annotations, "--images", made.images)
    measured = typed_with_ray("evaluate", *truth, "--checkpoint", "out", "--cpu", "--json")
    assert measured.code == 0, measured.err
    assert 0 <= measured.json["metrics"]["AP50"] <= 1
    assert measured.json["detections"] == str(here / "out" / "evaluations" / "coco_detections.json")
    (here / "empty").mkdir()
    blind = typed_with_ray("evaluate", "--annotations", made.annotations, "--images", "empty", "-c", "out", "--cpu")
    assert (blind.code, blind.error.split(" (")[0]) == (3, "evaluate coco: 4 of 4 photos could not be used")
    looked = typed_with_ray(
        "predict",
        made.images,
        "--text",
        "red square . blue disc .",
        "--checkpoint",
        "out",
        "--threshold",
        "0",
        "--json",
    )
    assert looked.code == 0, looked.err
    first = looked.json["images"][0]
    assert len(first["boxes"]) == len(first["scores"]) == len(first["phrases"]) > 0
    assert set(first["phrases"]) <= {"red square", "blue disc"}
    assert first["drawn"] == str(here / "predictions" / "a.jpg")
    assert Path(first["drawn"]).is_file()


def test_a_detector_of_other_records_is_not_taken_for_one_of_these(
    typed_with_ray: Typed, made: Made, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are done, so going on with it would show the figures of records that are no longer there."""

    def launch(config: dict[str, Any], section: object) -> dict[str, Any]:
        (Path(config["out"]) / "step-000001").mkdir(exist_ok=True)
        return {"steps": 1, "first_step": 0, "losses": [], "seconds": 0.0}

    monkeypatch.setattr("pipelines.train._launch", launch)
    few = ("--annotations", made.annotations, "--images", made.images, "--limit", "2")
    train = ("train", "--cpu", "--out", "out")
    for words in (("ingest", "--source", "coco", *few), ("merge",), train, ("refine",), train):
        done = typed_with_ray(*words, "--workspace", "few")
        assert done.code == 0, done.err
    assert "note: coco changed after the last merge, which is used here; for the newest: merge" in done.err
    error = typed_with_ray(*train, "--workspace", made.workspace).error
    assert error.startswith(
        f"{here / 'out'} holds a detector that was trained with other records; choose another --out"
    )
    error = typed_with_ray(*train, "--set", "short_side=96", "--workspace", "few").error
    assert error.startswith(f"{here / 'out'} holds a detector that was trained with other model; ")


def test_predict_of_pictures_that_cannot_be_used_says_so_and_exits_3(
    typed: Typed, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("detector.predict.Detector.load", lambda folder, device, captions: None)
    done = typed("predict", "gone.jpg", "--text", "dog", "--checkpoint", ".", "--threshold", "0.3", "--json")
    assert (done.code, done.error) == (3, "none of the 1 pictures could be used")
    assert done.json["images"][0]["error"].startswith("image_missing: ")


def test_captions_are_switched_on_and_off(here: Path) -> None:
    from cli.learning import section_for

    assert section_for(None, False, None, []).captions is None
    on = section_for(None, False, "on", ["captions.lora_rank=4"]).captions
    assert on is not None
    assert (on["llm"], on["lora_rank"]) == ("tiny", 4)
    big = section_for(None, True, "on", []).captions
    assert big == {"llm": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"}
    (here / "own.yaml").write_text("sources: {}\ntrain: {captions: {llm: models/qwen}}\n")
    assert section_for("own.yaml", None, "on", []).captions == {"llm": "models/qwen"}
    assert section_for("own.yaml", None, "off", []).captions is False
    (here / "own.yaml").write_text("sources: {}\ntrain: {captions: on}\n")
    assert section_for("own.yaml", None, None, ["captions.lora_rank=4"]).captions == on
    assert section_for("own.yaml", None, "off", []).captions is False
