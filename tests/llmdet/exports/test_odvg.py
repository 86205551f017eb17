import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.errors import SettingError
from llmdet.exports.odvg import Odvg
from llmdet.record import Box, Record, Region, to_batch
from llmdet.sources.coco import Coco
from llmdet.sources.odvg import Odvg as OdvgSource
from llmdet.sources.source import Category, SourceInfo
from tests.llmdet.example_records import FULL, PETS, SENTENCE, few, records


def rows(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.decode().splitlines()]


def test_grounding_line_is_what_mmdet_reads() -> None:
    assert Odvg().encode(to_batch([FULL])).decode() == (
        '{"filename":"a/12.jpg","height":80,"width":100,"grounding":{"caption":"dog. tv. cat. ","regions":['
        '{"bbox":[[1.5,2.0,30.25,40.0],[5.0,6.0,7.5,80.0]],"phrase":"dog","tokens_positive":[[0,3]]},'
        '{"bbox":[0.1,0.2,50.0,60.0],"phrase":"cat","tokens_positive":[[9,12]]}]}}\n'
    )


def test_region_with_two_spans_has_a_list_of_phrases_and_quotes_are_escaped() -> None:
    grounding = rows(Odvg().encode(to_batch([SENTENCE])))[0]["grounding"]
    assert grounding["caption"] == 'A man in a "café" waves to a man.'
    assert grounding["regions"] == [
        {"bbox": [10.0, 20.0, 30.0, 40.0], "phrase": ["A man", "a man"], "tokens_positive": [[0, 5], [27, 32]]}
    ]


def test_detection_line_has_instances_in_the_order_of_the_source_and_labels_by_rank_of_id() -> None:
    assert rows(Odvg(form="od").encode(to_batch([FULL]), {"pets": PETS})) == [
        {
            "filename": "a/12.jpg",
            "height": 80,
            "width": 100,
            "detection": {
                "instances": [
                    {"bbox": [5.0, 6.0, 7.5, 80.0], "label": 1, "category": "dog"},
                    {"bbox": [0.1, 0.2, 50.0, 60.0], "label": 0, "category": "cat"},
                    {"bbox": [1.5, 2.0, 30.25, 40.0], "label": 1, "category": "dog"},
                ]
            },
        }
    ]


def test_image_without_instances_keeps_its_line() -> None:
    empty = Record("pets/1/0", "pets", "1", "0", "detection", "1.jpg", "pets", 10, 20, "dog. ")
    assert Odvg(form="od").encode(to_batch([empty]), {"pets": PETS}) == (
        b'{"filename":"1.jpg","height":20,"width":10,"detection":{"instances":[]}}\n'
    )
    assert rows(Odvg().encode(to_batch([empty])))[0]["grounding"] == {"caption": "dog. ", "regions": []}


def test_crowd_boxes_and_sentences_are_left_out_and_counted() -> None:
    crowd = Record(
        "pets/1/0", "pets", "1", "0", "detection", "1.jpg", "pets", 10, 20, "dog. ",
        (Region(("dog",), ((0, 3),), (Box((0.0, 0.0, 9.0, 9.0), crowd=True), Box((1.0, 1.0, 5.0, 5.0))), 7),),
    )  # fmt: skip
    batch = to_batch([crowd, SENTENCE])
    od = Odvg(form="od")
    assert [len(row["detection"]["instances"]) for row in rows(od.encode(batch, {"pets": PETS}))] == [1]
    counted = od.count(batch, {"pets": PETS})
    assert (counted.records, counted.boxes) == (1, 1)
    assert counted.lost == {"crowd boxes": 1, "records without categories": 1}
    assert Odvg().count(batch).lost == {"crowd boxes": 1, "regions without boxes": 1}


def test_what_the_format_cannot_hold_is_counted() -> None:
    assert Odvg().count(to_batch([FULL])).lost == {
        "image captions": 2,
        "tags": 2,
        "negatives": 1,
        "box captions": 1,
        "masks": 1,
        "scores": 1,
        "pseudo marks": 1,
        "annotation ids": 3,
        "areas": 1,
    }


def test_several_sources_share_the_label_of_a_name(tmp_path: Path) -> None:
    zoo = SourceInfo("zoo", "coco", "", "", "", (Category(1, "lion"), Category(2, "dog")))
    regions = (
        Region(("dog",), ((0, 3),), (Box((0.0, 0.0, 9.0, 9.0), 0),), 2),
        Region(("lion",), ((5, 9),), (Box((1.0, 1.0, 5.0, 5.0), 1),), 1),
    )
    lion = Record("zoo/1/0", "zoo", "1", "0", "detection", "1.jpg", "zoo", 10, 20, "dog. lion. ", regions)
    Odvg(form="od").write([to_batch([FULL, lion])], str(tmp_path), {"pets": PETS, "zoo": zoo})
    assert json.loads((tmp_path / "label_map.json").read_text()) == {"0": "cat", "1": "dog", "2": "tv", "3": "lion"}
    lines = rows((tmp_path / "odvg.jsonl").read_bytes())
    assert [[i["label"] for i in row["detection"]["instances"]] for row in lines] == [[1, 0, 1], [1, 3]]


