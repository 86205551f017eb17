import json
from pathlib import Path
from typing import Any

import pytest

from llmdet.errors import FormatError, MissingError
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.mdetr import MdetrJson, merge_words, split_of
from llmdet.sources.source import Item
from llmdet.validate import faults

CAPTION = "a dog chases a dog with a red ball."
IMAGE = {
    "file_name": "2331.jpg",
    "height": "60",
    "width": "100",
    "id": 12,
    "original_id": "2331",
    "caption": CAPTION,
    "tokens_negative": [[0, 1]],
    "data_source": "vg",
    "dataset_name": "mixed",
}


DEEP: list[Any] = []
for _ in range(400):  # deeper than json can be written
    DEEP = [DEEP]


def annotation(spans: Any, bbox: Any = (10, 20, 30, 25), **more: Any) -> dict[str, Any]:
    bbox = list(bbox) if isinstance(bbox, tuple) else bbox
    row = {"area": 750.0, "iscrowd": 0, "image_id": 12, "category_id": 1, "id": 40, "bbox": bbox}
    return row | {"tokens_positive": spans} | more


def read(folder: Path, images: list[Any], annotations: list[Any], name: str = "final_mixed_train.json") -> list[Item]:
    path = folder / name
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [], "info": {}}))
    return list(MdetrJson(annotations=str(path), name="gqa", licence="L", address="A").read())


def only(items: list[Item]) -> Record:
    (record,) = items
    assert isinstance(record, Record)
    assert faults(record) == []
    return record


def test_a_row_becomes_a_record_with_word_spans_made_whole(tmp_path: Path) -> None:
    record = only(read(tmp_path, [IMAGE], [annotation([[26, 29], [30, 34], [24, 25]])]))
    assert (record.id, record.image_id, record.text_id) == ("gqa/2331/12", "2331", "12")
    assert (record.image, record.width, record.height, record.text) == ("2331.jpg", 100, 60, CAPTION)
    assert (record.kind, record.split, record.licence, record.origin) == ("grounding", "train", "L", "A")
    (region,) = record.regions
    assert (region.phrases, region.spans) == (("a red ball",), ((24, 34),))
    (box,) = region.boxes
    assert (box.xyxy, box.order, box.annotation_id, box.area) == ((10.0, 20.0, 40.0, 45.0), 0, "40", 750.0)
    assert record.extra == {
        "id": 12,
        "original_id": "2331",
        "tokens_negative": [[0, 1]],
        "data_source": "vg",
        "dataset_name": "mixed",
    }


def test_each_box_of_a_repeated_phrase_keeps_its_own_spans(tmp_path: Path) -> None:
    """goldg2odvg would make one region "a dog" of these, both boxes at the first dog's place."""
    rows = [annotation([[0, 5]], id=1), annotation([[13, 18]], (50, 20, 30, 25), id=2), annotation([[0, 5]], id=3)]
    record = only(read(tmp_path, [IMAGE], rows))
    assert [(region.spans, [box.annotation_id for box in region.boxes]) for region in record.regions] == [
        (((0, 5),), ["1", "3"]),
        (((13, 18),), ["2"]),
    ]


def test_phrases_apart_are_not_taken_for_one_phrase_of_the_same_letters(tmp_path: Path) -> None:
    """goldg2odvg keys regions by joined phrases: ("a red", "ball") would fall together with "a red ball"."""
    image = IMAGE | {"caption": "a red ball, a red box, ball"}
    rows = [annotation([[0, 10]], id=1), annotation([[12, 17], [23, 27]], (50, 20, 30, 25), id=2)]
    record = only(read(tmp_path, [image], rows))
    assert [region.phrases for region in record.regions] == [("a red ball",), ("a red", "ball")]


def test_boxes_keep_what_lies_outside_the_image_on_all_sides(tmp_path: Path) -> None:
    """goldg2odvg cuts x2 and y2 to the image, and x1 and y1 not."""
    record = only(read(tmp_path, [IMAGE], [annotation([[0, 5]], (-4, -3, 200, 100))]))
    assert record.boxes[0].xyxy == (-4.0, -3.0, 196.0, 97.0)


def test_a_caption_without_boxes_is_a_record_without_regions(tmp_path: Path) -> None:
    assert only(read(tmp_path, [IMAGE], [])).regions == ()


def test_flickr_ids_come_from_the_photo_and_the_sentence(tmp_path: Path) -> None:
    image = {key: value for key, value in IMAGE.items() if key != "original_id"}
    record = only(read(tmp_path, [image | {"original_img_id": 77, "sentence_id": 0}], []))
    assert record.id == "gqa/77/0"


