"""The official evaluators score detections on the ground truth that we export."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmdet.exports.coco import Coco as CocoExport
from llmdet.exports.lvis import Lvis as LvisExport
from llmdet.record import Record, to_batch
from llmdet.sources.coco import Coco
from llmdet.sources.lvis import Lvis
from llmdet.world import write_world
from tests.consumers import odd_annotations as odd


def exported(exporter: CocoExport | LvisExport, source: Coco, out: Path) -> Path:
    records = [item for item in source.read() if isinstance(item, Record)]
    return out / exporter.write([to_batch(records)], str(out), {source.name: source.info()}).files[0]


def repeated(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for row in annotations]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
def test_pycocotools_scores_an_exported_world(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    original = write_world(tmp_path / "world", 20, 2)
    path = exported(CocoExport(), Coco(annotations=str(original), images=""), tmp_path / "out")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(repeated(list(truth.anns.values()))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    document = json.loads(original.read_bytes())
    assert sorted(truth.anns) == sorted(row["id"] for row in document["annotations"])
    assert truth.loadCats(truth.getCatIds()) == document["categories"]
    assert evaluation.stats[:3].tolist() == pytest.approx([1, 1, 1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lvis")
def test_lvis_api_scores_an_export_with_what_is_known_to_be_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for alias, kind in (("float", float), ("int", int)):
        monkeypatch.setattr(np, alias, kind, raising=False)  # lvis 0.5.3 is older than numpy 1.24
    lvis = pytest.importorskip("lvis", reason="lvis is not installed: tests/consumers/requirements.txt")
    document = odd.lvis()
    document["annotations"] = [
        row for row, name in zip(document["annotations"], odd.ODD_BOXES, strict=True) if name not in odd.UNUSABLE
    ]
    original = tmp_path / "lvis.json"
    original.write_text(json.dumps(document))
    path = exported(LvisExport(), Lvis(annotations=str(original), images=""), tmp_path / "out")
    truth, reference = lvis.LVIS(str(path)), lvis.LVIS(str(original))
    assert sorted(truth.anns) == sorted(reference.anns)
    assert truth.load_cats(None) == reference.load_cats(None)
    federated = ("coco_url", "neg_category_ids", "not_exhaustive_category_ids")
    for key, row in reference.imgs.items():
        assert [truth.imgs[key][name] for name in federated] == [row[name] for name in federated]
    # Every second box found again, every third name wrong: a result that depends on what is known to be absent.
    found = repeated(document["annotations"])[::2] + [
        row | {"category_id": 2} for row in repeated(document["annotations"])[::3]
    ]
    scored = []
    for one in (truth, reference):
        evaluation = lvis.LVISEval(one, lvis.LVISResults(one, [dict(row) for row in found]), "bbox")
        evaluation.run()
        scored.append(evaluation.results)
    assert scored[0] == scored[1]
    assert 0 < scored[0]["AP"] < 1
