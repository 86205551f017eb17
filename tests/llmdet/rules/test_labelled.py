"""The default chain on the labelled development sentences; the held-out ones are read by the benchmark only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmdet.record import Box, Caption, Provenance, Record, Region
from llmdet.rules import DEFAULT_CHAIN, run_chain
from llmdet.rules.length import RequireLength

FILE = Path(__file__).parents[3] / "benchmarks" / "data" / "caption_sentences.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
CHAIN = [rule for rule in DEFAULT_CHAIN if not isinstance(rule, RequireLength)]
LMM = Provenance(origin="lmm")
LABELS = "speculation negation repetition truncation refusal prompt_echo about_itself debris language".split()


def left_of(row: dict[str, str]) -> str | None:
    """The text after the chain: "" where cleaning left nothing, None where the caption was taken out."""
    caption = Caption(row["text"], provenance=LMM)
    at_image = row["level"] == "image"
    box = Box((1, 1, 9, 9), caption=None if at_image else caption)
    region = Region(("thing",), ((2, 7),), (box,))
    captions = (caption,) if at_image else ()
    before = Record("s/1/0", "s", "1", "0", "grounding", "1.jpg", "r", 9, 9, "a thing", (region,), captions=captions)
    after, losses = run_chain(CHAIN, before)
    assert after is not None
    if losses:
        return "" if losses[0].verdict.reason == "caption_empty" else None
    kept = after.captions[0] if at_image else after.boxes[0].caption
    assert kept is not None
    return kept.text


def test_captions_without_a_fault_pass_untouched() -> None:
    plain = [row for row in ROWS if not row["labels"]]
    assert len(plain) == 142
    assert [(row["text"], left_of(row)) for row in plain if left_of(row) != row["text"]] == []


@pytest.mark.parametrize("label", LABELS)
def test_faulty_captions_end_as_labelled(label: str) -> None:
    faulty = [row for row in ROWS if label in row["labels"]]
    wrong = [row["text"] for row in faulty if left_of(row) not in row["expected"]]
    assert len(wrong) <= 0.05 * len(faulty), wrong
