"""mmdet's own ODVGDataset, and the transform that makes the texts it trains on, read what we export."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.exports.exporter import Exporter
from llmdet.exports.groundingcap import GroundingCap
from llmdet.exports.odvg import Odvg
from llmdet.record import Box, Caption, Record, Region, to_batch
from llmdet.sources.coco import Coco
from llmdet.sources.flickr30k import Flickr30k
from llmdet.sources.lvis import Lvis
from llmdet.sources.source import Source, SourceInfo
from llmdet.world import write_world
from tests.consumers.conftest import Mmdet
from tests.llmdet.example_records import PETS
from tests.llmdet.example_records import records as any_records

pytestmark = pytest.mark.mmdet

# --- what mmdet should hold, from the records -----------------------------------------------------------------------


def read(source: Source) -> tuple[list[Record], dict[str, SourceInfo]]:
    return [item for item in source.read() if isinstance(item, Record)], {source.name: source.info()}


def world(folder: Path, pairs: Any) -> Coco:
    annotations = write_world(folder / pairs, 12, 7, pairs)
    return Coco(annotations=str(annotations), images=str(folder / pairs / "images"), name=pairs)


def export(exporter: Exporter, records: Sequence[Record], sources: dict[str, SourceInfo], out: Path) -> Path:
    """The jsonl of an export."""
    return out / exporter.write([to_batch(records)], str(out), sources).files[0]


def visible(box: Box, record: Record) -> bool:
    """Whether mmdet's reader keeps a box: no side below a pixel, and a part of it inside the picture."""
    x1, y1, x2, y2 = box.xyxy
    inside = max(0, min(x2, record.width) - max(x1, 0)) * max(0, min(y2, record.height) - max(y1, 0))
    return x2 - x1 >= 1 and y2 - y1 >= 1 and inside > 0


def grounded(record: Record) -> tuple[list[tuple[list[float], int]], dict[str, Any]]:
    """(box, label) pairs and, by label, the phrase and its spans: a label is the rank of a region that has boxes."""
    with_boxes = [region for region in record.regions if any(not box.crowd for box in region.boxes)]
    pairs, phrases = [], {}
    for label, region in enumerate(with_boxes):
        kept = [list(box.xyxy) for box in region.boxes if not box.crowd and visible(box, record)]
        pairs += [(box, label) for box in kept]
        if kept:
            phrase = region.phrases[0] if len(region.phrases) == 1 else list(region.phrases)
            phrases[str(label)] = {"phrase": phrase, "tokens_positive": [list(span) for span in region.spans]}
    return pairs, phrases


def detected(record: Record, info: SourceInfo) -> list[tuple[list[float], int]]:
    """(box, label) pairs in the source's order: a label is the rank of a category id."""
    ids = sorted(category.id for category in info.categories)
    pairs = [(box, ids.index(region.category_id)) for region in record.regions for box in region.boxes]  # type: ignore[arg-type]
    return [(list(box.xyxy), label) for box, label in sorted(pairs, key=lambda pair: pair[0].order) if not box.crowd]


def pairs_of(sample: dict[str, Any]) -> list[tuple[list[float], int]]:
    return [(row["bbox"], row["bbox_label"]) for row in sample["parsed"]["instances"]]


def as_trained(pairs: list[tuple[list[float], int]]) -> list[list[float]]:
    """Boxes as tensors hold them, (n, 4) float32."""
    return np.array([box for box, _ in pairs], dtype=np.float32).reshape(-1, 4).tolist()


