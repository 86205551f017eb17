import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.exports.mdetr import Mdetr
from llmdet.exports.odvg import Odvg
from llmdet.record import Record, to_batch
from llmdet.sources.mdetr import MdetrJson
from llmdet.sources.source import SourceInfo
from tests.llmdet.example_records import SENTENCE, few, records


def read(path: Path) -> list:
    return list(MdetrJson(annotations=str(path), name="flickr", licence="", address="").read())


def test_one_image_per_text_and_one_annotation_per_box(tmp_path: Path) -> None:
    outcome = Mdetr(name="flickr").write(
        [to_batch([SENTENCE])], str(tmp_path), {"flickr": SourceInfo("flickr", "", "", "", "")}
    )
    assert outcome.files == ("final_flickr.json",)
    assert outcome.lost == {"regions without boxes": 1}
    assert json.loads((tmp_path / "final_flickr.json").read_bytes()) == {
        "info": [],
        "licenses": [],
        "images": [
            {
                "file_name": "7.jpg", "height": 375, "width": 500, "id": 0,
                "caption": 'A man in a "café" waves to a man.', "original_img_id": 7, "sentence_id": 0,
                "dataset_name": "flickr", "tokens_negative": [[0, 33]], "tokens_positive_eval": [[[0, 5]], [[27, 32]]],
            }
        ],
        "annotations": [
            {
                "area": 400.0, "iscrowd": 0, "image_id": 0, "category_id": 1, "id": 2**50 + 1,
                "bbox": [10.0, 20.0, 20.0, 20.0], "tokens_positive": [[0, 5], [27, 32]],
            }
        ],
        "categories": [{"supercategory": "object", "id": 1, "name": "object"}],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["separateGT_train", "separateGT_val", "mergedGT_test"])
def test_mdetrs_own_file_comes_back_as_identical_records(name: str, samples: Path, tmp_path: Path) -> None:
    original = samples / "goldg" / f"final_flickr_{name}.json"
    before = read(original)
    assert all(isinstance(item, Record) for item in before)
    exporter = Mdetr(name=f"flickr_{name}")
    exporter.write([to_batch(before)], str(tmp_path), {"flickr": SourceInfo("flickr", "", "", "", "")})
    assert read(tmp_path / f"final_flickr_{name}.json") == before
    ours = json.loads((tmp_path / f"final_flickr_{name}.json").read_bytes())
    theirs = json.loads(original.read_bytes())
    sizes = [{**image, "height": int(image["height"]), "width": int(image["width"])} for image in theirs["images"]]
    assert ours["images"] == sizes
    # Spans of one box come in the order of the text; MDETR's script lists them in the order of the entities.
    ordered = [{**row, "tokens_positive": sorted(row["tokens_positive"])} for row in theirs["annotations"]]
    assert by_id(ours["annotations"]) == by_id(ordered)


def by_id(rows: list[dict]) -> list[dict]:
    return sorted(rows, key=lambda row: row["id"])


def test_odvg_of_mdetrs_file_equals_mmdets_conversion(samples: Path) -> None:
    batch = to_batch(read(samples / "goldg/final_flickr_separateGT_train.json"))
    lines = [json.loads(line) for line in Odvg().encode(batch).splitlines()]
    reference = [json.loads(line) for line in (samples / "odvg/flickr_separateGT_train_vg.jsonl").open()]
    assert len(lines) == 40
    assert sum(len(line["grounding"]["regions"]) for line in lines) == 123
    assert lines == reference


@few
@given(many=st.lists(records("grounding", crowds=False), min_size=1, max_size=3))
def test_boxes_and_spans_of_any_record_stand_in_the_file(tmp_path: Path, many: list[Record]) -> None:
    Mdetr(name="any").write([to_batch(many)], str(tmp_path), {"pets": SourceInfo("pets", "", "", "", "")})
    document = json.loads((tmp_path / "final_any.json").read_bytes())
    assert [image["caption"] for image in document["images"]] == [record.text for record in many]
    assert len({image["id"] for image in document["images"]}) == len(many)
    for image, record in zip(document["images"], many, strict=True):
        rows = [row for row in document["annotations"] if row["image_id"] == image["id"]]
        expected = sorted(
            (list(box.xyxy[:2]), [list(span) for span in region.spans])
            for region in record.regions
            for box in region.boxes
        )
        assert sorted((row["bbox"][:2], row["tokens_positive"]) for row in rows) == expected
