"""ground: mistakes are one line; the command itself is run by docs/ground.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cli.coco_folder import write_coco
from tests.cli.conftest import Made, Typed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "--source says whose records get boxes"),
        (("--source", "coco"), "no detector in"),
        (("--source", "coco", "--checkpoint", "."), "no model in"),
        (("--source", "coco", "--checkpoint", ".", "--set", "min_scor=1"), "did you mean min_score?"),
        (("--source", "coco", "--checkpoint", ".", "--set", "min_score=2"), "min_score must be from 0 to 1; got 2"),
        (("--source", "coco", "--checkpoint", ".", "--set", "caption=lmms"), "caption"),
        (("--source", "none", "--checkpoint", "."), "run: llmdet-data ingest --source none"),
        (("--source", "coco", "--recipe", "quickstart"), "quickstart has no ground section"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(
    typed: Typed, made: Made, here: Path, words: tuple[str, ...], expected: str
) -> None:
    pytest.importorskip("transformers")
    done = typed("ground", "--cpu", *words, "--workspace", made.workspace)
    assert done.code == 1
    assert expected in done.error


def test_records_with_boxes_stay_as_they_are(
    typed_with_ray: Typed, made: Made, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("pipelines.ground.model_key", lambda checkpoint: checkpoint)
    monkeypatch.setattr("pipelines.ground.run_parts", lambda items, work, **_: [work(item) for item in items])
    photos = ("--annotations", made.annotations, "--images", made.images)
    assert typed_with_ray("ingest", "--source", "coco", *photos, "--workspace", "w").code == 0
    done = typed_with_ray("ground", "--source", "coco", "--checkpoint", "hub/id", "--cpu", "--workspace", "w", "--json")
    assert done.code == 0, done.err
    said = {key: done.json[key] for key in ("command", "checkpoint", "records", "rejects", "faults")}
    assert said["command"] == "ground"
    assert said["checkpoint"] == "hub/id"
    assert (said["records"], said["rejects"], said["faults"]) == (4, {}, {})


def test_a_dry_run_says_what_it_cannot_count(typed: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco")
    recipe = {
        "sources": {"coco": {"annotations": annotations, "images": images}},
        "ground": {"sources": ["coco"], "checkpoint": "hub/id"},
    }
    (here / "mine.yaml").write_text(yaml.safe_dump(recipe))
    done = typed("run", "mine.yaml", "--dry-run")
    assert done.code == 0, done.err
    assert "note: the boxes of coco come from ground, so questions about them are not counted yet" in done.err
