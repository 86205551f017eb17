"""The card of a data set says whose it is, and what was not looked for."""

from collections import Counter

import yaml

from llmdet import rejects
from llmdet.card import Asked, Facts, Spent, card, cost, gaps, header, leaks, not_checked, origins, quality
from llmdet.quality import Quality
from llmdet.rejects import Reject
from llmdet.sources.source import SourceInfo
from llmdet.stats import RejectCounts

CHECKED = {"state": "checked", "by": "id", "photos": 5000, "why": ""}
MISSING = {"state": "not checked", "by": "", "photos": 0, "why": "there is no lvis.json"}
PARTLY = {"state": "checked", "by": "flickr_url", "photos": 2, "why": "only rows that have one"}
GIVERS = {"sharegpt4v": {"licence": "CC-BY-NC-4.0", "address": "https://b.example"}}
COCO = SourceInfo(
    "coco",
    "coco",
    "CC-BY-4.0",
    "https://a.example",
    "/photos",
    notes={
        "attached": GIVERS,
        "leaks": {"action": "drop", "lists": {"coco_val": CHECKED, "lvis_val": MISSING, "flickr30k_val": PARTLY}},
    },
)
OLD = SourceInfo("old", "odvg", "", "", "")


def test_licences_of_sources_and_of_attached_captions_are_told() -> None:
    assert origins({"coco": COCO, "old": OLD}) == [
        "| source | licence | address |",
        "| --- | --- | --- |",
        "| coco | CC-BY-4.0 | https://a.example |",
        "| coco: captions of sharegpt4v | CC-BY-NC-4.0 | https://b.example |",
        "| old | not stated |  |",
    ]


def test_lists_that_were_not_checked_stand_beside_those_that_were() -> None:
    row = leaks({"coco": COCO})[-1]
    assert row == (
        "| coco | coco_val (5,000 photos, by id); flickr30k_val (2 photos, by flickr_url, only rows that have one) "
        "| lvis_val (there is no lvis.json) | left out |"
    )
    assert leaks({"old": OLD})[-1] == "| old | none | all lists (no check was made) | kept |"


def test_doctor_reads_the_same_notes() -> None:
    assert list(not_checked(COCO.notes)) == [("lvis_val", "there is no lvis.json")]
    assert list(not_checked(OLD.notes)) == [("all lists", "no check was made")]


def test_a_whole_card_counts_its_records() -> None:
    text = card("GroundingCap-1M", {"coco": COCO}, 1_120_000)
    assert "\n# GroundingCap-1M\n\n1,120,000 records: " in text
    assert set(origins({"coco": COCO}) + leaks({"coco": COCO})) <= set(text.split("\n"))


def test_the_header_is_yaml_that_the_hub_takes() -> None:
    lines = header('A "set": x', {"coco": COCO}, 1_120_000, {"coco": Quality(image_captions=1)})
    assert (lines[0], lines[-1]) == ("---", "---")
    assert yaml.safe_load("\n".join(lines[1:-1])) == {
        "pretty_name": 'A "set": x',
        "license": "cc-by-4.0",
        "task_categories": ["object-detection", "image-to-text"],
        "size_categories": ["1M<n<10M"],
        "tags": ["grounding", "open-vocabulary-detection"],
        "configs": [{"config_name": "default", "data_files": "part-*.parquet"}],
    }
    mixed = header("x", {"coco": COCO, "old": OLD}, 5, {})
    assert {"license: other", 'license_name: "several"', "- n<1K"} <= set(mixed)
    assert "- image-to-text" not in mixed


def test_paths_of_this_machine_are_not_told() -> None:
    whys = {
        "lvis_val": "there is no /home/me/my data/lvis/lvis.json",
        "flickr30k_val": "there is no val.txt in s3://bucket/lists/flickr30k",
        "refcoco": "leaks.refcoco is not set",
    }
    lists = {name: {**MISSING, "why": why} for name, why in whys.items()}
    info = SourceInfo("a", "odvg", "", "", "", notes={"leaks": {"action": "drop", "lists": lists}})
    row = leaks({"a": info})[-1]
    assert row == (
        "| a | none | lvis_val (there is no lvis.json); flickr30k_val (there is no val.txt in flickr30k); "
        "refcoco (leaks.refcoco is not set) | left out |"
    )


COUNTED = Quality(
    records=200,
    captioned=150,
    image_captions=160,
    linked_captions=120,
    links=400,
    regions=500,
    linked_regions=250,
    splits=Counter(val=20, train=180),
    flags=Counter(count_contradiction=3),
    claims=Counter(counts=60),
    wrong=Counter(counts=3),
)


def test_figures_of_quality_are_told_by_source_and_together() -> None:
    lines = quality({"coco": COUNTED, "old": Quality(records=100)})
    assert "| coco | 200 | 160 | 0 | 2.50 | 50.0 % |" in lines
    assert "| together | 300 | 160 | 0 | 2.50 | 50.0 % |" in lines
    assert lines.count("| coco | 5.0 % of 60 |") == 1
    assert "| together | 1.0 % |" in lines
    assert "| old |  |" in lines
    assert "| coco | 180 | 20 |" in lines


def test_gaps_say_what_is_not_there() -> None:
    left_out = [Reject(f"r{i}", "record", "fault", "ingest", "cut_short") for i in range(2)]
    facts = Facts({"coco": COUNTED, "old": Quality(image_captions=3)}, RejectCounts.of(rejects.to_batch(left_out)))
    assert gaps({"coco": COCO, "old": OLD}, facts) == [
        "- old: its licence is not stated",
        "- coco: not compared with lvis_val",
        "- old: not compared with all lists",
        "- coco: 50 of 200 records have no image caption",
        "- coco: 40 of 160 image captions have no phrase that is tied to a box",
        "- old: 3 of 3 image captions have no phrase that is tied to a box",
        "- old: no claim of its captions was checked against boxes",
        "- 2 rows were broken and left out: cut_short",
    ]


def test_tokens_and_cost_are_told() -> None:
    lines = cost(Spent((Asked("coco", "image", "vllm some/model", 1200, 2_000_000, 500_000, 30_000),), 12.5))
    assert "| coco | image | vllm some/model | 1,200 | 2,000,000 | 500,000 | 30,000 |" in lines
    assert lines[-1] == "Cost, in the currency of the prices: at least 12.50."
    assert cost(Spent()) == []


def test_data_is_no_markup() -> None:
    evil = SourceInfo("a", "odvg", "<script>x</script>", "[click](javascript:x)", "")
    assert origins({"a": evil})[-1] == ("| a | &lt;script&gt;x&lt;/script&gt; | \\[click\\](javascript:x) |")


def test_a_bar_in_an_address_does_not_break_the_table() -> None:
    info = SourceInfo("a", "odvg", "x|y", "line\nbreak", "")
    assert origins({"a": info})[-1] == "| a | x\\|y | line break |"
