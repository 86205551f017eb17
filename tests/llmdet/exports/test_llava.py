import gzip
import json
from pathlib import Path

from llmdet.exports.llava import Llava
from llmdet.record import Caption, Record, to_batch
from llmdet.sources.llava import Llava as LlavaSource
from tests.llmdet.example_records import FULL, PETS, SENTENCE


def test_one_sample_per_caption_and_none_for_a_record_without(tmp_path: Path) -> None:
    outcome = Llava().write([to_batch([FULL, SENTENCE])], str(tmp_path), {"pets": PETS})
    human = {"from": "human", "value": "<image>\nDescribe the image in detail."}
    assert json.loads((tmp_path / "llava.json").read_bytes()) == [
        {
            "id": "pets/12/0",
            "image": "a/12.jpg",
            "conversations": [human, {"from": "gpt", "value": "A dog beside a cat."}],
        },
        {"id": "pets/12/0#1", "image": "a/12.jpg", "conversations": [human, {"from": "gpt", "value": "Two pets."}]},
    ]
    assert (outcome.records, outcome.boxes) == (1, 0)
    assert outcome.lost["records without caption"] == 1
    assert outcome.lost["boxes"] == 4


def test_long_conversation_of_the_source_is_kept_with_the_new_answer(tmp_path: Path) -> None:
    told = [
        {"from": "human", "value": "What?\n<image>"},
        {"from": "gpt", "value": "old"},
        {"from": "human", "value": "And?"},
        {"from": "gpt", "value": "More."},
    ]
    record = Record(
        "l/1/0", "l", "1", "0", "grounding", "1.jpg", "l", 9, 9, "x",
        captions=(Caption("new"),), extra={"conversations": told},
    )  # fmt: skip
    Llava(compression="gzip").write([to_batch([record])], str(tmp_path), {})
    said = json.loads(gzip.decompress((tmp_path / "llava.json.gz").read_bytes()))[0]["conversations"]
    assert [turn["value"] for turn in said] == ["What?\n<image>", "new", "And?", "More."]


def test_real_rows_keep_their_questions_and_answers(samples: Path, tmp_path: Path) -> None:
    original = samples / "quoted_rows/llava_pretrain_rows.json"
    items = [item for item in LlavaSource(annotations=str(original), images="").read() if isinstance(item, Record)]
    Llava().write([to_batch(items)], str(tmp_path), {})
    theirs = json.loads(original.read_bytes())
    ours = json.loads((tmp_path / "llava.json").read_bytes())
    assert [(row["image"], row["conversations"]) for row in ours] == [
        (row["image"], row["conversations"]) for row in theirs
    ]
