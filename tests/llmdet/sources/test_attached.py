"""COCO with ShareGPT4V's captions and All-Seeing V2's phrases, from files on disk."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from llmdet.attaching import AttachSettings, wants_lmm
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.asv2 import Asv2
from llmdet.sources.attached import Attached
from llmdet.sources.coco import Coco
from llmdet.sources.sharegpt4v import ShareGpt4v
from llmdet.validate import faults


def turns(answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": "<image>\nTell."}, {"from": "gpt", "value": answer}]


def source(tmp_path: Path, settings: AttachSettings) -> Attached:
    images = [{"id": n, "file_name": f"{n:012}.jpg", "width": 200, "height": 100} for n in (9, 25)]
    coco: dict[str, Any] = {
        "images": images,
        "annotations": [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0, "area": 1.0}],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    photo = "coco/train2017/000000000009.jpg"
    wall = "A <ref>person</ref><box>[[0, 0, 500, 999]]</box> by a <ref>wall</ref><box>[[0, 0, 999, 999]]</box>."
    files = {
        "coco.json": coco,
        "long.json": [{"id": "000000000009", "image": photo, "conversations": turns("A person stands.")}],
        "rec_wo_square_pad.json": [{"image": photo, "conversations": turns(wall)}],
    }
    for name, value in files.items():
        (tmp_path / name).write_text(json.dumps(value))
    for image in images:
        Image.new("RGB", (200, 100)).save(tmp_path / str(image["file_name"]))
    folder = str(tmp_path)
    return Attached(
        base=Coco(annotations=f"{folder}/coco.json", images=folder),
        givers=(
            ShareGpt4v(annotations=f"{folder}/long.json", images=folder),
            Asv2(annotations=f"{folder}/rec_wo_square_pad.json", images=folder),
        ),
        settings=settings,
    )


def test_each_caption_makes_a_record_with_cocos_boxes_and_the_new_phrases(tmp_path: Path) -> None:
    items = list(source(tmp_path, AttachSettings()).read())
    records = [item for item in items if isinstance(item, Record)]
    assert [(item.reason, item.kind) for item in items if isinstance(item, Reject)] == [("name_known", "policy")]
    assert from_batch(to_batch(records)) == records
    assert [fault for record in records for fault in faults(record)] == []
    assert [record.id for record in records] == ["coco/9/0+sharegpt4v-0", "coco/9/0+asv2-0", "coco/25/0"]
    assert [[caption.text for caption in record.captions] for record in records] == [
        ["A person stands."],
        ["A person by a wall."],
        [],
    ]
    assert [len(record.boxes) for record in records] == [1, 2, 0]
    assert records[1].text.endswith("wall. ")
    assert records[1].boxes[1].xyxy == (0.0, 0.0, 200.0, 100.0)
    assert [wants_lmm(record) for record in records] == [False, False, True]


def test_it_has_the_name_the_files_and_the_classes_of_its_base(tmp_path: Path) -> None:
    attached = source(tmp_path, AttachSettings())
    assert (attached.name, attached.images) == ("coco", str(tmp_path))
    assert attached.annotations.endswith("coco.json")
    assert [category.name for category in attached.info().categories] == ["person", "car"]
