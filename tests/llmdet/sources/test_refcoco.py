import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from llmdet.errors import FormatError, MissingError, SettingError
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources.refcoco import RefCoco, photo_name
from llmdet.validate import faults

REF: dict[str, Any] = {
    "ref_id": 7,
    "ann_id": 1719,
    "image_id": 581,
    "category_id": 1,
    "split": "testA",
    "sent_ids": [20, 21],
    "file_name": "COCO_train2014_000000000581_16.jpg",
    "sentences": [
        {"sent_id": 20, "sent": "woman in blue", "raw": "WOMAN in blue", "tokens": ["woman", "in", "blue"]},
        {"sent_id": 21, "sent": " left ", "raw": "left", "tokens": ["left"]},
    ],
}
IMAGES = [{"id": 581, "file_name": "COCO_train2014_000000000581.jpg", "width": 100, "height": 60}]
ANNOTATIONS = [
    {
        "id": 1719,
        "image_id": 581,
        "category_id": 1,
        "bbox": [10.5, 20, 30, 25.25],
        "area": 400.5,
        "iscrowd": 0,
        "segmentation": [[10.5, 20, 40, 20, 40, 45]],
    }
]


DEEP: list[Any] = []
for _ in range(400):  # deeper than json can be written
    DEEP = [DEEP]


NESTED: list[Any] = ["x"]  # short in a pickle, which names the inner list again; 10 ** 28 words in print
for _ in range(28):
    NESTED = [NESTED] * 10


def put(folder: Path, refs: Any, images: Any = IMAGES, annotations: Any = ANNOTATIONS, protocol: int = 2) -> Path:
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol))
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


def read(path: Path, **settings: Any) -> tuple[list[Record], list[Reject]]:
    items = list(RefCoco(annotations=str(path), images="train2014", **settings).read())
    records = [item for item in items if isinstance(item, Record)]
    assert [fault for record in records for fault in faults(record)] == []
    return records, [item for item in items if isinstance(item, Reject)]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_each_expression_becomes_a_record(tmp_path: Path, protocol: int) -> None:
    (first, second), rejects = read(put(tmp_path, [REF], protocol=protocol))
    assert rejects == []
    assert (first.id, first.image_id, first.text_id) == ("refcoco/581/20", "581", "20")
    assert (first.image, first.width, first.height) == ("COCO_train2014_000000000581.jpg", 100, 60)
    assert (first.text, first.kind, first.split) == ("woman in blue", "grounding", "testA")
    (region,) = first.regions
    assert (region.phrases, region.spans, region.category_id) == (("woman in blue",), ((0, 13),), 1)
    (box,) = region.boxes
    assert (box.xyxy, box.annotation_id, box.area, box.crowd) == ((10.5, 20.0, 40.5, 45.25), "1719", 400.5, False)
    assert json.loads(box.mask or "") == ANNOTATIONS[0]["segmentation"]
    assert first.extra == {
        "ref_id": 7,
        "file_name": "COCO_train2014_000000000581_16.jpg",
        "raw": "WOMAN in blue",
        "tokens": ["woman", "in", "blue"],
    }
    assert (second.id, second.text, second.regions[0].spans) == ("refcoco/581/21", "left", ((0, 4),))


def test_one_split_is_chosen_and_the_others_say_so(tmp_path: Path) -> None:
    records, rejects = read(put(tmp_path, [REF, REF | {"split": "val"}]), split="val", name="refcoco+")
    assert [record.id for record in records] == ["refcoco+/581/20", "refcoco+/581/21"]
    assert [(r.id, r.kind, r.reason) for r in rejects] == [("refcoco+/581/refs[0]", "policy", "other_split")]


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("COCO_train2014_000000581857_16.jpg", "COCO_train2014_000000581857.jpg"),
        ("COCO_train2014_000000581857.jpg", "COCO_train2014_000000581857.jpg"),
        ("COCO_train2014_000000581857_123456789012.jpg", "COCO_train2014_000000581857.jpg"),
        ("saiapr_12.jpg", "saiapr_12.jpg"),
    ],
)
def test_only_the_number_of_the_object_is_cut_from_a_name(name: str, photo: str) -> None:
    assert photo_name(name) == photo


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        (None, "row_malformed"),
        ([], "row_malformed"),
        (REF | {"ann_id": "1719"}, "row_malformed"),
        (REF | {"image_id": None}, "row_malformed"),
        (REF | {"category_id": 2**64}, "row_malformed"),
        (REF | {"category_id": True}, "row_malformed"),
        (REF | {"sentences": {}}, "row_malformed"),
        (REF | {"file_name": 3}, "row_malformed"),
        (REF | {"image_id": 5}, "image_unknown"),
        (REF | {"ann_id": 5}, "annotation_unknown"),
        (REF | {"sentences": [None]}, "row_malformed"),
        (REF | {"sentences": [{"sent_id": "1", "sent": "x"}]}, "row_malformed"),
        (REF | {"sentences": [{"sent_id": 10**5000, "sent": "x"}]}, "row_malformed"),  # longer than str() takes
        (REF | {"sentences": [{"sent_id": -1, "sent": "x"}]}, "row_malformed"),
        (REF | {"sentences": [NESTED]}, "row_malformed"),
        (REF | {"sentences": [{"sent_id": 1, "sent": NESTED}]}, "row_malformed"),
        (REF | {"sentences": [{"sent_id": 1, "sent": " "}]}, "text_empty"),
        (REF | {"sentences": [{"sent_id": 20, "sent": "again"}]}, "id_repeated"),
    ],
)
def test_a_bad_entry_costs_that_entry_only(tmp_path: Path, ref: Any, reason: str) -> None:
    records, (reject,) = read(put(tmp_path, [REF, ref]))
    assert [record.text_id for record in records] == ["20", "21"]
    assert (reject.level, reject.kind, reject.reason) == ("record", "fault", reason)


