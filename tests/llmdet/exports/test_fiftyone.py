import json
from pathlib import Path

from llmdet.exports.fiftyone import FiftyOne
from llmdet.record import to_batch
from llmdet.sources.source import SourceInfo
from tests.llmdet.example_records import FULL, PETS, SENTENCE


def test_samples_have_fiftyones_serialized_form(tmp_path: Path) -> None:
    outcome = FiftyOne().write([to_batch([FULL])], str(tmp_path), {"pets": PETS})
    (sample,) = json.loads((tmp_path / "samples.json").read_bytes())["samples"]
    detections = {key: sample.pop(key) for key in ("ground_truth", "predictions")}
    assert sample == {
        "filepath": "a/12.jpg",
        "_media_type": "image",
        "tags": ["train", "pets"],
        "metadata": {"_cls": "ImageMetadata", "width": 100, "height": 80},
        "record_id": "pets/12/0",
        "text": "dog. tv. cat. ",
        "captions": ["A dog beside a cat.", "Two pets."],
        "nouns": ["dog", "grass"],
    }
    assert [detections["ground_truth"]["_cls"], len(detections["ground_truth"]["detections"])] == ["Detections", 2]
    assert detections["predictions"] == {
        "_cls": "Detections",
        "detections": [
            {
                "_cls": "Detection",
                "tags": [],
                "label": "dog",
                "bounding_box": [0.05, 0.075, 0.025, 0.925],
                "phrase": "dog",
                "spans": [[0, 3]],
                "iscrowd": 0,
                "confidence": 0.5,
                "annotation_id": "32",
                "caption": 'a "brown" dog\non grass',
            }
        ],
    }
    assert outcome.lost == {"negatives": 1, "masks": 1}


def test_metadata_has_no_version_so_that_the_plain_layout_is_read(tmp_path: Path) -> None:
    FiftyOne(name="pets").write([to_batch([FULL])], str(tmp_path), {"pets": PETS})
    metadata = json.loads((tmp_path / "metadata.json").read_bytes())
    assert metadata == {
        "name": "pets",
        "media_type": "image",
        "info": {"sources": [{"name": "pets", "licence": "CC0", "address": "https://pets.example"}]},
    }


def test_pictures_lie_in_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "pets/a").mkdir(parents=True)
    (tmp_path / "pets/a/12.jpg").write_bytes(b"jpeg")
    sources = {"pets": SourceInfo("pets", "coco", "", "", str(tmp_path / "pets"))}
    outcome = FiftyOne(images="copy").write([to_batch([FULL, SENTENCE])], str(tmp_path / "out"), sources)
    first, second = json.loads((tmp_path / "out/samples.json").read_bytes())["samples"]
    assert (tmp_path / "out" / first["filepath"]).read_bytes() == b"jpeg"
    assert second["ground_truth"]["detections"][0]["label"] == "a man"
    assert outcome.files == ("metadata.json", "samples.json", "data/")
    assert outcome.lost["pictures not found"] == 1
