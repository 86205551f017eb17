from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from llmdet import files
from llmdet.errors import BusyError, FormatError, MissingError, SettingError
from llmdet.record import Box, Record, Region, from_batch
from llmdet.rejects import Reject
from llmdet.sources.coco import Coco
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Table, Workspace
from llmdet.world import write_world
from pipelines.ingest import IngestSettings, _parts, ingest
from pipelines.lease import hold
from tests.pipelines.fakes import Listed, record, told

LeftOut = Callable[[Table], list[Reject]]
Ages = Callable[[str], dict[str, int]]
NO_PHOTOS = IngestSettings(images="skip")
SCENES = 21


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, SCENES, 0)
    return folder


@pytest.fixture
def source(world: Path) -> Coco:
    return Coco(annotations=str(world / "annotations.json"), images=str(world / "images"), name="world", negatives=8)


def rows(workspace: Workspace, name: str) -> list[Record]:
    return [one for part in workspace.records(name).batches() for one in from_batch(part)]


def coco(folder: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]] | None = None) -> Coco:
    """A COCO file over photos of 20x10 pixels, which are written where their name begins with `good`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for row in images:
        if str(row["file_name"]).startswith("good"):
            Image.new("RGB", (20, 10), "red").save(folder / "images" / row["file_name"])
    document = {"images": images, "annotations": annotations or [], "categories": [{"id": 3, "name": "dog"}]}
    (folder / "a.json").write_bytes(orjson.dumps(document))
    return Coco(annotations=str(folder / "a.json"), images=str(folder / "images"), name="hand")


def image(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 20, "height": 10}


@pytest.mark.parametrize("part_rows", [1, 7, 20, SCENES, 1000])
def test_records_are_those_of_the_source_in_its_order(
    local: None, workspace: Workspace, source: Coco, part_rows: int
) -> None:
    done = ingest(workspace, source, IngestSettings(part_rows=part_rows))
    expected = [one for one in source.read() if isinstance(one, Record)]
    found = rows(workspace, "world")
    assert [replace(one, image_sha256=None) for one in found] == expected
    photo = Path(source.images, expected[4].image).read_bytes()
    assert found[4].image_sha256 == files.sha256(photo)
    assert (done.records, done.rejects, done.faults, done.skipped) == (SCENES, {}, {}, False)
    sizes = [part.rows for part in workspace.records("world").require("").parts]
    assert sizes == [part_rows] * (SCENES // part_rows) + [SCENES % part_rows] * bool(SCENES % part_rows)


def test_a_second_call_does_nothing_and_tells_the_same(local: None, workspace: Workspace, source: Coco) -> None:
    first = ingest(workspace, source, IngestSettings(part_rows=8))
    again = ingest(workspace, source, IngestSettings(part_rows=8))
    assert again == replace(first, skipped=True)


def test_other_settings_do_it_again_and_leave_no_old_part(
    local: None, workspace: Workspace, source: Coco, ages: Ages
) -> None:
    ingest(workspace, source, IngestSettings(part_rows=8))
    old = set(ages(workspace.records("world").url))
    done = ingest(workspace, source, IngestSettings(part_rows=5))
    assert (done.skipped, done.records, len(rows(workspace, "world"))) == (False, SCENES, SCENES)
    for table in (workspace.records("world"), workspace.rejects("ingest", "world")):
        names = set(ages(table.url))
        assert names == {part.name for part in table.require("").parts}
        assert names.isdisjoint(old)


def test_a_corrected_annotation_file_is_read_again(local: None, workspace: Workspace, tmp_path: Path) -> None:
    source = coco(tmp_path, [image(1, "good1.jpg")])
    assert ingest(workspace, source).records == 1
    source = coco(tmp_path, [image(1, "good1.jpg"), image(2, "good2.jpg")])
    assert ingest(workspace, source).records == 2


def test_limit_takes_the_first_records(local: None, workspace: Workspace, source: Coco) -> None:
    assert ingest(workspace, source, IngestSettings(part_rows=4, limit=6)).records == 6
    assert [one.image_id for one in rows(workspace, "world")] == ["1", "2", "3", "4", "5", "6"]
    assert ingest(workspace, source, IngestSettings(part_rows=4)).records == SCENES


def test_bad_photos_are_faults_and_the_run_goes_on(
    local: None, workspace: Workspace, tmp_path: Path, left_out: LeftOut
) -> None:
    names = ["good1.jpg", "missing.jpg", "text.jpg", "empty.jpg", "../../x.jpg", "cut.jpg", "other.jpg", "good8.jpg"]
    source = coco(tmp_path, [image(i, name) for i, name in enumerate(names, 1)])
    folder = tmp_path / "images"
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.jpg").touch()
    Image.effect_noise((20, 10), 50).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-80])
    Image.new("RGB", (10, 10)).save(folder / "other.jpg")
    Image.new("RGB", (20, 10)).save(tmp_path.parent / "x.jpg")  # there, but outside
    done = ingest(workspace, source, IngestSettings(part_rows=3))
    assert [one.image for one in rows(workspace, "hand")] == ["good1.jpg", "good8.jpg"]
    assert told(left_out(workspace.rejects("ingest", "hand"))) == [
        ("hand/2/0", "record", "fault", "image_missing"),
        ("hand/3/0", "record", "fault", "image_unreadable"),
        ("hand/4/0", "record", "fault", "image_empty"),
        ("hand/5/0", "record", "fault", "path_outside_root"),
        ("hand/6/0", "record", "fault", "image_unreadable"),
        ("hand/7/0", "record", "fault", "size_mismatch"),
    ]
    assert done.records == 2
    assert (
        done.rejects
        == done.faults
        == {
            "image_empty": 1,
            "image_missing": 1,
            "image_unreadable": 2,
            "path_outside_root": 1,
            "size_mismatch": 1,
        }
    )


def test_names_that_leave_the_folder_are_refused_even_where_no_photo_is_opened(
    local: None, workspace: Workspace, tmp_path: Path
) -> None:
    source = coco(tmp_path, [image(1, "any.jpg"), image(2, "../x.jpg"), image(3, "/etc/hostname")])
    done = ingest(workspace, source, NO_PHOTOS)
    assert [one.image for one in rows(workspace, "hand")] == ["any.jpg"]
    assert done.faults == {"path_outside_root": 2}


@pytest.mark.parametrize("name", ["../out", "a/b", "", " ", ".hidden", "a\nb", "a\\b"])
def test_a_source_whose_name_is_no_folder_of_the_workspace_is_refused(
    workspace: Workspace, source: Coco, name: str
) -> None:
    with pytest.raises(SettingError, match="source must be a name without slashes"):
        ingest(workspace, replace(source, name=name))


def test_rejects_of_annotations_are_no_faults_of_records(
    local: None, workspace: Workspace, tmp_path: Path, left_out: LeftOut
) -> None:
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": [1, 1, 5, 5], "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 9, "bbox": [1, 1, 5, 5], "iscrowd": 0},
        {"id": 4, "image_id": 7, "category_id": 3, "bbox": [1, 1, 5, 5], "iscrowd": 0},
    ]
    done = ingest(workspace, coco(tmp_path, [image(1, "good1.jpg")], annotations), IngestSettings(part_rows=1))
    assert (done.records, done.faults) == (1, {})
    assert done.rejects == {"category_unknown": 1, "crowd": 1, "image_unknown": 1}
    assert told(left_out(workspace.rejects("ingest", "hand"))) == [
        ("hand/1/0#2", "annotation", "policy", "crowd"),
        ("hand/1/0#3", "annotation", "fault", "category_unknown"),
        ("hand/7/0#4", "annotation", "fault", "image_unknown"),
    ]


def test_a_record_that_breaks_an_invariant_is_left_out(local: None, workspace: Workspace, left_out: LeftOut) -> None:
    broken = replace(record(1), regions=(Region(("cat",), ((0, 3),), ()),))
    huge = replace(record(2), width=2**31)
    outside = replace(record(3), regions=(Region(("dog",), ((0, 3),), (Box((200.0, 1.0, 250.0, 20.0), order=4),)),))
    done = ingest(workspace, Listed(items=(record(0), broken, huge, outside)), NO_PHOTOS)
    assert done.records == 2
    assert done.faults == {"phrase_not_at_span": 1, "size_too_large": 1}
    assert told(left_out(workspace.rejects("ingest", "hand"))) == [
        ("hand/1/1", "record", "fault", "phrase_not_at_span"),
        ("hand/2/2", "record", "fault", "size_too_large"),
        ("hand/3/3#4", "annotation", "fault", "box_outside_image"),
    ]
    kept = rows(workspace, "hand")
    assert [(one.id, len(one.boxes)) for one in kept] == [("hand/0/0", 1), ("hand/3/3", 0)]


@pytest.mark.parametrize("rejects", [0, 3])
def test_a_source_without_records_is_a_finished_empty_table(
    local: None, workspace: Workspace, left_out: LeftOut, rejects: int
) -> None:
    items = tuple(Reject(f"hand/{i}/0", "record", "policy", "ingest", "leak") for i in range(rejects))
    done = ingest(workspace, Listed(items=items), NO_PHOTOS)
    assert (done.records, done.rejects) == (0, {"leak": 3} if rejects else {})
    assert rows(workspace, "hand") == []
    assert left_out(workspace.rejects("ingest", "hand")) == list(items)
    assert workspace.sources() == ["hand"]


def test_rejects_after_the_last_full_part_are_kept(local: None, workspace: Workspace, left_out: LeftOut) -> None:
    late = Reject("hand/9/0", "record", "policy", "ingest", "leak")
    ingest(workspace, Listed(items=(record(0), record(1), late)), replace(NO_PHOTOS, part_rows=2))
    assert left_out(workspace.rejects("ingest", "hand")) == [late]
    assert [part.rows for part in workspace.records("hand").require("").parts] == [2, 0]


def test_an_interrupted_run_writes_only_what_is_missing(
    local: None, workspace: Workspace, source: Coco, ages: Ages
) -> None:
    settings = IngestSettings(part_rows=4)
    ingest(workspace, source, settings)
    table = workspace.records("world")
    before, expected = ages(table.url), table.require("")
    gone = expected.parts[2].name
    os.unlink(f"{table.url}/manifest.json")
    os.unlink(f"{table.url}/{gone}")
    done = ingest(workspace, source, settings)
    after = ages(table.url)
    assert (done.skipped, done.records) == (False, SCENES)
    assert {name for name in after if after[name] != before[name]} == {gone}
    assert table.require("").parts == expected.parts  # the same bytes too


def test_a_run_that_died_between_its_two_manifests_is_not_mistaken_for_done(
    local: None, workspace: Workspace, tmp_path: Path, left_out: LeftOut
) -> None:
    one = Listed(items=(record(0), Reject("hand/1/1", "record", "policy", "ingest", "leak")))
    other = Listed(items=(record(0), Reject("hand/2/2", "record", "policy", "ingest", "other")))
    ingest(workspace, one, NO_PHOTOS)
    old = Path(workspace.records("hand").url, "manifest.json").read_bytes()
    ingest(workspace, other, NO_PHOTOS)
    # The rejects are of `other`, the table's manifest is still that of `one`.
    Path(workspace.records("hand").url, "manifest.json").write_bytes(old)
    done = ingest(workspace, one, NO_PHOTOS)
    assert (done.skipped, done.rejects) == (False, {"leak": 1})
    assert [reject.reason for reject in left_out(workspace.rejects("ingest", "hand"))] == ["leak"]
    assert workspace.records("hand").damaged() == []


def test_a_damaged_part_of_an_interrupted_run_is_written_again(local: None, workspace: Workspace, source: Coco) -> None:
    settings = IngestSettings(part_rows=4)
    ingest(workspace, source, settings)
    table = workspace.records("world")
    expected = table.require("")
    os.unlink(f"{table.url}/manifest.json")
    Path(table.url, expected.parts[1].name).write_bytes(b"half a file")
    ingest(workspace, source, settings)
    assert table.require("").parts == expected.parts
    assert table.damaged() == []


def test_two_drivers_do_not_write_one_table(local: None, workspace: Workspace) -> None:
    with hold(workspace.records("hand").url), pytest.raises(BusyError, match=f"pid {os.getpid()}"):
        ingest(workspace, Listed(items=(record(0),)), NO_PHOTOS)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"not json", r"a\.json is not JSON \(line 1"),
        (b'{"images": []}', r"a\.json is not COCO instances: expected the lists images, annotations, categories"),
        (b'{"images": [], "annotations": [], "categories": []}', r"a\.json has an empty list of categories"),
    ],
)
def test_a_file_of_another_format_fails_in_one_line(
    local: None, workspace: Workspace, tmp_path: Path, content: bytes, says: str
) -> None:
    source = coco(tmp_path, [])
    Path(source.annotations).write_bytes(content)
    with pytest.raises(FormatError, match=says) as raised:
        ingest(workspace, source)
    assert "\n" not in str(raised.value)
    assert workspace.records("hand").manifest() is None


def test_what_is_not_there_is_named(workspace: Workspace, tmp_path: Path) -> None:
    source = coco(tmp_path, [])
    with pytest.raises(MissingError, match=r"no annotations of hand at .*b\.json; give --annotations or --data-root"):
        ingest(workspace, replace(source, annotations=str(tmp_path / "b.json")))
    with pytest.raises(MissingError, match=r"no image folder of hand at .*/nowhere; give --images or --data-root"):
        ingest(workspace, replace(source, images=str(tmp_path / "nowhere")))


def test_an_error_in_the_middle_of_a_source_comes_out_as_itself(local: None, workspace: Workspace) -> None:
    source = Listed(items=(record(0), record(1)), error="line 3 is broken")
    with pytest.raises(FormatError, match=r"^line 3 is broken$"):
        ingest(workspace, source, replace(NO_PHOTOS, part_rows=1))
    assert workspace.records("hand").manifest() is None


def test_the_manifest_says_what_the_source_says_of_itself(local: None, workspace: Workspace, source: Coco) -> None:
    ingest(workspace, source)
    manifest = workspace.records("world").require("")
    said = SourceInfo.from_dict(manifest.info)
    assert replace(said, notes={}) == source.info()
    assert {one["state"] for one in said.notes["leaks"]["lists"].values()} == {"not checked"}  # no list was named
    assert manifest.settings["source"]["reader"] == "Coco"
    assert manifest.stage == "ingest"


def test_parts_are_streamed_not_gathered() -> None:
    read: list[int] = []

    class Endless(Listed):
        def read(self):  # type: ignore[no-untyped-def]
            for i in range(10**9):
                read.append(i)
                yield record(i)

    stream = _parts(Endless(items=()), replace(NO_PHOTOS, part_rows=5))
    first, second = next(stream), next(stream)
    assert (first["index"][0].as_py(), second["index"][0].as_py()) == (0, 1)
    assert len(read) == 10