def assert_grounding_is_read(samples: list[dict[str, Any]], records: Sequence[Record]) -> None:
    assert len(samples) == len(records)
    for sample, record in zip(samples, records, strict=True):
        pairs, phrases = grounded(record)
        parsed, transformed = sample["parsed"], sample["transformed"]
        assert (parsed["width"], parsed["height"]) == (record.width, record.height)
        assert (parsed["text"], pairs_of(sample), parsed["phrases"]) == (record.text, pairs, phrases)
        assert transformed["boxes"] == as_trained(pairs)
        assert transformed["labels"] == [label for _, label in pairs]
        assert transformed["spans"] == {label: known["tokens_positive"] for label, known in phrases.items()}
        for label, known in phrases.items():
            said = [known["phrase"]] if isinstance(known["phrase"], str) else known["phrase"]
            # The spans still stand on their phrases in the text that is trained on.
            assert [transformed["text"][a:b] for a, b in transformed["spans"][label]] == [word.lower() for word in said]


def assert_detection_is_read(samples: list[dict[str, Any]], records: Sequence[Record], info: SourceInfo) -> None:
    names = [
        category.extra.get("original_name", category.name)
        for category in sorted(info.categories, key=lambda category: category.id)
    ]
    assert len(samples) == len(records)
    for sample, record in zip(samples, records, strict=True):
        pairs, transformed = detected(record, info), sample["transformed"]
        assert pairs_of(sample) == pairs
        assert sample["parsed"]["text"] == {str(label): name for label, name in enumerate(names)}
        assert transformed["boxes"] == as_trained(pairs)
        said = [[transformed["text"][a:b] for a, b in transformed["spans"][str(n)]] for n in transformed["labels"]]
        assert said == [[cleaned(names[label])] for _, label in pairs]


def cleaned(name: str) -> str:
    """A name as mmdet puts it into a text."""
    return re.sub(r"\(.*\)", "", name).replace("_", " ").replace("  ", " ").lower()


# --- worlds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["seen", "unseen"])
def test_grounding_lines_of_a_world_are_read(pairs: str, mmdet: Mmdet, tmp_path: Path) -> None:
    records, sources = read(world(tmp_path, pairs))
    samples = mmdet.samples(export(Odvg(), records, sources, tmp_path / "out"), images=sources[pairs].images)
    assert len(samples) == 12
    assert all(Path(sample["parsed"]["img_path"]).is_file() for sample in samples)
    assert_grounding_is_read(samples, records)


@pytest.mark.parametrize("pairs", ["seen", "unseen"])
def test_detection_lines_of_a_world_are_read(pairs: str, mmdet: Mmdet, tmp_path: Path) -> None:
    records, sources = read(world(tmp_path, pairs))
    lines = export(Odvg(form="od"), records, sources, tmp_path / "out")
    samples = mmdet.samples(lines, label_map=lines.with_name("label_map.json"))
    assert sum(len(pairs_of(sample)) for sample in samples) == sum(len(record.boxes) for record in records) > 12
    assert_detection_is_read(samples, records, sources[pairs])


def test_conversations_and_tags_do_not_disturb_mmdet(mmdet: Mmdet, tmp_path: Path) -> None:
    records, sources = read(world(tmp_path, "seen"))
    told = [
        replace(record, captions=(Caption(f'Scene "{record.image_id}"\nof shapes.'),), tags=("shape", "toy"))
        for record in records
    ]
    lines = export(GroundingCap(), told, sources, tmp_path / "out")
    assert lines.read_text().count('"conversations":') == 12
    assert_grounding_is_read(mmdet.samples(lines), told)


def test_pictures_beside_the_lines_are_where_they_say(mmdet: Mmdet, tmp_path: Path) -> None:
    records, sources = read(world(tmp_path, "seen"))
    lines = export(Odvg(images="copy"), records, sources, tmp_path / "out")
    for sample in mmdet.samples(lines, images=tmp_path / "out/images"):
        picture = Path(sample["parsed"]["img_path"])
        assert picture.read_bytes() == (tmp_path / "seen/images" / picture.name).read_bytes()


# --- records that no world has --------------------------------------------------------------------------------------


