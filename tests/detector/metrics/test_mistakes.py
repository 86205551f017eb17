"""Which mistakes are worst."""

from __future__ import annotations

from typing import Any

from detector.metrics.accumulator import Accumulator, Limits
from detector.metrics.mistakes import Mistake, worst

LEFT, RIGHT = [0, 0, 40, 40], [100, 0, 20, 20]


def box(image: int, category: int, xywh: list[int], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": xywh, "area": xywh[2] * xywh[3], **more}


def found(*rows: tuple[int, int, list[int], float]) -> Accumulator:
    kept = Accumulator(Limits())
    kept.add([{**box(image, category, xywh), "score": score} for image, category, xywh, score in rows])
    return kept


def truth(*boxes: dict[str, Any], **image: Any) -> dict[str, Any]:
    images = [{"id": number, "width": 200, "height": 100, **image} for number in (1, 2, 3)]
    categories = [{"id": number, "name": "x", "frequency": "f"} for number in (5, 9)]
    return {"images": images, "annotations": list(boxes), "categories": categories}


def test_false_boxes_come_surest_first_one_of_an_image() -> None:
    rows = found((1, 5, RIGHT, 0.9), (1, 9, RIGHT, 0.8), (2, 9, LEFT, 0.95), (3, 5, LEFT, 0.99), (3, 5, LEFT, 0.97))
    false, _ = worst(truth(box(2, 5, LEFT), box(3, 5, LEFT)), rows, 5)
    assert false == [Mistake(2, 9, (0, 0, 40, 40), 0.95, 5), Mistake(1, 5, (100, 0, 20, 20), 0.9, None)]
    assert worst(truth(), rows, 1)[0][0].image == 3


def test_what_lies_in_a_crowd_is_not_false() -> None:
    crowd = box(1, 5, [0, 0, 200, 100], iscrowd=1)
    false, missed = worst(truth(crowd), found((1, 5, LEFT, 0.9), (1, 9, LEFT, 0.8)), 5)
    assert [mistake.category for mistake in false] == [9]
    assert missed == []


def test_missed_boxes_come_least_found_first_then_the_largest() -> None:
    true = truth(box(1, 5, LEFT), box(2, 5, RIGHT), box(3, 5, LEFT), box(3, 9, RIGHT))
    _, missed = worst(true, found((1, 5, LEFT, 0.3), (1, 5, LEFT, 0.2), (3, 9, RIGHT, 0.1)), 5)
    assert [(one.image, one.category, one.score) for one in missed] == [(3, 5, -1.0), (2, 5, -1.0), (1, 5, 0.3)]


def test_of_lvis_only_what_was_looked_for_everywhere_is_false() -> None:
    for known, expected in (({"neg_category_ids": [5]}, [1]), ({"neg_category_ids": []}, [])):
        image = {"not_exhaustive_category_ids": [], **known}
        assert [one.image for one in worst(truth(**image), found((1, 5, LEFT, 0.9)), 5)[0]] == expected
    partly = truth(box(1, 5, RIGHT), neg_category_ids=[], not_exhaustive_category_ids=[5])
    assert worst(partly, found((1, 5, LEFT, 0.9)), 5)[0] == []
