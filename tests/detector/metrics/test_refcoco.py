"""Precision at 1, 5 and 10 of referring expressions, computed by hand for both protocols."""

from typing import Any, get_args

import numpy as np
import pytest

from detector.metrics import refcoco
from llmdet.errors import FormatError, SettingError

LEFT, RIGHT = [0.0, 40.0, 20.0, 20.0], [80.0, 40.0, 20.0, 20.0]  # xywh; centres (0.1, 0.5) and (0.9, 0.5)


def truth(*expressions: tuple[str, list[float]], dataset: str = "refcoco") -> dict[str, Any]:
    """Photos of 100 x 100 with one expression each; sizes are texts, as in some of MDETR's files."""
    size = {"height": "100", "width": "100", "dataset_name": dataset}
    return {
        "images": [{"id": number, "caption": text} | size for number, (text, _) in enumerate(expressions)],
        "annotations": [
            {"id": number + 50, "image_id": number, "category_id": 1, "bbox": box}
            for number, (_, box) in enumerate(expressions)
        ],
    }


def found(image: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": box, "score": score}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the dog", [0.0, 0.0]),
        ("left dog", [1 + 0.7 * 0.9, 1 + 0.7 * 0.1]),
        ("right dog", [1 + 0.7 * 0.1, 1 + 0.7 * 0.9]),
        ("bright dog", [1 + 0.7 * 0.1, 1 + 0.7 * 0.9]),  # "bright" has a "right"
        ("leftover", [1 + 0.7 * 0.9, 1 + 0.7 * 0.1]),
        ("top or upper dog", [1 + 0.7 * 0.75] * 2),  # two words for one direction count once
        ("bottom, under it", [1 + 0.7 * 0.25] * 2),
        ("Left dog", [0.0, 0.0]),  # as upstream, only as written
        ("bottom left", [1 + 0.7 * 0.25 + 1 + 0.7 * 0.9, 1 + 0.7 * 0.25 + 1 + 0.7 * 0.1]),
        ("left of the right top", [3 + 0.7 * 1.75, 3 + 0.7 * 1.75]),
    ],
)
def test_words_of_place_add_to_scores(text: str, expected: list[float]) -> None:
    boxes = np.array([[0, 10, 40, 40], [160, 10, 200, 40]], dtype=float)  # centres (0.1, 0.25) and (0.9, 0.25)
    assert refcoco.spatial_bias(text, boxes, 200, 100) == pytest.approx(expected, abs=1e-12)


def test_the_protocols_rank_differently_where_a_place_is_named() -> None:
    rows = [found(0, LEFT, 0.6), found(0, RIGHT, 0.3)]
    for text, llmdet in (("dog on the right", 1.0), ("bright dog", 1.0), ("the dog", 0.0)):
        file = truth((text, RIGHT))
        # right: 0.6 + 1 + 0.07 = 1.67 against 0.3 + 1 + 0.63 = 1.93
        assert refcoco.evaluate(file, rows, "llmdet")["refcoco_precision@1"] == llmdet
        assert refcoco.evaluate(file, rows, "mm_grounding_dino")["refcoco_precision@1"] == 0
        assert refcoco.evaluate(file, rows, "llmdet")["refcoco_precision@5"] == 1


def test_a_high_score_outweighs_the_place_and_scores_may_exceed_one() -> None:
    expression = refcoco.read(truth(("dog on the right", RIGHT)))[0]
    boxes = np.array([[0, 40, 20, 60], [80, 40, 100, 60]], dtype=float)
    # 0.95 + 1.07 = 2.02 against 0.3 + 1.63 = 1.93
    scores = np.array([0.95, 0.3])
    assert refcoco.ranking(expression, boxes, scores, "llmdet") == pytest.approx([2.02, 1.93], abs=1e-12)
    assert refcoco.ranking(expression, boxes, scores, "mm_grounding_dino").tolist() == [0.95, 0.3]
    rows = [found(0, LEFT, 0.95), found(0, RIGHT, 0.3)]
    assert refcoco.evaluate(truth(("dog on the right", RIGHT)), rows)["refcoco_precision@1"] == 0


@pytest.mark.parametrize(("before", "expected"), [(0, [1, 1, 1]), (1, [0, 1, 1]), (5, [0, 0, 1]), (10, [0, 0, 0])])
def test_only_the_best_boxes_count(before: int, expected: list[int]) -> None:
    rows = [found(0, LEFT, 0.9 - number / 100) for number in range(before)] + [found(0, RIGHT, 0.1)]
    for protocol in get_args(refcoco.Protocol):
        figures = refcoco.evaluate(truth(("the dog", RIGHT)), rows[::-1], protocol)
        assert list(figures.values()) == expected


def test_an_iou_of_one_half_is_enough() -> None:
    file = truth(("a", RIGHT), ("b", RIGHT))
    figures = refcoco.evaluate(file, [found(0, [80, 40, 10, 20], 0.5), found(1, [80, 40, 9.9, 20], 0.5)])
    assert figures["refcoco_precision@1"] == 0.5


def test_each_data_set_has_its_own_figures_and_workers_add_up() -> None:
    first, second = truth(("a", LEFT), ("b", LEFT), dataset="refcoco+"), truth(("c", RIGHT), dataset="refcocog")
    second["images"][0]["id"] = second["annotations"][0]["image_id"] = 9
    both = {key: first[key] + second[key] for key in first}
    rows = [found(0, LEFT, 0.5), found(9, LEFT, 0.5), found(9, RIGHT, 0.4)]
    figures = refcoco.evaluate(both, rows)
    assert figures == {
        "refcoco+_precision@1": 0.5,
        "refcoco+_precision@5": 0.5,
        "refcoco+_precision@10": 0.5,
        "refcocog_precision@1": 0.0,
        "refcocog_precision@5": 1.0,
        "refcocog_precision@10": 1.0,
    }
    expressions = refcoco.read(both)
    boxes = {0: np.array([[0, 40, 20, 60]]), 1: np.zeros((0, 4)), 9: np.array([[0, 40, 20, 60], [80, 40, 100, 60]])}
    workers = [refcoco.Tally(), refcoco.Tally()]
    for number, expression in expressions.items():
        workers[number % 2].add(expression, boxes[number].astype(float), np.linspace(0.5, 0.4, len(boxes[number])))
    workers[0].merge(workers[1])
    assert workers[0].figures() == figures
    with pytest.raises(ValueError, match="different protocols"):
        workers[0].merge(refcoco.Tally("mm_grounding_dino"))


def test_what_is_no_refcoco_is_refused() -> None:
    file = truth(("a", LEFT))
    with pytest.raises(FormatError, match="image 4, which the ground truth does not have"):
        refcoco.evaluate(file, [found(4, LEFT, 0.5)])
    with pytest.raises(FormatError, match="image 0 has 2 boxes; an expression of RefCOCO means exactly one"):
        refcoco.evaluate(file | {"annotations": file["annotations"] * 2}, [])
    with pytest.raises(FormatError, match="it needs caption, dataset_name"):
        refcoco.evaluate(file | {"images": [{"id": 0, "width": 1, "height": 1}]}, [])
    with pytest.raises(FormatError, match="needs the lists images and annotations"):
        refcoco.evaluate({"images": []}, [])
    with pytest.raises(SettingError, match="llmdet, mm_grounding_dino; got 'mdetr'"):
        refcoco.evaluate(file, [], "mdetr")  # type: ignore[arg-type]
