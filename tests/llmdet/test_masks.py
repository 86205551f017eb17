"""Masks agree with pycocotools on good segmentations; bad ones are one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from llmdet.errors import FormatError
from llmdet.masks import area, decode

# pycocotools 2.0.11 says so itself on every decode under numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_a_square_polygon_covers_its_pixels() -> None:
    mask = decode("[[2,1,6,1,6,4,2,4]]", 5, 8)
    assert mask.shape == (5, 8)
    assert mask.dtype == bool
    assert mask[1:4, 2:6].all()
    assert area(mask) == 12


def test_runs_count_down_the_columns() -> None:
    mask = decode('{"counts":[1,2,3],"size":[3,2]}', 3, 2)
    assert mask.tolist() == [[False, False], [True, False], [True, False]]


def test_an_empty_list_of_polygons_is_an_empty_mask() -> None:
    assert area(decode("[]", 4, 4)) == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_compressed_and_listed_runs_equal_pycocotools(height: int, width: int, seed: int, share: float) -> None:
    truth = np.random.default_rng(seed).random((height, width)) < share
    runs = coco.encode(np.asfortranarray(truth.astype(np.uint8)))
    text = json.dumps({"counts": runs["counts"].decode(), "size": [height, width]})
    assert (decode(text, height, width) == truth).all()
    flat = truth.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    listed = json.dumps({"counts": counts, "size": [height, width]})
    assert (decode(listed, height, width) == truth).all()


def test_polygons_that_leave_the_picture_are_cut() -> None:
    assert decode("[[-50,-50,100,-50,100,100,-50,100]]", 10, 10).all()


BAD = {
    "not json": ("{", "not JSON"),
    "a number": ("3", "list of polygons"),
    "no counts": ('{"size":[4,4]}', "counts and size"),
    "other size": ('{"counts":[16],"size":[2,8]}', r"size \[height, width\] = \[2, 8\]"),
    "too few runs": ('{"counts":[3],"size":[4,4]}', "add up to 3"),
    "too many runs": ('{"counts":[16,16],"size":[4,4]}', "add up to 32"),
    "negative run": ('{"counts":[-1,17],"size":[4,4]}', "whole numbers"),
    "a fraction": ('{"counts":[1.5,14.5],"size":[4,4]}', "whole numbers"),
    "counts null": ('{"counts":null,"size":[4,4]}', "whole numbers"),
    "text with blanks": ('{"counts":"  ","size":[4,4]}', "does not belong"),
    "text cut short": ('{"counts":"P","size":[4,4]}', "end inside"),
    "endless number": ('{"counts":"oooooooooooooooooooo","size":[4,4]}', "does not belong"),
    "odd polygon": ("[[1,2,3,4,5,6,7]]", "polygon 0 .* got 7"),
    "short polygon": ("[[1,2,3,4]]", "polygon 0 .* got 4"),
    "flat list": ("[1,2,3,4,5,6]", "polygon 0 .* got int"),
    "a word": ('[[1,2,3,4,5,"6"]]', "must hold numbers"),
    "far away": ("[[1,2,3,4,5,1e9]]", "pixels away"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_segmentations_are_one_clear_line(name: str) -> None:
    text, reason = BAD[name]
    with pytest.raises(FormatError, match=reason) as caught:
        decode(text, 4, 4)
    assert "\n" not in str(caught.value)


def test_no_picture_no_mask() -> None:
    with pytest.raises(FormatError, match="1 to 65536"):
        decode("[]", 0, 4)


def test_real_annotations_give_the_masks_of_pycocotools(samples: Path) -> None:
    data = json.loads((samples / "coco/coco_tiny_val/annotations/instances_val2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    assert sum(note["iscrowd"] for note in data["annotations"]) == 11
    for note in data["annotations"]:
        height, width = sizes[note["image_id"]]
        runs = note["segmentation"]
        runs = coco.merge(coco.frPyObjects(runs, height, width)) if isinstance(runs, list) else runs
        truth = coco.decode(runs if isinstance(runs["counts"], bytes) else coco.frPyObjects(runs, height, width))
        mask = decode(json.dumps(note["segmentation"]), height, width)
        assert (mask == truth.astype(bool)).all()
