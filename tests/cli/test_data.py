"""The data stages as they are typed, on four drawn photos: results, JSON, exit codes, input out of order."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.coco_folder import BOXES, PHOTOS, write_coco
from tests.cli.conftest import Made, Typed


def ingest(typed: Typed, annotations: str, images: str, *more: str) -> Any:
    return typed("ingest", "--source", "coco", "--annotations", annotations, "--images", images, *more)


# --- what is in order ----------------------------------------------------------------------------------------------


def test_ingest_says_what_was_read_and_what_was_left_out(typed_with_ray: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco")
    done = ingest(typed_with_ray, annotations, images, "--workspace", "w", "--json")
    assert done.code == 0
    said = done.json
    assert said.pop("seconds") > 0
    assert said == {
        "command": "ingest",
        "workspace": str(here / "w"),
        "records": 4,
        "rejects": {"crowd": 1},
        "faults": {},
        "skipped": False,
    }
    again = ingest(typed_with_ray, annotations, images, "--workspace", "w")
    assert again.code == 0
    assert again.out == (
        "ingest coco: 4 records (was done before with the same inputs and settings)\n  left out: 1 crowd\n"
    )


def test_ingest_takes_name_reader_and_fields_apart(typed_with_ray: Typed, here: Path) -> None:
    write_coco(here / "set")
    words = ("--format", "coco", "--annotations", "annotations.json", "--images", "photos", "--set", "crowd=keep")
    done = typed_with_ray(
        "ingest", "--source", "mine", *words, "--limit", "3", "--data-root", "set", "--workspace", "w", "--json"
    )
    assert done.code == 0, done.err
    assert (done.json["records"], done.json["rejects"]) == (3, {})
    assert (here / "w" / "records" / "mine" / "manifest.json").is_file()


def test_caption_ingests_first_and_answers_everything(typed_with_ray: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco")
    where = ("--annotations", annotations, "--images", images, "--workspace", "w", "--json")
    done = typed_with_ray("caption", "--source", "coco", "--engine", "template", "--set", "colours=true", *where)
    assert done.code == 0, done.err
    said = done.json
    assert said["command"] == "caption"
    assert said["ingest"]["records"] == said["records"] == 4
    assert (said["requests"], said["answered"]) == (8, 8)
    assert said["rejects"] == said["faults"] == {}
    assert {said["prompt_tokens"], said["cached_tokens"], said["answer_tokens"]} == {0}
    assert sorted(said["ledgers"]) == ["image", "region"]


def test_caption_of_one_task_in_shards(typed_with_ray: Typed, made: Made) -> None:
    words = ("caption", "--source", "coco", "--engine", "template", "--task", "image", "--workspace", made.workspace)
    done = typed_with_ray(*words, "--shard", "1/2", "--json")
    assert done.code == 0, done.err
    assert list(done.json["ledgers"]) == ["image"]


def test_refine_and_merge_work_on_all_sources(typed_with_ray: Typed, made: Made) -> None:
    refined = typed_with_ray("refine", "--workspace", made.workspace, "--json").json
    assert (refined["records"], refined["asks"], list(refined["sources"])) == (4, 0, ["coco"])
    merged = typed_with_ray("merge", "--workspace", made.workspace, "--json").json
    assert (merged["records"], merged["rejects"], merged["faults"]) == (4, {}, {})


def test_merge_sets_take_names_and_numbers(typed_with_ray: Typed, made: Made, here: Path) -> None:
    refused = typed_with_ray("merge", "--workspace", made.workspace, "--set", "caps.gqa=1")
    assert refused.code == 1
    assert "gqa" in refused.error


@pytest.mark.parametrize(("form", "files"), [("vg", {"odvg.jsonl"}), ("od", {"odvg.jsonl", "label_map.json"})])
def test_export_odvg_in_both_forms(typed_with_ray: Typed, made: Made, here: Path, form: str, files: set[str]) -> None:
    words = ("export", "--format", "odvg", "--form", form, "--out", form, "--workspace", made.workspace, "--json")
    done = typed_with_ray(*words)
    assert done.code == 0, done.err
    assert (done.json["records"], done.json["boxes"]) == (4, BOXES)
    assert set(done.json["files"]) == files
    lines = [json.loads(line) for line in (here / form / "odvg.jsonl").read_text().splitlines()]
    assert [line["filename"] for line in lines] == list(PHOTOS)


def test_export_says_once_what_the_format_cannot_hold(typed_with_ray: Typed, made: Made, here: Path) -> None:
    done = typed_with_ray("export", "--format", "odvg", "--out", "o", "--workspace", made.workspace)
    notes = [line for line in done.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("note: ODVG holds no captions")
    assert "4 image captions" in notes[0]
    assert done.out.startswith(f"4 records with {BOXES} boxes in {here / 'o'}\n")


def test_export_takes_photos_split_shards_and_compression(typed_with_ray: Typed, made: Made, here: Path) -> None:
    words = ("export", "--format", "odvg", "--workspace", made.workspace, "--json")
    done = typed_with_ray(*words, "--out", "o", "--images", "link", "--shard-records", "3", "--compression", "gzip")
    assert done.code == 0, done.err
    assert done.json["files"] == ["odvg-00000.jsonl.gz", "odvg-00001.jsonl.gz", "images/"]
    packed = [(here / "o" / name).read_bytes() for name in done.json["files"][:2]]
    lines = [json.loads(line) for data in packed for line in gzip.decompress(data).splitlines()]
    assert len(lines) == 4
    assert all((here / "o/images" / line["filename"]).is_symlink() for line in lines)
    none = typed_with_ray(*words, "--out", "n", "--split", "trian")
    assert (none.code, none.json["records"]) == (0, 0)
    assert "note: no record has the split 'trian'" in none.err
    assert typed_with_ray(*words, "--out", "x", "--images", "move").code == 2
    coco = typed_with_ray("export", "--format", "coco", "--workspace", made.workspace, "--shard-records", "3")
    assert coco.code == 1
    assert "shard_records" in coco.error


def test_report_says_where_the_page_is(typed_with_ray: Typed, made: Made) -> None:
    said = typed_with_ray("report", "--workspace", made.workspace, "--title", "Four", "--json").json
    assert said["records"] == 4
    assert said["rejects"] == {"crowd": 1}
    assert "<title>Four" in Path(said["report"]).read_text()


def test_workspace_from_the_environment_gives_way_to_the_option(typed_with_ray: Typed, made: Made, here: Path) -> None:
    named = typed_with_ray("merge", "--json", LLMDET_WORKSPACE=made.workspace)
    assert (named.code, named.json["workspace"]) == (0, made.workspace)
    other = typed_with_ray("merge", "--workspace", "none", "--json", LLMDET_WORKSPACE=made.workspace)
    assert (other.code, other.json["workspace"]) == (1, str(here / "none"))
    assert other.error == f"no records in {here / 'none'}; run: llmdet-data ingest"


# --- what is not ---------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_json(typed_with_ray: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco")
    Path(annotations).write_text("name,box\na,1\n")
    done = ingest(typed_with_ray, annotations, images)
    assert done.code == 1
    assert annotations in done.error
    assert "JSON" in done.error


def test_a_json_of_another_format(typed_with_ray: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco")
    Path(annotations).write_text('{"scenes": []}')
    done = ingest(typed_with_ray, annotations, images)
    assert done.code == 1
    assert annotations in done.error
    assert "images" in done.error


def test_a_missing_image_folder(typed_with_ray: Typed, here: Path) -> None:
    annotations, _ = write_coco(here / "coco")
    done = ingest(typed_with_ray, annotations, "gone")
    assert done.code == 1
    assert done.error == f"no image folder of coco at {here / 'gone'}; give --images or --data-root"


def test_an_empty_list_of_categories(typed_with_ray: Typed, here: Path) -> None:
    annotations, images = write_coco(here / "coco", lambda document: document.update(categories=[]))
    done = ingest(typed_with_ray, annotations, images)
    assert done.code == 1
    assert annotations in done.error
    assert "categories" in done.error


def test_broken_photos_and_escaping_names_are_faults_and_the_run_goes_on(typed_with_ray: Typed, here: Path) -> None:
    def escape(document: dict[str, Any]) -> None:
        document["images"][2]["file_name"] = "../../x.jpg"

    annotations, images = write_coco(here / "coco", escape)
    (Path(images) / "a.jpg").write_text("not a photo")
    (Path(images) / "b.jpg").write_bytes(b"")
    done = ingest(typed_with_ray, annotations, images, "--workspace", "w", "--json")
    assert done.code == 3
    assert done.error.startswith("ingest coco: 3 of 4 failed (")
    said = done.json
    assert said["records"] == 1
    assert sum(said["faults"].values()) == 3
    rows = [
        row
        for path in (here / "w" / "rejects" / "ingest" / "coco").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    faults = {row["id"]: row["reason"] for row in rows if (row["kind"], row["level"]) == ("fault", "record")}
    assert sorted(faults) == ["coco/1/0", "coco/2/0", "coco/3/0"]
    assert faults["coco/3/0"] == "path_outside_root"
    tolerant = ingest(typed_with_ray, annotations, images, "--workspace", "w", "--max-faults", "0.8")
    assert tolerant.code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("ingest", "--source", "coco"),
            "grounding_data/coco/annotations/instances_train2017.json; give --annotations",
        ),
        (("ingest", "--source", "mine", "--format", "odvg"), "annotations must be given"),
        (("ingest", "--source", "cocoa", "--annotations", "a"), "no format 'cocoa'; there are: "),
        (("ingest", "--source", "coco", "--set", "crowd"), "--set needs key.key=value; got 'crowd'"),
        (("caption", "--source", "coco", "--engine", "oracle"), "no engine 'oracle'; there are: "),
        (("caption", "--source", "coco", "--engine", "template", "--model", "m"), "has no setting 'model'"),
        (("caption", "--source", "coco", "--engine", "template", "--shard", "2/2"), "such as 0/4; got '2/2'"),
        (("refine",), "no records in"),
        (("refine", "--set", "rules.Nonsense.x=1"), "no rule 'Nonsense'"),
        (("export", "--format", "papyrus"), "no format 'papyrus'; there are: "),
        (("export", "--format", "odvg"), "no records in"),
        (("report",), "no records in"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_1(typed: Typed, here: Path, words: tuple[str, ...], expected: str) -> None:
    done = typed(*words)
    assert done.code == 1
    assert expected in done.error


def test_caption_without_engine_and_gpu_says_which_there_are(
    typed: Typed, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.doctor.gpus", list)
    done = typed("caption", "--source", "coco")
    assert done.code == 1
    assert done.error.startswith("no GPU here and no --engine said; there are: ")
    assert "template" in done.error


def test_a_gpu_without_vllm_is_one_line_before_anything_is_read(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.doctor.gpus", lambda: ["a GPU"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = typed("caption", "--source", "gqa")
    assert done.code == 1
    assert done.error == (
        "vllm is not installed; run: pip install 'llmdet-data[vllm]'; "
        "or say another --engine: openai, template, transformers"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--engine", "openai"), "which server? give --base-url, such as http://localhost:8000/v1"),
        (("--engine", "vllm", "--model", "./gone"), "no folder ./gone, and a hub id has the form owner/name"),
        (
            ("--engine", "openai", "--base-url", "http://h/v1", "--model", "m", "--set", "image_prompt=x"),
            "no prompt 'x'",
        ),
    ],
    ids=["server", "model", "prompt"],
)
def test_what_no_engine_can_do_is_said_before_ingest(typed: Typed, words: tuple[str, ...], says: str) -> None:
    done = typed("caption", "--source", "gqa", *words)
    assert done.code == 1
    assert says in done.error
    assert "ingest" not in done.err
