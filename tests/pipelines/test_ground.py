"""ground: captions and a detector become records with pseudo boxes, in order, once, whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

import detector.looks
import pipelines.finding
import pipelines.ground
from detector import checkpoint
from detector.config import quickstart_model
from detector.looks import Look, Seen
from detector.predict import Detector
from llmdet.errors import MissingError, SettingError
from llmdet.exports.odvg import Odvg
from llmdet.phrases import Parser
from llmdet.pseudo import things_in
from llmdet.record import Box, Caption, Record, Region
from llmdet.rejects import Reject
from llmdet.sources.flickr30k import Flickr30k
from llmdet.sources.llava import Llava
from llmdet.workspace import Manifest, Table, Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.export import export
from pipelines.finding import Finder, GroundSettings
from pipelines.ground import ground, model_key
from pipelines.ingest import ingest
from pipelines.parts import Row
from tests.pipelines.fakes import INFO, Fake, record, told, write_records

LeftOut = Callable[[Table], list[Reject]]
TEXT = "A dog sits beside a red ball and a man."
ANY = GroundSettings(parser="pattern", min_score=0.0, min_boxes=1, part_rows=2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with an untrained detector."""
    folder = tmp_path_factory.mktemp("tiny")
    checkpoint.write_model(folder, checkpoint.start(quickstart_model(), 0))
    return str(folder)


def shown(number: int, text: str = TEXT, **changes: Any) -> Record:
    """A record of photo `number` that its source describes, without boxes."""
    captions = (Caption(text, text),) if text else ()
    return replace(
        record(number, boxes=0), kind="grounding", text="", captions=captions, width=64, height=48, **changes
    )


def photos(folder: Path, numbers: Sequence[int]) -> None:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")


def prepare(workspace: Workspace, records: Sequence[Record], folder: Path, part_rows: int = 3) -> None:
    """`records/hand/` with its photos in `folder`."""
    write_records(workspace, records, part_rows)
    manifest = workspace.records("hand").require("")
    workspace.records("hand").commit(replace(manifest, info={**INFO.to_dict(), "images": str(folder)}))


def rows(workspace: Workspace, source: str = "hand") -> list[Record]:
    return list(workspace.grounded(source).records())


# --- a detector that says what it is told to ---------------------------------------------------------------------

Scripted = dict[str, list[tuple[float, tuple[float, ...]]]]  # name -> (score, box)


@pytest.fixture
def scripted(local: None, monkeypatch: pytest.MonkeyPatch) -> tuple[Scripted, list[list[int]]]:
    """What the detector sees of each name, in this process; and the lengths of the prompts of each batch."""
    script: Scripted = {}
    batches: list[list[int]] = []
    parts = checkpoint.start(quickstart_model(), 0)

    def look(model: Detector, images: Sequence[Image.Image], looks: Sequence[Look]) -> list[Seen]:
        batches.append([len(one.ids) for one in looks])
        return [seen(one) for one in looks]

    def seen(one: Look) -> Seen:
        names = [str(parts.tokenizer.decode(one.ids[row])) for row in one.tokens]
        boxes = [(column, *found) for column, name in enumerate(names) for found in script.get(name, [])]
        scores = np.zeros((len(boxes), len(names)))
        for query, (column, score, _) in enumerate(boxes):
            scores[query, column] = score
        return Seen(scores, np.array([box for _, _, box in boxes], dtype=np.float64).reshape(-1, 4))

    monkeypatch.setattr(detector.looks, "look", look)
    monkeypatch.setattr(pipelines.finding, "_detector", lambda *_: Detector(parts))
    monkeypatch.setattr(pipelines.ground, "model_key", lambda name: name)
    monkeypatch.setattr(pipelines.ground, "run_parts", lambda items, work, **_: [work(item) for item in items])
    return script, batches


