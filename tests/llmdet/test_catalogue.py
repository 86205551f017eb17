"""The catalogue knows every reader, and says what of a layout is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from llmdet.catalogue import CATALOGUE, Entry, compare, is_there, origin_of, rows
from llmdet.sources import SOURCES


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".jpg"):
            Image.new("RGB", (4, 3)).save(root / path)
        else:
            (root / path).write_text("{}")


def told(source: str, root: Path) -> dict[str, tuple[str, str]]:
    """Level and text by subject; of several with one subject the last."""
    return {one.subject: (one.level, one.text) for one in compare(source, str(root))}


def test_every_reader_has_an_entry() -> None:
    assert set(CATALOGUE) == set(SOURCES)
    assert list(CATALOGUE) == sorted(CATALOGUE)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_an_entry_states_relative_places_and_the_readers_own_terms(name: str) -> None:
    entry = CATALOGUE[name]
    places = [*entry.annotations, *entry.beside, entry.images, entry.finished]
    assert not [place for place in places if place.startswith(("/", ".", "~")) or place.endswith("/")]
    assert bool(entry.annotations) == bool(entry.images)  # a usual place for both, or for neither
    row = next(row for row in rows() if row["source"] == name)
    assert row["title"] == entry.title
    assert (row["licence"], row["address"]) == (origin_of(name)[0] or "your own", origin_of(name)[1])
    assert all(count > 0 for count in row["counts"].values())


def test_the_layout_is_llmdets_with_its_five_finished_files() -> None:
    assert {name: (entry.finished, entry.images) for name, entry in CATALOGUE.items() if entry.finished} == {
        "coco": ("coco/annotations/instances_train2017_vg_merged6.jsonl", "coco/train2017"),
        "flickr30k": ("flickr30k_entities/flickr_train_vg7.jsonl", "flickr30k_entities/flickr30k_images"),
        "gqa": ("gqa/gqa_train_vg7.jsonl", "gqa/images"),
        "llava": ("llava_cap/LLaVA-ReCap-558K_tag_box_vg7.jsonl", "llava_cap/images"),
        "v3det": ("v3det/annotations/v3det_2023_v1_train_vg7.jsonl", "v3det"),
    }


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    found = {one.subject: one for one in compare("coco", str(tmp_path))}
    assert (found["annotations"].level, found["photos"].level) == ("fail", "fail")
    assert found["annotations"].text == (
        f"none of coco/annotations/instances_train2017.json is in {tmp_path} "
        "(nor coco/annotations/instances_train2017_vg_merged6.jsonl)"
    )
    assert "https://cocodataset.org" in found["annotations"].hint
    assert found["photos"].text == f"coco/train2017 is not in {tmp_path}"


def test_photos_are_counted_against_the_published_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "coco/annotations/instances_train2017.json")
    (tmp_path / "coco/train2017").mkdir()
    assert told("coco", tmp_path)["photos"] == ("fail", "coco/train2017 holds no picture")
    put(tmp_path, "coco/train2017/1.jpg", "coco/train2017/2.jpg", "coco/train2017/notes.txt")
    assert told("coco", tmp_path)["photos"] == ("warn", "coco/train2017: 2 of 118,287, 118,285 missing")
    small = Entry(title="small", annotations=CATALOGUE["coco"].annotations, images="coco/train2017", pictures=2)
    monkeypatch.setitem(CATALOGUE, "coco", small)
    assert told("coco", tmp_path)["photos"] == ("ok", "coco/train2017: 2 of 2")


def test_a_finished_file_stands_in_for_annotations(tmp_path: Path) -> None:
    put(tmp_path, "gqa/gqa_train_vg7.jsonl", "gqa/images/1.jpg")
    found = {one.subject: one for one in compare("gqa", str(tmp_path))}
    assert found["annotations"].level == "warn"
    assert found["annotations"].hint == "gqa/gqa_train_vg7.jsonl is read in their place"
    assert found["finished file"].text == "gqa/gqa_train_vg7.jsonl is there"
    put(tmp_path, "gqa/train_sceneGraphs.json")
    assert told("gqa", tmp_path)["annotations"] == ("ok", "gqa/train_sceneGraphs.json is there")


def test_a_folder_of_photos_is_no_flickr30k_entities(tmp_path: Path) -> None:
    put(tmp_path, "flickr30k_entities/flickr30k_images/36979.jpg")
    folder = str(tmp_path / "flickr30k_entities")
    assert not is_there("flickr30k", folder)
    put(tmp_path, "flickr30k_entities/Annotations/36979.xml")
    assert is_there("flickr30k", folder)
    assert not is_there("flickr30k", f"{folder}/annotations.zip")
    assert is_there("coco", folder)


def test_ones_own_data_has_no_usual_place(tmp_path: Path) -> None:
    assert told("folder", tmp_path) == {"layout": ("ok", "a folder of one's own pictures: no usual place")}
    with pytest.raises(KeyError):
        compare("cocoa", str(tmp_path))
