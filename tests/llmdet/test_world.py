"""The procedural world: real COCO files, held-out pairs, the same bytes every time."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from llmdet import boxes, world


def load(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write_world(tmp_path_factory.mktemp("seen"), 60, seed=3)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write_world(tmp_path_factory.mktemp("unseen"), 60, seed=3, pairs="unseen")


def test_thirty_pairs_of_which_five_are_held_out_and_cover_every_shape() -> None:
    assert len(world.PAIRS) == 30
    assert len(world.SEEN) == 25
    assert sorted(shape for _, shape in world.HELD_OUT) == sorted(world.SHAPES)
    assert not set(world.HELD_OUT) & set(world.SEEN)


def test_seen_files_neither_show_nor_name_a_held_out_pair(seen: Path) -> None:
    names = {row["name"] for row in load(seen)["categories"]}
    assert names == {" ".join(pair) for pair in world.SEEN}
    for index in range(60):
        things = world.compose(np.random.default_rng((3, 0, index)))
        assert all(thing.pair in world.SEEN for thing in things)


def test_every_unseen_scene_holds_a_held_out_pair_and_names_no_other(unseen: Path) -> None:
    truth = load(unseen)
    assert {row["name"] for row in truth["categories"]} == {" ".join(pair) for pair in world.HELD_OUT}
    assert {row["image_id"] for row in truth["annotations"]} == {row["id"] for row in truth["images"]}


def test_files_are_coco_with_pictures_of_the_stated_size(seen: Path) -> None:
    truth = load(seen)
    assert list(truth) == ["info", "licenses", "images", "annotations", "categories"]
    assert len(truth["images"]) == 60
    for row in truth["images"]:
        with Image.open(seen.parent / "images" / row["file_name"]) as image:
            assert (image.format, image.size) == ("JPEG", (row["width"], row["height"])) == ("JPEG", (128, 128))
    ids = [row["id"] for row in truth["annotations"]]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 2**32


def test_scenes_hold_one_to_five_objects_inside_the_picture(seen: Path) -> None:
    truth = load(seen)
    assert set(Counter(row["image_id"] for row in truth["annotations"]).values()) == {1, 2, 3, 4, 5}
    for row in truth["annotations"]:
        x, y, width, height = row["bbox"]
        assert x > 0
        assert y > 0
        assert x + width < 128
        assert y + height < 128
        assert min(width, height) > 15


def test_boxes_overlap_by_a_quarter_of_the_smaller_at_most() -> None:
    shares = []
    for index in range(200):
        things = world.compose(np.random.default_rng((9, 0, index)))
        for i, a in enumerate(things):
            for b in things[:i]:
                (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.xyxy, b.xyxy
                inner = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
                shares.append(inner / min((ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1)))
    assert 0.1 < max(shares) <= 0.25


def test_areas_and_boxes_are_those_of_the_polygons(seen: Path) -> None:
    for row in load(seen)["annotations"][:40]:
        polygon = np.array(row["segmentation"][0]).reshape(-1, 2)
        x1, y1, x2, y2 = boxes.from_xywh(row["bbox"]).tolist()
        assert [x1, y1, x2, y2] == pytest.approx([*polygon.min(0), *polygon.max(0)], abs=0.011)
        # pycocotools rasterises on a grid, so it may differ by about the length of the outline.
        raster = coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(row["segmentation"], 128, 128)))
        assert row["area"] == pytest.approx(float(raster), rel=0.12)


def test_pixels_inside_an_object_have_its_colour() -> None:
    hits = 0
    for index in range(40):
        rng = np.random.default_rng((5, 0, index))
        things = world.compose(rng)
        picture = world.render(rng, things)
        thing = things[-1]  # lies in front
        x1, y1, x2, y2 = thing.xyxy
        x, y = int((x1 + x2) / 2), int((y1 + y2) / 2)
        r, g, b = picture[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1))
        strongest = {"red": r > 2 * max(g, b), "green": g > 1.5 * max(r, b), "blue": b > 1.5 * max(r, g)}
        if thing.pair[0] in strongest:
            hits += 1
            assert strongest[thing.pair[0]], (thing.pair, r, g, b)
    assert hits > 10


def test_same_arguments_give_the_same_bytes_and_another_seed_others(seen: Path, tmp_path: Path) -> None:
    again = world.write_world(tmp_path / "again", 5, seed=3)
    other = world.write_world(tmp_path / "other", 5, seed=4)
    name = "images/000000000004.jpg"
    assert (again.parent / name).read_bytes() == (seen.parent / name).read_bytes()
    assert (other.parent / name).read_bytes() != (seen.parent / name).read_bytes()
    assert load(again)["annotations"] == load(seen)["annotations"][: len(load(again)["annotations"])]
