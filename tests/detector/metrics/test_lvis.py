"""LVIS figures against lvis-api: its published results on real boxes, and random federated sets."""

import copy
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.metrics import accumulator, lvis
from detector.metrics.accumulator import Accumulator, Limits
from detector.metrics.detections import Detections
from llmdet.errors import FormatError
from tests.detector.metrics.federated import FIGURES, PER_CATEGORY, SETS, federated, official

EXPECTED = json.loads(FIGURES.read_text())["sets"]
CUT = Limits(per_category=PER_CATEGORY)


@pytest.mark.parametrize("seed", SETS)
def test_random_federated_sets_have_the_figures_of_lvis_api(seed: int) -> None:
    truth, rows = federated(seed)
    for limits, name in ((lvis.STANDARD, "standard"), (CUT, "fixed")):
        figures = lvis.evaluate(truth, rows, limits)
        assert list(figures) == list(EXPECTED[seed][name])
        assert figures == pytest.approx(EXPECTED[seed][name], abs=1e-9, rel=0)


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_lvis_api_itself_agrees(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for alias in ("float", "int"):
        monkeypatch.setattr(np, alias, float, raising=False)  # taken back afterwards
    monkeypatch.setitem(sys.modules, "lvis.vis", type(sys)("lvis.vis"))
    monkeypatch.setattr(sys.modules["lvis.vis"], "LVISVis", None, raising=False)
    pytest.importorskip("lvis", reason="lvis is not installed: tests/consumers/requirements.txt")
    truth, rows = federated(seed)
    assert lvis.evaluate(truth, rows) == pytest.approx(official(truth, rows, 300), abs=1e-9, rel=0)
    assert lvis.evaluate(truth, rows, CUT) == pytest.approx(official(truth, rows, -1, PER_CATEGORY), abs=1e-9, rel=0)


@pytest.mark.parametrize("name", ["lvis_v1_style_part_a", "lvis_val_part_a"])
@pytest.mark.parametrize(
    ("protocol", "limits"),
    [
        ("standard_max_dets_300", lvis.STANDARD),
        ("fixed_ap_topk_10000_max_dets_-1", lvis.FIXED),
        ("fixed_ap_topk_10_max_dets_-1", Limits(per_category=10)),
    ],
)
def test_real_boxes_have_the_figures_of_lvis_api(samples: Path, name: str, protocol: str, limits: Limits) -> None:
    expected = json.loads((samples / f"eval/lvis/{name}_expected.json").read_text())
    truth = json.loads((samples / expected["ground_truth"]).read_text())
    rows = json.loads((samples / expected["detections"]).read_text())
    assert lvis.evaluate(truth, rows, limits) == pytest.approx(expected[protocol], abs=1e-9, rel=0)


@pytest.mark.parametrize("limits", [lvis.STANDARD, CUT])
@pytest.mark.parametrize("seed", [3, 17])
def test_shards_of_images_merge_to_the_same_bits(seed: int, limits: Limits) -> None:
    truth, rows = federated(seed)
    whole = lvis.evaluate(truth, rows, limits)
    everything = Detections.of(rows)
    workers = [Accumulator(limits) for _ in range(3)]
    for image, own in everything.grouped(everything.image):
        # In two calls and from behind: neither how rows arrive nor who has them may matter.
        for half in (own.take(slice(len(own) // 2, None)), own.take(slice(0, len(own) // 2))):
            workers[image % 3].add(half)
    random.Random(seed).shuffle(workers)
    first, *others = (copy.deepcopy(worker) for worker in workers)
    for other in others:
        first.merge(other)
    assert first.rows == len(rows)
    assert lvis.score(lvis.Truth.of(truth), first).figures == whole


def test_small_pieces_give_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, rows = federated(5)
    whole = lvis.evaluate(truth, rows, CUT)
    monkeypatch.setattr(accumulator, "_ROWS_AT_ONCE", 10)
    monkeypatch.setattr(accumulator, "_PENDING_ROWS", 10)
    monkeypatch.setattr("detector.metrics.matching._PAIRS_AT_ONCE", 3)
    pieces = Accumulator(CUT)
    for start in range(0, len(rows), 4):
        pieces.add(rows[start : start + 4])
    assert lvis.score(lvis.Truth.of(truth), pieces).figures == whole


def small(**image: Any) -> dict[str, Any]:
    """One image with one box of category 1; category 2 has none."""
    return {
        "images": [{"id": 7, "neg_category_ids": [], "not_exhaustive_category_ids": []} | image],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [0, 0, 50, 50], "area": 2500}],
        "categories": [{"id": 1, "name": "cat", "frequency": "f"}, {"id": 2, "name": "dog", "frequency": "r"}],
    }


def found(category: int, x: float, score: float) -> dict[str, Any]:
    return {"image_id": 7, "category_id": category, "bbox": [x, 0, 50, 50], "score": score}


def test_a_false_positive_counts_unless_the_category_was_not_annotated_in_full() -> None:
    rows = [found(1, 300, 0.9), found(1, 0, 0.8)]
    assert lvis.evaluate(small(), rows)["AP"] == pytest.approx(0.5, abs=1e-9)
    assert lvis.evaluate(small(not_exhaustive_category_ids=[1]), rows)["AP"] == pytest.approx(1, abs=1e-9)


def test_a_category_of_which_nothing_is_known_costs_nothing_and_has_no_figure() -> None:
    figures = lvis.evaluate(small(), [found(1, 0, 0.8), found(2, 0, 0.9)])
    assert figures["AP"] == figures["APf"] == pytest.approx(1, abs=1e-9)
    assert figures["APr"] == -1


def test_the_limit_per_image_takes_the_best_and_fixed_ap_has_none() -> None:
    rows = [found(2, 0, 0.9)] * 300 + [found(1, 0, 0.8)]
    assert lvis.evaluate(small(), rows)["AP"] == 0
    assert lvis.evaluate(small(), rows, lvis.FIXED)["AP"] == pytest.approx(1, abs=1e-9)


def test_no_detections_score_zero_and_no_boxes_score_nothing() -> None:
    assert lvis.evaluate(small(), [])["AP"] == 0
    assert set(lvis.evaluate(small() | {"annotations": []}, [found(1, 0, 0.8)]).values()) == {-1}


def test_an_annotation_with_id_0_can_be_found() -> None:
    truth = small()
    truth["annotations"][0]["id"] = 0
    assert lvis.evaluate(truth, [found(1, 0, 0.8)])["AP"] == pytest.approx(1, abs=1e-9)


def test_categories_that_the_truth_does_not_have_are_left_out() -> None:
    rows = [found(99, 0, 0.9), found(0, 0, 0.9), found(1, 0, 0.8)]
    assert lvis.evaluate(small(), rows, lvis.FIXED)["AP"] == pytest.approx(1, abs=1e-9)


def test_each_category_has_its_own_ap() -> None:
    held = Accumulator(lvis.STANDARD)
    held.add([found(1, 0, 0.8)])
    classes = lvis.score(lvis.Truth.of(small()), held).classes
    assert classes == {"cat": pytest.approx(1, abs=1e-9), "dog": -1}


def test_what_is_not_lvis_is_refused_by_name() -> None:
    bare = small()
    del bare["images"][0]["neg_category_ids"]
    with pytest.raises(FormatError, match=r"no LVIS ground truth: images .* 7 lacks \['neg_category_ids'\]"):
        lvis.evaluate(bare, [])
    with pytest.raises(FormatError, match=r"missing: \['categories'\]"):
        lvis.evaluate({"images": [], "annotations": []}, [])
    with pytest.raises(FormatError, match="r, c or f; got \\['x'\\]"):
        lvis.evaluate(small() | {"categories": [{"id": 1, "name": "cat", "frequency": "x"}]}, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 8}, "image 8, which the ground truth does not have"),
        ({"score": float("nan")}, "detection 1 needs four finite numbers"),
        ({"bbox": [1, 2, 3]}, "detection 1 needs four finite numbers"),
        ({"bbox": None}, "detection 1 needs four finite numbers"),
        ({"category_id": "1"}, "detection 1 needs whole numbers"),
    ],
)
def test_rows_that_are_no_detections_are_refused_by_number(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        lvis.evaluate(small(), [found(1, 0, 0.8), found(1, 0, 0.8) | change])


def test_a_row_without_score_is_refused_and_other_limits_do_not_merge() -> None:
    row = found(1, 0, 0.8)
    del row["score"]
    with pytest.raises(FormatError, match=r"detection 0 lacks \['score'\]"):
        lvis.evaluate(small(), [row])
    with pytest.raises(ValueError, match="different limits"):
        Accumulator(lvis.FIXED).merge(Accumulator(lvis.STANDARD))


def test_importing_the_metrics_does_not_import_torch() -> None:
    names = "lvis, flickr30k, refcoco, odinw, coco_o"
    code = f"import sys; from detector.metrics import {names}; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
