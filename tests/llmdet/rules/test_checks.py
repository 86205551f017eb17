"""What the rules make of what the checks find: flags, figures, and captions that are taken out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llmdet.errors import SettingError
from llmdet.record import Caption, Provenance, Record, from_batch, to_batch
from llmdet.rules import Drop, Kept, Retry, build_chain, run_chain
from llmdet.rules.chain import with_images
from llmdet.rules.checks import (
    CheckColours,
    CheckCounts,
    CheckMentions,
    CheckObjects,
    CheckPositions,
    CheckRegionNouns,
)
from tests.llmdet.checks.scenes import LEFT, RIGHT, captioned, scene

PETS = scene({"dog": [LEFT], "couch": [RIGHT]}, absent="cat")
BAD = "Two dogs and a cat lie on the right. The couch is green."
ALL = tuple(
    kind(parser="pattern") for kind in (CheckObjects, CheckCounts, CheckPositions, CheckMentions, CheckRegionNouns)
)


def run(record: Record, *rules: object) -> Record:
    found, _ = run_chain(rules, record)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_each_contradiction_has_its_flag_and_figures() -> None:
    record = run(captioned(PETS, BAD), *ALL)
    assert record.flags == ("ungrounded_object", "count_contradiction")
    assert record.extra["checks"] == {
        "objects": {"claims": 3, "wrong": 1, "found": ["image_caption 0: 'cat': no cat"]},
        "counts": {"claims": 1, "wrong": 1, "found": ["image_caption 0: 'Two dogs' says 2: 1 box"]},
        "mentions": {"claims": 2, "wrong": 0},
    }


def test_what_fits_has_figures_and_no_flag() -> None:
    record = run(captioned(PETS, "A dog on the left, a couch on the right."), *ALL)
    assert record.flags == ()
    assert record.extra["checks"] == {
        "objects": {"claims": 2, "wrong": 0},
        "positions": {"claims": 2, "wrong": 0},
        "mentions": {"claims": 2, "wrong": 0},
    }


def test_flags_and_extra_of_the_source_stay() -> None:
    record = replace(captioned(PETS, "A cat."), flags=("unrelated_caption",), extra={"coco_url": "x"})
    record = run(record, *ALL)
    assert record.flags == ("unrelated_caption", "ungrounded_object", "box_not_mentioned")
    assert record.extra["coco_url"] == "x"


def test_a_record_without_captions_is_left_as_it_is() -> None:
    assert run(PETS, *ALL) is PETS


def test_drop_takes_out_the_contradicted_caption_only() -> None:
    outcome = CheckObjects(parser="pattern", action="drop")(captioned(PETS, "A dog.", "A cat.", "A couch."))
    assert isinstance(outcome, Kept)
    assert [caption.text for caption in outcome.record.captions] == ["A dog.", "A couch."]
    (loss,) = outcome.losses
    assert (loss.target, loss.index, loss.verdict) == ("image_caption", 1, Drop("ungrounded_object", "'cat': no cat"))
    assert outcome.record.flags == ()
    assert outcome.record.regions == PETS.regions


def test_retry_asks_a_language_model_again_and_drops_what_others_said() -> None:
    lmm = Caption("A cat.", provenance=Provenance(origin="lmm"), request_id="ab", attempt=1)
    outcome = CheckObjects(parser="pattern", action="retry")(replace(PETS, captions=(lmm, Caption("A cat."))))
    assert isinstance(outcome, Kept)
    assert [type(loss.verdict) for loss in outcome.losses] == [Retry, Drop]
    assert (outcome.losses[0].request_id, outcome.losses[0].attempt) == ("ab", 1)


def with_box_captions(*texts: str) -> Record:
    said = iter(texts)
    regions = [replace(r, boxes=tuple(replace(b, caption=Caption(next(said))) for b in r.boxes)) for r in PETS.regions]
    return replace(PETS, regions=tuple(regions))


def test_a_caption_of_a_box_that_names_something_else_is_flagged_or_dropped() -> None:
    record = with_box_captions("a brown dog", "a lamp")
    flagged = run(record, CheckRegionNouns(parser="pattern"))
    assert flagged.flags == ("region_caption_off_phrase",)
    outcome = CheckRegionNouns(parser="pattern", action="drop")(record)
    assert isinstance(outcome, Kept)
    assert [box.caption and box.caption.text for box in outcome.record.boxes] == ["a brown dog", None]
    assert [(loss.target, loss.index) for loss in outcome.losses] == [("region_caption", 1)]


def test_boxes_without_a_mention_are_flagged_over_all_captions_together() -> None:
    rule = CheckMentions(parser="pattern")
    assert run(captioned(PETS, "A dog.", "A room."), rule).flags == ("box_not_mentioned",)
    assert run(captioned(PETS, "A dog.", "A sofa."), rule).flags == ()


def test_a_parser_is_chosen_before_a_run() -> None:
    with pytest.raises(SettingError, match=r"use CheckCounts\(\).resolved\(\)"):
        CheckCounts()(captioned(PETS, "A dog."))
    assert CheckCounts().resolved().parser in ("nltk", "pattern")
    CheckCounts(parser="pattern").prepare()


def test_recipes_name_the_checks() -> None:
    chain = build_chain({"debris": {}, "objects": {"action": "drop", "parser": "pattern"}, "counts": {"small": 0.1}})
    assert chain[1:] == (CheckObjects(action="drop", parser="pattern"), CheckCounts(small=0.1))
    with pytest.raises(SettingError, match="must come after CleanDebris"):
        build_chain({"objects": {}, "debris": {}})


# --- colours --------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> str:
    pixels = np.full((100, 100, 3), 128, np.uint8)
    pixels[40:60, 5:25] = (220, 20, 20)
    pixels[40:60, 75:95] = (20, 160, 40)
    Image.fromarray(pixels).save(tmp_path / "1.png")
    return str(tmp_path)


def test_colours_are_measured_for_captions_of_images_and_of_boxes(photos: str) -> None:
    (rule,) = with_images((CheckColours(parser="pattern"),), photos)
    assert run(captioned(PETS, "A red dog on a green couch."), rule).flags == ()
    assert run(captioned(PETS, "A green dog on a green couch."), rule).flags == ("colour_contradiction",)
    record = run(with_box_captions("a red dog", "a yellow couch"), rule)
    assert record.extra["checks"]["colours"] == {
        "claims": 2,
        "wrong": 1,
        "found": ["region_caption 1: 'a yellow couch' yellow: green in the picture"],
    }


def test_a_photo_that_cannot_be_opened_is_told_and_flags_nothing(tmp_path: Path) -> None:
    record = run(captioned(PETS, "A red dog."), CheckColours(parser="pattern", images=str(tmp_path)))
    assert record.flags == ()
    assert record.extra["checks"]["colours"]["claims"] == 0
    assert record.extra["checks"]["colours"]["unread"].startswith("image_missing")


def test_a_photo_is_opened_only_for_a_colour(tmp_path: Path) -> None:
    assert run(captioned(PETS, "A dog."), CheckColours(parser="pattern", images=str(tmp_path))).extra == {}


def test_without_an_address_of_photos_the_rule_says_so() -> None:
    with pytest.raises(SettingError, match="needs `images`"):
        CheckColours(parser="pattern")(captioned(PETS, "A red dog."))


# --- anything -------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    'a the two three dog dogs cat couch on to left right of side top , . ; " no and is red green number 5 like'.split()
)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=30).map(" ".join)))
def test_any_text_is_read_and_what_is_written_can_be_stored(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    record = captioned(PETS, text)
    found, losses = run_chain(ALL, record)
    assert losses == []
    assert found is not None
    assert from_batch(to_batch([found])) == [found]
    assert found.captions == record.captions


@pytest.mark.parametrize(
    "text",
    [
        "the left " * 2200,
        "a dog on the left " * 1100,
        "," * 20_000,
        '"' * 20_000,
        "left of the " * 1600,
        "two dogs " * 2200,
    ],
)
def test_endless_captions_are_read_in_linear_time(text: str) -> None:
    run(captioned(PETS, "A dog."), *ALL)
    started = time.process_time()
    run(captioned(PETS, text), *ALL)
    assert time.process_time() - started < 3
