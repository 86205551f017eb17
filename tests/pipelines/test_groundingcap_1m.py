"""The flagship recipe on a small tree of all five sources, and on one with nothing but LLMDet's finished files."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from llmdet.catalogue import compare
from llmdet.errors import MissingError, SettingError
from llmdet.record import Record
from llmdet.rejects import from_batch
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Workspace
from pipelines.readers import source_of
from pipelines.recipe import load
from pipelines.run import RunOutcome, plan, run
from tests.pipelines import grounding_tree as grounding
from tests.pipelines.grounding_tree import Tree

RECIPE = "groundingcap_1m"
ALL = {"coco", "flickr30k", "gqa", "v3det", "llava"}


@dataclass
class Made:
    """What a run of the recipe made."""

    tree: Tree
    workspace: Workspace
    outcome: RunOutcome

    def records(self, source: str) -> list[Record]:
        return [record for record in self.workspace.groundingcap().records() if record.source == source]

    def rejects(self, source: str, stage: str = "ingest") -> list[tuple[str, str, str]]:
        batches = self.workspace.rejects(stage, source).batches()
        return [(one.id, one.reason, one.detail) for batch in batches for one in from_batch(batch)]

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.workspace.path("exports", name, f"{name}.jsonl")
        return [orjson.loads(line) for line in Path(path).read_bytes().splitlines()]


def made(tree: Tree, folder: Path, *overrides: str) -> Made:
    places = [f"data_root={tree.root}", f"workspace={folder}"]
    recipe = load(RECIPE, ["caption.engine=template", *places, *overrides])
    return Made(tree, Workspace.at(str(folder)), run(recipe))


@pytest.fixture(scope="module")
def tree(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return grounding.build(samples, tmp_path_factory.mktemp("raw") / "grounding_data")


@pytest.fixture(scope="module")
def raw(tree: Tree, ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tree, tmp_path_factory.mktemp("raw-run"))


@pytest.fixture(scope="module")
def finished(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    tree = grounding.build_finished(tmp_path_factory.mktemp("finished") / "grounding_data")
    return made(tree, tmp_path_factory.mktemp("finished-run"), "export=[{format: groundingcap}]")


def joined_from(record: Record) -> list[dict[str, Any]]:
    """The texts that a record was joined from; itself where it was not."""
    return record.extra.get("joined", [{"text_id": record.text_id}])


# --- raw annotations -----------------------------------------------------------------------------------------------


def test_every_source_gives_its_records_and_no_faults(raw: Made) -> None:
    assert raw.outcome.faults == {}
    counts = Counter(record.source for record in raw.workspace.groundingcap().records())
    assert set(counts) == ALL
    # A COCO photo with three captions is three records, every other one is one.
    assert counts["coco"] == grounding.KEPT + 2
    assert (counts["gqa"], counts["v3det"], counts["llava"]) == (
        grounding.SCENES,
        grounding.SHOTS,
        grounding.CAPTIONED,
    )
    assert raw.outcome.records == counts.total()


def test_the_texts_of_a_photo_are_joined_where_they_do_not_conflict(raw: Made) -> None:
    for record in raw.records("gqa"):
        assert record.text == "dark tree on the left. What is in the middle? two signs. right side."
        assert [region.phrases for region in record.regions] == [("dark tree",), ("What is",), ("two signs",)]
    texts: dict[str, list[Record]] = {}
    for record in raw.records("flickr30k"):
        texts.setdefault(record.image_id, []).append(record)
    assert sorted(texts) == sorted(raw.tree.flickr)  # the photo of test.txt is in another split
    for photo, records in texts.items():
        parts = [part["text_id"] for record in records for part in joined_from(record)]
        assert sorted(parts) == [str(number) for number in range(grounding.SENTENCES)], photo
    notes = raw.workspace.records("flickr30k").require("").info["notes"]["joined"]
    assert notes["before"] == len(raw.tree.flickr) * grounding.SENTENCES
    assert notes["after"] == sum(map(len, texts.values())) < notes["before"]


def test_texts_of_names_hold_80_names_for_coco_and_50_for_v3det(raw: Made) -> None:
    attached = raw.tree.coco[0], raw.tree.coco[3]
    for record in raw.records("coco"):
        names = [*record.text.removesuffix(". ").split(". ")]
        asv2 = record.image in attached and "asv2" in record.text_id
        assert len(set(names)) == len(names) == 80 + asv2, record.id
        assert (names[-1] == "brick wall") == asv2
    for record in raw.records("v3det"):
        assert len(set(record.text.removesuffix(". ").split(". "))) == 50
        assert (len(record.regions), len(record.negatives)) == (2, 48)


def test_captions_are_the_sources_where_they_have_one_and_the_engines_elsewhere(raw: Made) -> None:
    origins = {
        source: Counter(
            tuple(caption.provenance.origin for caption in record.captions) for record in raw.records(source)
        )
        for source in ALL
    }
    # Four of the COCO photos have captions of ShareGPT4V or All-Seeing V2: six in all.
    assert origins["coco"] == {("source",): 6, ("template",): 6}
    assert origins["llava"] == {("source",): grounding.CAPTIONED}
    for source in ("flickr30k", "gqa", "v3det"):
        assert set(origins[source]) == {("template",)}
    first = sorted(record.captions[0].text for record in raw.records("coco") if record.image == raw.tree.coco[0])
    assert [text.split(" ", 2)[:2] for text in first] == [["A", "brick"], ["A", "quiet"], ["The", "kitchen"]]
    boxes = [box for record in raw.records("v3det") for box in record.boxes]
    assert all(box.caption for box in boxes)


def test_evaluation_photos_are_left_out_with_the_list_that_has_them(raw: Made) -> None:
    found = {}
    for source in ALL:
        for key, reason, detail in raw.rejects(source):
            if reason == "leak":
                found[key] = detail
    lists = {photo: detail.split(" ")[0].rstrip(":") for photo, detail in ((_photo(k), d) for k, d in found.items())}
    wanted = {_photo_of(photo): where.split(" ")[0] for photo, where in raw.tree.leaks.items()}
    assert lists == wanted
    copy = next(detail for key, detail in found.items() if key.startswith("v3det"))
    assert re.fullmatch(r"photos val2017: \d+\.jpg \(perceptual, distance \d+ of 256\)", copy)
    assert "same bytes" in next(detail for key, detail in found.items() if key.startswith("llava"))


def _photo(record_id: str) -> str:
    """source/photo of a record id."""
    return record_id.rpartition("/")[0]


def _photo_of(path: str) -> str:
    """The same for the path of a photo, whose id is its name or number."""
    source, _, name = path.partition("/")
    stem = Path(name).stem
    ids = {"coco": lambda: str(int(stem)), "gqa": lambda: stem, "v3det": lambda: str(grounding.SHOTS + 1)}
    return f"{source}/{ids.get(source, lambda: stem)()}"


def test_the_manifest_says_which_lists_a_source_was_not_checked_against(raw: Made) -> None:
    def lists(source: str) -> dict[str, dict[str, Any]]:
        return SourceInfo.from_dict(raw.workspace.records(source).require("").info).notes["leaks"]["lists"]

    assert {name: one["state"] for name, one in lists("coco").items()} == {
        "coco_val": "checked",
        "lvis_val": "checked",
        "flickr30k_val": "checked",
        "flickr30k_test": "checked",
        "refcoco refcoco/refs(unc).p": "checked",
        "refcoco refcoco+/refs(unc).p": "not checked",
        "refcoco refcocog/refs(umd).p": "not checked",
        "photos val2017": "checked",
    }
    assert lists("gqa")["coco_val"]["by"] == "id, by image_data.json"
    # LLaVA's photos have no ids that a list could hold: only their content can tell.
    assert {name for name, one in lists("llava").items() if one["state"] == "checked"} == {"photos val2017"}


def test_exports_hold_every_record(raw: Made) -> None:
    records = list(raw.workspace.groundingcap().records())
    odvg, cap = raw.lines("odvg"), raw.lines("groundingcap")
    assert [line["filename"] for line in odvg] == [line["filename"] for line in cap] == [r.image for r in records]
    assert [line["grounding"]["caption"] for line in cap] == [record.text for record in records]
    assert [line["conversations"][1]["value"] for line in cap] == [record.captions[0].text for record in records]
    assert not any("conversations" in line for line in odvg)
    table = Workspace.at(raw.outcome.exports["parquet"])
    assert list(Path(table.url).rglob("*.parquet"))


def test_the_card_tells_licences_and_lists(raw: Made) -> None:
    text = Path(raw.workspace.path("groundingcap", "README.md")).read_text()
    assert f"{raw.outcome.records:,} records" in text
    assert "| coco: captions of sharegpt4v | CC-BY-NC-4.0 (captions); Flickr terms (photos) |" in text
    assert "refcoco refcoco+/refs(unc).p (there is no " in text
    licences = {record.source: record.licence for record in raw.workspace.groundingcap().records()}
    assert licences["flickr30k"].startswith("research and education only")
    assert all(licences.values())


def test_a_second_run_has_nothing_to_do(raw: Made) -> None:
    again = made(raw.tree, Path(raw.workspace.url), "export=[]")
    assert {stage for stage, outcome in again.outcome.stages.items() if not outcome["skipped"]} == set()


def test_a_dry_run_counts_requests_and_tokens_and_opens_no_photo(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load(RECIPE, ["caption.engine=template", f"data_root={tree.root}"])
    monkeypatch.setattr("llmdet.images._bytes", lambda url: pytest.fail(f"opened {url}"))
    # All-Seeing V2's boxes need the sizes of COCO's photos, so its reader looks at them.
    recipe = recipe.model_copy(update={"sources": {k: v for k, v in recipe.sources.items() if k != "coco"}})
    found = plan(recipe)
    assert list(found) == ["flickr30k", "gqa", "v3det", "llava"]
    gqa = found["gqa"]
    assert {key: gqa[key] for key in ("records", "leaks", "rejects", "boxes")} == {
        "records": grounding.SCENES,
        "leaks": 1,
        "rejects": 0,
        "boxes": 3 * grounding.SCENES,
    }
    assert gqa["image requests"] == gqa["region requests"] == grounding.SCENES
    assert gqa["image tokens"] > 0
    # Content is not looked at, so the two copies are still among the records here.
    assert (found["v3det"]["records"], found["llava"]["records"]) == (grounding.SHOTS + 1, grounding.CAPTIONED + 1)
    assert (found["llava"]["image requests"], found["llava"]["region requests"]) == (0, 0)


# --- finished files alone ------------------------------------------------------------------------------------------


def test_the_five_finished_files_are_enough(finished: Made) -> None:
    assert finished.outcome.faults == {}
    records = list(finished.workspace.groundingcap().records())
    assert Counter(record.source for record in records) == dict.fromkeys(ALL, 2)
    assert {record.captions[0].text for record in records} == {grounding.HARBOUR}
    assert {record.captions[0].provenance.origin for record in records} == {"source"}
    assert {record.origin for record in records} == {"https://huggingface.co/fushh7/LLMDet"}
    kinds = {record.source: record.kind for record in records}
    assert kinds == {name: "grounding" if name in ("flickr30k", "gqa") else "detection" for name in ALL}
    drawn = {record.source: {box.origin for box in record.boxes} for record in records}
    assert drawn == {name: {"pseudo" if name == "llava" else "human"} for name in ALL}


def test_finished_files_go_out_as_they_came_in(finished: Made) -> None:
    lines = {line["filename"]: line for line in finished.lines("groundingcap")}
    for path, _, _ in grounding.FINISHED.values():
        for line in (finished.tree.root / path).read_bytes().splitlines():
            row = orjson.loads(line)
            mine = lines[row["filename"]]
            assert mine["grounding"]["caption"] == row["grounding"]["caption"]
            assert mine["grounding"]["regions"][0]["bbox"] == row["grounding"]["regions"][0]["bbox"]
            assert (mine["conversations"], mine["tags"]) == (row["conversations"], row["tags"])


@pytest.mark.parametrize("source", sorted(ALL))
def test_a_source_without_a_recipe_finds_its_finished_file_in_the_layout(source: str, tmp_path: Path) -> None:
    tree = grounding.build_finished(tmp_path)
    reader = source_of(source, {}, str(tmp_path))
    assert getattr(reader, "annotations", "") == str(tree.root / grounding.FINISHED[source][0])
    assert len([item for item in reader.read() if isinstance(item, Record)]) == 2
    assert [one.hint for one in compare(source, str(tmp_path)) if one.subject == "annotations"] == [
        f"{grounding.FINISHED[source][0]} is read in their place"
    ]


# --- the recipe itself ---------------------------------------------------------------------------------------------


def test_a_model_that_is_nowhere_ends_the_run_before_anything_is_read(tree: Tree, tmp_path: Path) -> None:
    model = f"caption.engines.vllm.model={tmp_path}/nowhere"
    recipe = load(RECIPE, [f"data_root={tree.root}", f"workspace={tmp_path}/workspace", model])
    with pytest.raises(MissingError, match=r"no folder .*/nowhere, and a hub id has the form owner/name"):
        run(recipe)
    assert not (tmp_path / "workspace").exists()


def test_what_attaches_can_be_left_out(tree: Tree) -> None:
    places = ["caption.engine=template", f"data_root={tree.root}", "sources.coco.attach={}"]
    coco = load(RECIPE, places).build_sources()[0]
    assert type(coco).__name__ == "Coco"
    without = load(RECIPE, [*places[:2], "sources.coco.attach.asv2=null"]).build_sources()[0]
    assert [giver.name for giver in without.givers] == ["sharegpt4v"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("leaks.coco_vall=x", "leaks has no setting 'coco_vall'; did you mean coco_val?"),
        ("leaks.coco_val=[a, b]", "leaks: coco_val: "),
        ("leaks.photos=5", "leaks: photos: "),
        ("leaks.action=forget", "leaks: action: Input should be 'drop', 'keep' or 'flag'; got 'forget'"),
        ("sources.gqa.annotations=5", "sources.gqa.annotations must be a path or a list of paths; got 5"),
        ("sources.coco.attach=5", "sources.coco.attach must be a mapping of names to values; got 5"),
        ("sources.coco.attach.asv2=5", "sources.coco.attach.asv2 must be a mapping of names to values; got 5"),
        ("sources.gqa.joining=3", "sources.gqa.joining must be a mapping of names to values; got 3"),
    ],
)
def test_mistakes_fail_in_one_line_before_anything_runs(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        load(RECIPE, ["caption.engine=template", f"data_root={tmp_path}", override])
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_one_path_may_stand_where_several_can(tmp_path: Path) -> None:
    overrides = ["caption.engine=template", f"data_root={tmp_path}", "leaks.refcoco=refs(unc).p", "leaks.photos=[/val]"]
    leaks = load(RECIPE, overrides).leak_settings()
    assert (leaks.refcoco, leaks.photos) == ((f"{tmp_path}/refs(unc).p",), ("/val",))
    assert leaks.coco_val == f"{tmp_path}/coco/annotations/instances_val2017.json"