def test_what_else_an_annotation_says_is_kept_by_its_place(tmp_path: Path) -> None:
    record = only(read(tmp_path, [IMAGE], [annotation([[0, 5]], phrase_ids=[2])]))
    assert record.extra["annotations"] == {"0": {"phrase_ids": [2]}}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("text", "row_malformed"),
        (None, "row_malformed"),
        (annotation([[0, 5]], None), "box_malformed"),
        (annotation([[0, 5]], ("1", 2, 3, 4)), "box_malformed"),
        (annotation([[0, 5]], (1, 2, 3)), "box_malformed"),
        (annotation([[0, 5]], (1, True, 3, 4)), "box_malformed"),
        (annotation([[0, 5]], (10, 20, 0.5, 25)), "box_below_one_pixel"),
        (annotation([[0, 5]], (100, 20, 30, 25)), "box_outside_image"),
        (annotation(None), "spans_malformed"),
        (annotation([[0, 5, 6]]), "spans_malformed"),
        (annotation([["0", 5]]), "spans_malformed"),
        (annotation([[0.0, 5.0]]), "spans_malformed"),
        (annotation([]), "phrase_missing"),
        (annotation([[0, 36]]), "span_outside_text"),
        (annotation([[5, 5]]), "span_outside_text"),
        (annotation([[-2, 5]]), "span_outside_text"),
        (annotation([[0, 5]], iscrowd=1), "crowd"),
        (annotation([[0, 5]], phrase_ids=DEEP), "row_malformed"),
    ],
)
def test_a_bad_annotation_costs_that_box_only(tmp_path: Path, row: Any, reason: str) -> None:
    good = annotation([[13, 18]], id=7)
    *rejects, record = read(tmp_path, [IMAGE], [row, good])
    assert isinstance(record, Record)
    assert [box.annotation_id for box in record.boxes] == ["7"]
    (reject,) = rejects
    assert isinstance(reject, Reject)
    assert (reject.level, reject.reason, reject.stage) == ("annotation", reason, "ingest")
    assert reject.kind == ("policy" if reason == "crowd" else "fault")


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ([], "row_malformed"),
        (IMAGE | {"id": None}, "row_malformed"),
        (IMAGE | {"file_name": 5}, "row_malformed"),
        (IMAGE | {"caption": None}, "row_malformed"),
        (IMAGE | {"caption": " "}, "text_empty"),
        (IMAGE | {"height": "x"}, "row_malformed"),
        (IMAGE | {"height": 0}, "row_malformed"),
        (IMAGE | {"width": -1}, "row_malformed"),
        (IMAGE | {"width": 5.5}, "row_malformed"),
        (IMAGE | {"width": 2**31}, "row_malformed"),
        (IMAGE | {"width": "²"}, "row_malformed"),
        (IMAGE | {"tokens_negative": DEEP}, "row_malformed"),
        (IMAGE, "id_repeated"),
    ],
)
def test_a_bad_image_row_is_a_rejected_record_and_the_rest_is_read(tmp_path: Path, image: Any, reason: str) -> None:
    record, reject = read(tmp_path, [IMAGE, image], [])
    assert isinstance(record, Record)
    assert isinstance(reject, Reject)
    assert (reject.level, reject.kind, reject.reason) == ("record", "fault", reason)


def test_an_annotation_of_no_image_is_a_reject(tmp_path: Path) -> None:
    _, reject = read(tmp_path, [IMAGE], [annotation([[0, 5]], image_id=13)])
    assert isinstance(reject, Reject)
    assert (reject.id, reject.level, reject.reason) == ("gqa/13/0#40", "annotation", "image_unknown")


@pytest.mark.parametrize("document", [[], {"images": []}, {"images": [{"id": 1}], "annotations": []}, {"a": 1}, 3])
def test_another_format_is_refused_in_one_line(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FormatError, match=r"x\.json is not an MDETR json: expected the lists"):
        list(MdetrJson(annotations=str(path), name="n", licence="", address="").read())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        list(MdetrJson(annotations=str(tmp_path / "none.json"), name="n", licence="", address="").read())


@pytest.mark.parametrize(
    ("spans", "text", "expected"),
    [
        ([(4, 7), (0, 3)], "one man in", ((0, 7),)),
        ([(0, 3), (0, 3)], "one man", ((0, 3),)),
        ([(0, 3), (4, 7)], "one-man", ((0, 3), (4, 7))),
        ([(0, 3), (5, 8)], "one  man", ((0, 3), (5, 8))),
        ([(0, 3), (8, 10)], "one man in", ((0, 3), (8, 10))),
    ],
)
def test_words_one_blank_apart_are_one_phrase(
    spans: list[tuple[int, int]], text: str, expected: tuple[tuple[int, int], ...]
) -> None:
    assert merge_words(spans, text) == expected


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("d/final_flickr_separateGT_val.json", "val"),
        ("final_mixed_train_no_coco.json", "train"),
        ("finetune_refcoco+_testA.json", "testA"),
        ("finetune_refcocog_test.json", "test"),
        ("trains.json", ""),
    ],
)
def test_the_split_stands_in_the_file_name(name: str, split: str) -> None:
    assert split_of(name) == split


def test_real_mixed_rows_of_coco_and_visual_genome(samples: Path) -> None:
    path = samples / "quoted_rows" / "mdetr_final_mixed_train_two_rows.json"
    coco, genome = MdetrJson(annotations=str(path), name="gqa", licence="", address="").read()
    assert isinstance(coco, Record)
    assert isinstance(genome, Record)
    assert (coco.id, coco.image) == ("gqa/581857/0", "COCO_train2014_000000581857.jpg")
    assert coco.regions[0].phrases == ("couple",)
    assert coco.boxes[0].xyxy == (
        153.87387387387386,
        258.56,
        153.87387387387386 + 144.8978978978979,
        258.56 + 208.64000000000001,
    )
    assert (genome.id, genome.text) == ("gqa/2334951/1107630", "one man wearing pink tie.")
    assert (genome.regions[0].phrases, genome.regions[0].spans) == (("one man",), ((0, 7),))
    assert genome.boxes[0].xyxy == (33.0, 13.0, 247.0, 498.0)
    assert faults(coco) == faults(genome) == []
