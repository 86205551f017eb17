"""The card of a data set says whose it is, and what was not looked for."""

from llmdet.card import card, leaks, not_checked, origins
from llmdet.sources.source import SourceInfo

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
    assert text.startswith("# GroundingCap-1M\n\n1,120,000 records: ")
    assert set(origins({"coco": COCO}) + leaks({"coco": COCO})) <= set(text.split("\n"))


def test_a_bar_in_an_address_does_not_break_the_table() -> None:
    info = SourceInfo("a", "odvg", "x|y", "line\nbreak", "")
    assert origins({"a": info})[-1] == "| a | x\\|y | line break |"