def test_detection_form_without_categories_is_refused() -> None:
    with pytest.raises(SettingError, match="--form vg"):
        Odvg(form="od").encode(to_batch([FULL]), {})


def test_coco_sample_equals_mmdets_conversion(samples: Path, tmp_path: Path) -> None:
    folder = samples / "coco" / "coco_tiny_val"
    source = Coco(annotations=str(folder / "annotations/instances_val2017.json"), images=str(folder / "val2017"))
    batch = to_batch([item for item in source.read() if isinstance(item, Record)])
    written = Odvg(form="od").write([batch.slice(0, 33), batch.slice(33)], str(tmp_path), {"coco": source.info()})
    assert (written.records, written.boxes, written.files) == (80, 804, ("odvg.jsonl", "label_map.json"))
    assert rows((tmp_path / "odvg.jsonl").read_bytes()) == rows((samples / "odvg/coco_tiny_val_od.jsonl").read_bytes())
    reference = json.loads((samples / "odvg/coco2017_label_map.json").read_text())
    assert json.loads((tmp_path / "label_map.json").read_text()) == reference
    vg = rows(Odvg().encode(batch))
    od = rows((tmp_path / "odvg.jsonl").read_bytes())
    for grounding, detection in zip(vg, od, strict=True):
        assert sorted(boxes_of(grounding)) == sorted(
            (item["category"], *item["bbox"]) for item in detection["detection"]["instances"]
        )


def boxes_of(row: dict) -> list[tuple]:
    found = []
    for region in row["grounding"]["regions"]:
        boxes = region["bbox"] if isinstance(region["bbox"][0], list) else [region["bbox"]]
        start, end = region["tokens_positive"][0]
        found += [(row["grounding"]["caption"][start:end], *box) for box in boxes]
    return found


@few
@given(st.lists(records(), max_size=4))
def test_lines_parse_back_to_the_same_boxes_phrases_and_spans(many: list[Record]) -> None:
    parsed = rows_by_end_of_line(Odvg().encode(to_batch(many)))
    assert len(parsed) == len(many)
    for row, record in zip(parsed, many, strict=True):
        expected = []
        for region in record.regions:
            boxes = [list(box.xyxy) for box in region.boxes if not box.crowd]
            if boxes:
                expected.append(
                    {
                        "bbox": boxes[0] if len(boxes) == 1 else boxes,
                        "phrase": region.phrases[0] if len(region.phrases) == 1 else list(region.phrases),
                        "tokens_positive": [list(span) for span in region.spans],
                    }
                )
        assert row == {
            "filename": record.image,
            "height": record.height,
            "width": record.width,
            "grounding": {"caption": record.text, "regions": expected},
        }


@few
@given(st.lists(records("detection"), max_size=4))
def test_instances_parse_back_to_the_same_boxes_and_labels(many: list[Record]) -> None:
    names = {2: (0, "cat"), 7: (1, "dog"), 9: (2, "tv")}
    parsed = rows_by_end_of_line(Odvg(form="od").encode(to_batch(many), {"pets": PETS}))
    for row, record in zip(parsed, many, strict=True):
        # sorted() is stable, so boxes of the same order stand as the regions list them
        pairs = sorted(
            ((box, region) for region in record.regions for box in region.boxes if not box.crowd),
            key=lambda p: p[0].order,
        )
        assert row["detection"]["instances"] == [
            {"bbox": list(box.xyxy), "label": names[region.category_id][0], "category": names[region.category_id][1]}
            for box, region in pairs
        ]


def rows_by_end_of_line(data: bytes) -> list[dict]:
    """Only a line feed ends a line of jsonl; str.splitlines would also break at U+2028."""
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def test_mmdets_lines_come_back_unchanged(samples: Path, tmp_path: Path) -> None:
    grounding, detection = samples / "odvg/flickr_separateGT_train_vg.jsonl", samples / "odvg/coco_tiny_val_od.jsonl"
    source = OdvgSource(annotations=str(grounding), images="")
    read = [item for item in source.read() if isinstance(item, Record)]
    assert rows(Odvg().encode(to_batch(read))) == rows(grounding.read_bytes())
    labels = samples / "odvg/coco2017_label_map.json"
    source = OdvgSource(annotations=str(detection), images="", label_map=str(labels))
    read = [item for item in source.read() if isinstance(item, Record)]
    Odvg(form="od").write([to_batch(read)], str(tmp_path), {"odvg": source.info()})
    assert rows((tmp_path / "odvg.jsonl").read_bytes()) == rows(detection.read_bytes())
    assert json.loads((tmp_path / "label_map.json").read_text()) == json.loads(labels.read_text())
    again = OdvgSource(annotations=str(tmp_path / "odvg.jsonl"), images="", label_map=str(tmp_path / "label_map.json"))
    assert [item for item in again.read() if isinstance(item, Record)] == read