@pytest.mark.parametrize(
    ("images", "annotations", "reason"),
    [
        ([IMAGES[0] | {"width": "wide"}], ANNOTATIONS, "row_malformed"),
        (["x", None], ANNOTATIONS, "image_unknown"),
        (IMAGES, [None, {"id": [1719]}], "annotation_unknown"),
        (IMAGES, [ANNOTATIONS[0] | {"bbox": [1, 2, "3", 4]}], "box_malformed"),
        (IMAGES, [ANNOTATIONS[0] | {"bbox": [1, 2, 0, 4]}], "box_below_one_pixel"),
        (IMAGES, [ANNOTATIONS[0] | {"segmentation": DEEP}], "row_malformed"),
        (IMAGES, [ANNOTATIONS[0] | {"bbox": [100, 2, 9, 4]}], "box_outside_image"),
    ],
)
def test_a_bad_instances_row_is_a_reject_of_its_entry(
    tmp_path: Path, images: Any, annotations: Any, reason: str
) -> None:
    records, (reject,) = read(put(tmp_path, [REF], images, annotations))
    assert (records, reject.id, reject.reason) == ([], "refcoco/581/refs[0]", reason)


def test_odd_words_and_raw_texts_are_left_out_of_extra(tmp_path: Path) -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    ref = REF | {"sentences": [{"sent_id": 20, "sent": "a", "raw": 5, "tokens": cyclic}]}
    assert read(put(tmp_path, [ref]))[0][0].extra == {"ref_id": 7, "file_name": REF["file_name"]}


class Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_that_would_run_a_program_is_refused_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, [REF, Attack(f"touch {tmp_path / 'mark'}")])
    with pytest.raises(FormatError, match=r"refs\(unc\)\.p, byte \d+: the operation \w+ does more") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mark").exists()


def test_files_that_are_not_refs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a list of refs"):
        read(put(tmp_path, {"a": 1}))
    put(tmp_path, [REF])
    (tmp_path / "instances.json").write_text("[]")
    with pytest.raises(FormatError, match="is not COCO instances"):
        read(tmp_path)
    (tmp_path / "instances.json").unlink()
    with pytest.raises(MissingError, match=r"instances\.json"):
        read(tmp_path)


def test_a_folder_must_have_exactly_one_pickle(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no refs"):
        read(tmp_path)
    put(tmp_path, [REF])
    (tmp_path / "refs(google).p").write_bytes(b"")
    with pytest.raises(SettingError, match=r"name one of refs\(google\)\.p, refs\(unc\)\.p"):
        read(tmp_path)
    assert len(read(tmp_path / "refs(unc).p")[0]) == 2


def test_mdetrs_json_is_read_too(tmp_path: Path) -> None:
    image = {
        "file_name": "COCO_train2014_000000000581_16.jpg",
        "height": 60,
        "width": 100,
        "id": 3,
        "original_id": 581,
        "caption": "woman in blue",
        "dataset_name": "refcoco",
        "tokens_negative": [[0, 13]],
    }
    row = {"image_id": 3, "id": 9, "original_id": 1719, "bbox": [10, 20, 30, 25], "area": 5, "iscrowd": 0}
    row |= {"category_id": 1, "tokens_positive": [[0, 5]]}
    path = tmp_path / "finetune_refcoco_testB.json"
    path.write_text(json.dumps({"images": [image], "annotations": [row], "categories": []}))
    (record,), rejects = read(path)
    assert rejects == []
    assert (record.id, record.split, record.image) == ("refcoco/581/3", "testB", "COCO_train2014_000000000581.jpg")
    assert [(region.phrases, region.spans) for region in record.regions] == [(("woman",), ((0, 5),))]
    assert record.extra["annotations"] == {"0": {"original_id": 1719}}


def test_a_real_entry_is_joined_with_its_box(samples: Path, tmp_path: Path) -> None:
    """A real entry beside an instances file in the form of COCO's; the numbers of the box are made up."""
    refs = json.loads((samples / "quoted_rows" / "refs_unc_row.json").read_text())
    image = {"id": 581857, "file_name": "COCO_train2014_000000581857.jpg", "width": 427, "height": 640}
    row = {"id": 1719310, "image_id": 581857, "bbox": [150, 250, 140, 200]}
    records, rejects = read(put(tmp_path, refs, [image], [row]))
    assert rejects == []
    assert [(r.id, r.text, r.image) for r in records] == [
        ("refcoco/581857/0", "the lady with the blue shirt", "COCO_train2014_000000581857.jpg"),
        ("refcoco/581857/1", "lady with back to us", "COCO_train2014_000000581857.jpg"),
        ("refcoco/581857/2", "blue shirt", "COCO_train2014_000000581857.jpg"),
    ]