def test_boxes_that_stay_become_regions_of_the_caption(
    scripted: tuple[Scripted, list[list[int]]], workspace: Workspace, tmp_path: Path, left_out: LeftOut
) -> None:
    scripted[0].update(
        {
            "dog": [(0.8, (0, 0, 20, 20)), (0.7, (1, 0, 20, 20)), (0.2, (40, 0, 60, 20))],
            "red ball": [(0.5, (30, 30, 40, 40)), (0.6, (0, 0, 20, 19))],
            "man": [(0.4, (10, 0, 64, 48))],
        }
    )
    photos(tmp_path / "photos", [0])
    prepare(workspace, [shown(0)], tmp_path / "photos")
    assert ground(workspace, "hand", "m", GroundSettings(parser="pattern")).records == 1
    (made,) = rows(workspace)
    assert (made.kind, made.text, made.exhaustive) == ("grounding", TEXT, False)
    assert [(r.phrases, r.spans, [(b.xyxy, b.score, b.origin) for b in r.boxes]) for r in made.regions] == [
        (("A dog",), ((0, 5),), [((0, 0, 20, 20), 0.8, "pseudo")]),
        (("a red ball",), ((18, 28),), [((30, 30, 40, 40), 0.5, "pseudo")]),
        (("a man",), ((33, 38),), [((10, 0, 64, 48), 0.4, "pseudo")]),
    ]
    (lost,) = left_out(workspace.rejects("ground", "hand"))
    assert (lost.id, lost.level, lost.kind, lost.reason) == (
        "hand/0/0#red ball", "annotation", "policy", "box_conflict",
    )  # fmt: skip
    assert lost.detail == "score 0.6, dog has 0.8"


def test_names_as_text_hold_only_what_has_a_box_and_the_sentence_stays(
    scripted: tuple[Scripted, list[list[int]]], workspace: Workspace, tmp_path: Path
) -> None:
    scripted[0].update({"dog": [(0.8, (0, 0, 20, 20))], "man": [(0.4, (10, 0, 64, 48))]})
    photos(tmp_path / "photos", [0, 1])
    sentence = replace(shown(1, ""), text=TEXT)
    prepare(workspace, [shown(0), sentence], tmp_path / "photos")
    ground(workspace, "hand", "m", GroundSettings(parser="pattern", min_boxes=2, text="names", names_per_prompt=1))
    made = rows(workspace)
    assert [one.text for one in made] == ["dog. man. "] * 2
    assert [r.spans for r in made[0].regions] == [((0, 3),), ((5, 8),)]
    assert [[c.text for c in one.captions] for one in made] == [[TEXT]] * 2
    assert scripted[1] == [[4] * 4, [5] * 2]  # [CLS] dog . [SEP]; red ball has a token more


def test_everything_that_is_left_out_has_a_reason_and_the_order_stays(
    scripted: tuple[Scripted, list[list[int]]], workspace: Workspace, tmp_path: Path, left_out: LeftOut
) -> None:
    scripted[0]["dog"] = [(0.9, (0, 0, 20, 20)), (0.8, (30, 0, 50, 20)), (0.7, (0, 25, 20, 45))]
    photos(tmp_path / "photos", range(8))
    (tmp_path / "photos" / "2.jpg").unlink()
    Image.new("RGB", (48, 64)).save(tmp_path / "photos" / "3.jpg")
    boxed = replace(shown(6), text="dog", regions=(Region(("dog",), ((0, 3),), (Box((0, 0, 9, 9)),)),))
    every = [
        shown(0, "Three dogs and a dog."), shown(1, "A cat on a mat."), shown(2), shown(3), shown(4, ""),
        shown(5, "It is late."), boxed, shown(7, "The dog sleeps near a tree."),
    ]  # fmt: skip
    prepare(workspace, every, tmp_path / "photos")
    done = ground(workspace, "hand", "m", GroundSettings(parser="pattern", part_rows=2))
    assert [one.id for one in rows(workspace)] == ["hand/0/0", "hand/6/6", "hand/7/7"]
    assert rows(workspace)[1] == boxed
    assert told(left_out(workspace.rejects("ground", "hand"))) == [
        ("hand/1/1", "record", "policy", "too_few_boxes"),
        ("hand/2/2", "record", "fault", "image_missing"),
        ("hand/3/3", "record", "fault", "size_mismatch"),
        ("hand/4/4", "record", "policy", "no_caption"),
        ("hand/5/5", "record", "policy", "no_phrase"),
    ]
    assert done.faults == {"image_missing": 1, "size_mismatch": 1}
    ground(workspace, "hand", "m", GroundSettings(parser="pattern", boxed="replace"))
    assert rows(workspace)[1].boxes[0].origin == "pseudo"


