"""The shelf that the demo shows, and what its page says of a record."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llmdet.draw import PALETTE, colours_of
from llmdet.errors import ImageError, MissingError, SettingError
from llmdet.record import Box, Record, Region, to_batch
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Manifest, Workspace
from pipelines.demo import colours, drawn, marked, numbered
from pipelines.shelf import Shelf

DOG = Region(("dog",), ((0, 3),), (Box((0, 0, 10, 10), order=1), Box((20, 0, 30, 10), order=2)))
CAT = Region(("Big cat", "cat"), ((5, 12), (9, 12)), (Box((40, 0, 50, 10), order=0),))


def record(source: str, number: int, image: str = "0.png") -> Record:
    return Record(
        id=f"{source}/{number}/0",
        source=source,
        image_id=str(number),
        text_id="0",
        kind="detection",
        image=image,
        root=source,
        width=100,
        height=50,
        text="dog. big cat. bird. ",
        regions=(DOG, CAT),
        negatives=((14, 18),),
    )


def fill(workspace: Workspace, source: str, images: Path, parts: list[list[Record]]) -> None:
    table = workspace.records(source)
    written = tuple(table.write_part(number, "k", to_batch(part)) for number, part in enumerate(parts))
    info = SourceInfo(source, "folder", "CC0", "", str(images)).to_dict()
    table.commit(Manifest("ingest", "k", written, {"seconds": 0}, info=info))


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "photos" / "0.png")
    Image.new("RGB", (100, 50)).save(tmp_path / "secret.png")
    workspace = Workspace.at(str(tmp_path / "workspace"))
    zoo = [record("zoo", i) for i in range(7)]
    fill(workspace, "zoo", tmp_path / "photos", [zoo[:3], zoo[3:]])
    fill(workspace, "art", tmp_path / "photos", [[record("art", 0, "../secret.png")]])
    return Shelf.of(workspace)


def ids(records: list[Record]) -> list[str]:
    return [one.id for one in records]


def test_pages_go_over_the_ends_of_parts_and_sources(shelf: Shelf):
    assert shelf.sources == ["art", "zoo"]
    assert (shelf.count(), shelf.count("zoo")) == (8, 7)
    assert ids(shelf.page("zoo", 1, 4)) == [f"zoo/{i}/0" for i in range(4)]
    assert ids(shelf.page("zoo", 2, 4)) == [f"zoo/{i}/0" for i in range(4, 7)]
    assert ids(shelf.page(None, 1, 3)) == ["art/0/0", "zoo/0/0", "zoo/1/0"]
    assert shelf.page("zoo", 3, 4) == []
    assert ids(shelf.page("zoo", -5, 2)) == ["zoo/0/0", "zoo/1/0"]


def test_a_source_that_is_none_and_an_empty_workspace_are_said_so(shelf: Shelf, tmp_path: Path):
    with pytest.raises(SettingError, match=r"no source '\.\./zoo'; there are: art, zoo"):
        shelf.page("../zoo", 1, 4)
    with pytest.raises(MissingError, match="run: llmdet-data ingest"):
        Shelf.of(Workspace.at(str(tmp_path / "nothing")))


def test_photos_come_from_their_root_only(shelf: Shelf):
    assert shelf.photo(shelf.page("zoo", 1, 1)[0]).size == (100, 50)
    with pytest.raises(ImageError, match="path_outside_root"):
        shelf.photo(shelf.page("art", 1, 1)[0])


def test_phrases_carry_the_numbers_and_the_colour_of_their_boxes():
    one = record("zoo", 0)
    assert [region.phrases[0] for region, _ in numbered(one)] == ["Big cat", "dog", "dog"]
    assert marked(one) == [
        ("dog", "2, 3"),
        (". ", None),
        ("big cat", "1"),
        (". ", None),
        ("bird", "absent"),
        (". ", None),
    ]
    index = colours_of(["Big cat, cat", "dog"])
    assert colours(one)["2, 3"] == "#{:02x}{:02x}{:02x}".format(*PALETTE[index["dog"]])
    assert colours(one)["1"] == "#{:02x}{:02x}{:02x}".format(*PALETTE[index["Big cat, cat"]])
    assert marked(replace(one, regions=(), negatives=())) == [(one.text, None)]


def test_a_large_photo_is_reduced_and_its_boxes_with_it():
    one = replace(record("zoo", 0), width=2000, height=1000)
    assert drawn(one, Image.new("RGB", (2000, 1000)), 500).size == (500, 250)
