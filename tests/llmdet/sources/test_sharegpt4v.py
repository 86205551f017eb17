"""ShareGPT4V's captions of COCO photos become records under COCO's ids; other photos are left out by choice."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmdet import rejects
from llmdet.errors import FormatError
from llmdet.record import Record
from llmdet.rejects import Reject
from llmdet.sources import rows
from llmdet.sources.sharegpt4v import ShareGpt4v

MARKET = "In the heart of a bustling market, a woman in a blue apron arranges oranges."


def row(image: Any, answer: str = MARKET) -> dict[str, Any]:
    turns = [{"from": "human", "value": "What do you see?\n<image>"}, {"from": "gpt", "value": answer}]
    return {"id": "000000121586", "image": image, "conversations": turns}


def source(tmp_path: Path, *values: Any, **settings: Any) -> ShareGpt4v:
    (tmp_path / "cap100k.json").write_text(json.dumps(values))
    return ShareGpt4v(annotations=str(tmp_path / "cap100k.json"), images=str(tmp_path), **settings)


def test_a_coco_photo_has_cocos_id_and_the_caption(tmp_path: Path) -> None:
    (record,) = source(tmp_path, row("coco/train2017/000000121586.jpg")).read()
    assert isinstance(record, Record)
    assert (record.id, record.image_id, record.image) == ("sharegpt4v/121586/0", "121586", "000000121586.jpg")
    assert [(caption.text, caption.provenance.origin) for caption in record.captions] == [(MARKET, "source")]
    assert record.extra["human"] == "What do you see?\n<image>"
    assert record.licence.startswith("CC-BY-NC-4.0")


def test_photos_of_other_sets_are_left_out_by_choice(tmp_path: Path) -> None:
    paths = ("sam/images/sa_1.jpg", "llava/llava_pretrain/images/00453/004539375.jpg", "coco/train2017/", 5, None)
    left_out = list(source(tmp_path, *(row(path) for path in paths), row("coco/train2017/000000000009.jpg")).read())[
        :-1
    ]
    assert [(reject.reason, reject.kind) for reject in left_out if isinstance(reject, Reject)] == [
        ("other_images", "policy"),
        ("other_images", "policy"),
        ("other_images", "policy"),
        ("row_malformed", "fault"),
        ("no_image", "policy"),
    ]


def test_all_photos_are_kept_with_an_empty_folder(tmp_path: Path) -> None:
    (record,) = source(tmp_path, row("sam/images/sa_1.jpg"), folder="").read()
    assert isinstance(record, Record)
    assert (record.image_id, record.image) == ("000000121586", "sam/images/sa_1.jpg")


@pytest.mark.parametrize("answer", ["", "\n"])
def test_an_empty_caption_is_a_reject(tmp_path: Path, answer: str) -> None:
    (reject,) = source(tmp_path, row("coco/train2017/000000000009.jpg", answer)).read()
    assert isinstance(reject, Reject)
    assert rejects.by_reason([reject]) == {"caption_empty": 1}


def test_a_long_list_is_read_item_by_item_to_the_same_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [row(f"coco/train2017/{number:012}.jpg", f"caption {number}") for number in range(50)]
    whole = list(source(tmp_path, *given, 5).read())
    monkeypatch.setattr(rows, "_LARGE", 0)
    assert list(source(tmp_path, *given, 5).read()) == whole
    assert [type(item) for item in whole] == [Record] * 50 + [Reject]
    (tmp_path / "cap100k.json").write_text(json.dumps(given)[:-5])
    with pytest.raises(FormatError, match="cap100k"):
        list(ShareGpt4v(annotations=str(tmp_path / "cap100k.json"), images="").read())