def test_a_batch_has_prompts_of_one_length_on_photos_of_one_size(tmp_path: Path) -> None:
    model = Detector(checkpoint.start(quickstart_model(), 0))
    texts = ["A dog.", "A red ball.", "A man.", "A cup.", "A blue star."]
    sizes = [(64, 48), (64, 48), (48, 64), (64, 48), (64, 48)]
    asked = [
        (replace(shown(i), width=w, height=h), text, things_in(text, Parser("pattern")))
        for i, (text, (w, h)) in enumerate(zip(texts, sizes, strict=True))
    ]
    exact = Finder("m", "cpu", "", replace(ANY, batch_size=2))._batches(model, asked)
    assert [[number for number, _ in batch] for batch in exact] == [[0, 3], [2], [1, 4]]
    padded = Finder("m", "cpu", "", replace(ANY, same_size=False))._batches(model, asked)
    assert [[number for number, _ in batch] for batch in padded] == [[0, 3, 2], [1, 4]]


# --- a real, untrained detector ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_and_continued_gives_the_same_bytes(
    local: None, workspace: Workspace, tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "photos", range(6))
    runs = replace(ANY, part_rows=5)
    records = [shown(i, f"A dog and {'a red ' * (i % 2)}ball.") for i in range(6)]
    unbroken = Workspace.at(str(tmp_path / "unbroken"))
    for place in (unbroken, workspace):
        prepare(place, records, tmp_path / "photos", part_rows=5)
    whole = ground(unbroken, "hand", tiny, runs)  # in Ray's actors
    assert (whole.records, whole.skipped) == (6, False)

    def killed(items: list[Row], work: Callable[[Row], Row], **_: Any) -> list[Row]:
        work(items[1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipelines.ground, "run_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            ground(workspace, "hand", tiny, runs)
    (begun,) = workspace.grounded("hand").listing()
    before = os.stat(f"{workspace.grounded('hand').url}/{begun}").st_mtime_ns
    assert workspace.best_records("hand") == workspace.records("hand")
    with monkeypatch.context() as patch:
        patch.setattr(pipelines.ground, "run_parts", lambda items, work, **_: [work(item) for item in items])
        assert ground(workspace, "hand", tiny, runs).records == 6
    assert os.stat(f"{workspace.grounded('hand').url}/{begun}").st_mtime_ns == before
    made = [place.grounded("hand").require("").parts for place in (unbroken, workspace)]
    assert made[0] == made[1]  # names, rows and hashes
    assert [part.rows for part in made[0]] == [5, 1]
    assert [one.id for one in rows(workspace)] == [f"hand/{i}/{i}" for i in range(6)]
    assert ground(workspace, "hand", tiny, runs).skipped


def test_answers_of_an_engine_are_grounded_cleaned(
    scripted: tuple[Scripted, list[list[int]]], workspace: Workspace, tmp_path: Path
) -> None:
    scripted[0]["dog"] = [(0.9, (0, 0, 20, 20))]
    (tmp_path / "photos").mkdir()
    name = "**A dog sits near a red ball** and a man. Look"
    Image.new("RGB", (64, 48)).save(tmp_path / "photos" / f"{name}.jpg")
    one = replace(shown(0, ""), image=f"{name}.jpg")
    prepare(workspace, [one], tmp_path / "photos")
    settings = GroundSettings(parser="pattern", caption="lmm", min_boxes=1)
    with pytest.raises(SettingError, match="llmdet-data caption --source hand --task image"):
        ground(workspace, "hand", "m", settings)
    # The fake engine says the photo's name.
    caption(workspace, "hand", Fake(log=str(tmp_path / "asked.jsonl")), CaptionSettings(task="image"))
    ground(workspace, "hand", "m", settings)
    (made,) = rows(workspace)
    assert made.text == "A dog sits near a red ball and a man."
    assert made.captions == ()  # refine attaches them


def test_boxes_of_other_records_are_refused(
    scripted: tuple[Scripted, list[list[int]]], workspace: Workspace, tmp_path: Path
) -> None:
    photos(tmp_path / "photos", [0])
    prepare(workspace, [shown(0)], tmp_path / "photos")
    ground(workspace, "hand", "m", replace(ANY, min_boxes=0))
    assert workspace.best_records("hand") == workspace.grounded("hand")
    manifest = workspace.records("hand").require("")
    workspace.records("hand").commit(Manifest("ingest", "new", manifest.parts, info=manifest.info))
    with pytest.raises(MissingError, match="run: llmdet-data ground --source hand, or remove"):
        workspace.best_records("hand")
    ground(workspace, "hand", "m", replace(ANY, min_boxes=0))
    assert workspace.best_records("hand") == workspace.grounded("hand")


def test_a_detector_is_its_files_wherever_they_lie(tiny: str, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for path in Path(tiny).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert model_key(str(copy)) == model_key(tiny)
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b" ")
    assert model_key(str(copy)) != model_key(tiny)
    assert model_key("somebody/a-model") == "somebody/a-model"
    with pytest.raises(MissingError, match="no model in"):
        model_key(str(tmp_path))


@pytest.mark.parametrize("wrong", [{"min_score": 1.5}, {"batch_size": 0}, {"names_per_prompt": 0}, {"min_boxes": -1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SettingError, match=rf"ground: {name} must be .*; got {wrong[name]}"):
        replace(GroundSettings(), **wrong).check()


# --- real rows -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_captions_and_photos_come_out_as_odvg(
    local: None, workspace: Workspace, tmp_path: Path, samples: Path, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the samples' LLaVA rows, over photos of COCO in place of their own, and Flickr30k with its photos."""
    monkeypatch.setattr(pipelines.ground, "run_parts", lambda items, work, **_: [work(item) for item in items])
    annotations = samples / "llava/caps_boxes_coco2014_val_80.jsonl"
    named = [orjson.loads(line)["image"] for line in annotations.read_bytes().splitlines()]
    (tmp_path / "photos").mkdir()
    for name, photo in zip(named, sorted((samples / "coco/coco_tiny_val/val2017").glob("*.jpg")), strict=True):
        (tmp_path / "photos" / name).write_bytes(photo.read_bytes())
    llava = Llava(annotations=str(annotations), images=str(tmp_path / "photos"))
    flickr = Flickr30k(annotations=str(samples / "flickr30k"), images=str(samples / "flickr30k/flickr30k_images"))
    for source, count in ((llava, 80), (flickr, 110)):
        ingest(workspace, source)
        done = ground(workspace, source.name, tiny, replace(ANY, boxed="replace", part_rows=64))
        assert done.faults == {}
        assert done.records + sum(done.rejects.get(r, 0) for r in ("no_phrase", "too_few_boxes")) == count
        assert done.records >= 0.9 * count
        out = tmp_path / source.name
        export(workspace, Odvg(), str(out), source.name)
        lines = [orjson.loads(line) for line in (out / "odvg.jsonl").read_bytes().splitlines()]
        assert len(lines) == done.records
        for line in lines:
            check_odvg(line, Path(source.images))


def check_odvg(line: dict[str, Any], images: Path) -> None:
    """A line of the grounding form says what MM-Grounding-DINO's reader needs, and its boxes lie in its photo."""
    with Image.open(images / line["filename"]) as photo:
        assert photo.size == (line["width"], line["height"])
    text = line["grounding"]["caption"]
    assert line["grounding"]["regions"]
    for region in line["grounding"]["regions"]:
        phrases = region["phrase"] if isinstance(region["phrase"], list) else [region["phrase"]]
        assert [text[a:b] for a, b in region["tokens_positive"]] == phrases
        boxes = region["bbox"] if isinstance(region["bbox"][0], list) else [region["bbox"]]
        for x1, y1, x2, y2 in boxes:
            assert 0 <= x1 <= x2 - 1 <= line["width"] - 1
            assert 0 <= y1 <= y2 - 1 <= line["height"] - 1
