"""Box arithmetic against values worked out by hand, and round trips over drawn boxes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet import boxes

decimals = st.integers(0, 500_000).map(lambda value: value / 100)


def test_from_xywh_keeps_leading_shape() -> None:
    assert boxes.from_xywh([1, 2, 3, 4]).tolist() == [1.0, 2.0, 4.0, 6.0]
    assert boxes.from_xywh([[[0, 0, 0.5, 2]]]).tolist() == [[[0.0, 0.0, 0.5, 2.0]]]


def test_to_xywh_writes_the_decimals_of_the_annotator() -> None:
    # In binary 320.93 - 250.82 is 70.11000000000001; the annotation file says 70.11.
    assert boxes.to_xywh((250.82, 168.26, 250.82 + 70.11, 168.26 + 64.88)) == (250.82, 168.26, 70.11, 64.88)


@given(st.tuples(decimals, decimals, decimals, decimals))
def test_to_xywh_gives_back_the_extent_of_two_decimals(box: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = boxes.from_xywh(box).tolist()
    back = boxes.to_xywh((x1, y1, x2, y2))
    assert back == pytest.approx(box, abs=1e-9)
    assert boxes.from_xywh(back).tolist() == [x1, y1, x2, y2]


def test_areas_of_inverted_boxes_are_zero() -> None:
    assert boxes.areas(np.array([[0, 0, 2, 3], [5, 5, 4, 9], [5, 5, 4, 4]], dtype=np.float64)).tolist() == [
        6.0,
        0.0,
        0.0,
    ]


def test_clip_cuts_at_all_four_sides() -> None:
    clipped = boxes.clip(np.array([[-3.5, -1, 12, 99], [20, 20, 30, 30]], dtype=np.float64), 10, 8)
    assert clipped.tolist() == [[0, 0, 10, 8], [10, 8, 10, 8]]


def test_iou_of_known_overlaps() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 0, 0]], dtype=np.float64)
    b = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 4, 2], [0, 0, 0, 0]], dtype=np.float64)
    assert boxes.iou(a, b).tolist() == [[1.0, 1 / 7, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert boxes.iou(a[:0], b).shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((0.0, 0.0, 10.0, 10.0), None),
        ((-5.0, -5.0, 200.0, 200.0), None),  # over the edge, but not outside
        ((99.5, 0.0, 101.0, 10.0), None),
        ((0.0, 0.0, 0.99, 10.0), "box_below_one_pixel"),
        ((5.0, 5.0, 4.0, 20.0), "box_below_one_pixel"),
        ((100.0, 0.0, 110.0, 10.0), "box_outside_image"),
        ((0.0, -10.0, 10.0, 0.0), "box_outside_image"),
        ((0.0, 0.0, math.nan, 10.0), "box_not_finite"),
        ((0.0, 0.0, math.inf, 10.0), "box_not_finite"),
        ((-math.inf, 0.0, 5.0, 10.0), "box_not_finite"),
    ],
)
def test_fault_names_the_first_thing_wrong(box: tuple[float, float, float, float], reason: str | None) -> None:
    assert boxes.fault(box, 100, 50) == reason