def test_two_spans_of_a_region_and_letters_beyond_ascii_are_read(mmdet: Mmdet, tmp_path: Path) -> None:
    text = 'Ein Mädchen 👧 zeigt auf "das Café". Das Mädchen lächelt.'
    spans = ((0, 11), (36, 47))
    girl = Region(tuple(text[a:b] for a, b in spans), spans, (Box((3.25, 4.0, 40.5, 60.125)), Box((0.0, 0.0, 9, 9), 1)))
    cafe = Region(("das Café",), ((25, 33),), (Box((-3.5, 2.0, 120.0, 70.0), 2),))  # partly outside
    record = Record(
        "x/1/0", "x", "1", "0", "grounding", "ä/1.jpg", "x", 100, 80, text, (girl, cafe), captions=(Caption("日本"),)
    )
    assert girl.phrases == ("Ein Mädchen", "Das Mädchen")
    (sample,) = mmdet.samples(export(GroundingCap(), [record], {}, tmp_path))
    assert_grounding_is_read([sample], [record])
    assert sample["parsed"]["img_path"].endswith("ä/1.jpg")
    assert [sample["transformed"]["text"][a:b] for a, b in sample["transformed"]["spans"]["0"]] == [
        "ein mädchen",
        "das mädchen",
    ]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(many=st.lists(any_records(), min_size=1, max_size=6))
def test_any_record_is_parsed_as_it_is(many: list[Record], mmdet: Mmdet, tmp_path: Path) -> None:
    samples = mmdet.samples(export(Odvg(), many, {"pets": PETS}, tmp_path))
    assert len(samples) == len(many)
    for sample, record in zip(samples, many, strict=True):
        pairs, phrases = grounded(record)
        assert (sample["parsed"]["text"], pairs_of(sample)) == (record.text, pairs)
        assert sample["parsed"]["phrases"] == phrases


# --- real samples ---------------------------------------------------------------------------------------------------


def test_coco_is_read_in_both_forms(samples: Path, mmdet: Mmdet, tmp_path: Path) -> None:
    folder = samples / "coco/coco_tiny_val"
    source = Coco(annotations=str(folder / "annotations/instances_val2017.json"), images=str(folder / "val2017"))
    records, sources = read(source)
    lines = export(Odvg(form="od"), records, sources, tmp_path / "od")
    found = mmdet.samples(lines, label_map=lines.with_name("label_map.json"), images=source.images)
    assert (len(found), sum(len(pairs_of(sample)) for sample in found)) == (80, 804)  # mmdet's own conversion
    assert all(Path(sample["parsed"]["img_path"]).is_file() for sample in found)
    assert_detection_is_read(found, records, sources["coco"])
    assert_grounding_is_read(mmdet.samples(export(Odvg(), records, sources, tmp_path / "vg")), records)


def test_lvis_is_read_under_its_published_names(samples: Path, mmdet: Mmdet, tmp_path: Path) -> None:
    records, sources = read(Lvis(annotations=str(samples / "lvis/lvis_v1_style_part_a.json"), images=""))
    lines = export(Odvg(form="od"), records, sources, tmp_path)
    found = mmdet.samples(lines, label_map=lines.with_name("label_map.json"))
    assert sum(len(pairs_of(sample)) for sample in found) == 353  # mmdet's own conversion
    assert len(found[0]["parsed"]["text"]) == 1203
    assert_detection_is_read(found, records, sources["lvis"])


def test_sentences_of_flickr30k_are_read(samples: Path, mmdet: Mmdet, tmp_path: Path) -> None:
    folder = samples / "flickr30k"
    records, sources = read(Flickr30k(annotations=str(folder), images=str(folder / "flickr30k_images")))
    assert len(records) == 110  # 22 photos of five sentences
    assert any(len(region.spans) > 1 for record in records for region in record.regions)
    assert_grounding_is_read(mmdet.samples(export(Odvg(), records, sources, tmp_path / "vg")), records)
    told = [replace(record, captions=(Caption(record.text),)) for record in records]
    assert_grounding_is_read(mmdet.samples(export(GroundingCap(), told, sources, tmp_path / "cap")), told)
