"""Chains: checked before they run, captions lost without boxes, faults as rows, time in proportion to the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from llmdet.errors import SettingError
from llmdet.record import Box, Caption, Provenance, Record, Region
from llmdet.rejects import Reject
from llmdet.rules import DEFAULT_CHAIN, RULES, Drop, Kept, Outcome, Retry, build_chain, check_chain, run_chain
from llmdet.rules.captions import judge_captions
from llmdet.rules.debris import CleanDebris
from llmdet.rules.length import RequireLength
from llmdet.rules.refusal import RejectRefusal
from llmdet.rules.speculation import RemoveSpeculation

LMM = Provenance(origin="lmm")
TEMPLATE = Provenance(origin="template")


def record(*captions: Caption, regions: tuple[Caption | None, ...] = (None,)) -> Record:
    boxes = tuple(Box((0, 0, 5, 5), order=order, caption=caption) for order, caption in enumerate(regions))
    region = Region(("cup",), ((0, 3),), boxes)
    return Record("s/1/0", "s", "1", "0", "detection", "1.jpg", "r", 9, 9, "cup. ", (region,), captions=captions)


@dataclass(frozen=True)
class Raise:
    when: str = "bad"

    def __call__(self, record: Record) -> Outcome:
        raise ValueError("broken rule")


@dataclass(frozen=True)
class RaiseOnCaption:
    def __call__(self, record: Record) -> Outcome:
        return judge_captions(record, self.judge)

    def judge(self, caption: Caption, level: str) -> Caption:
        if "bad" in caption.text:
            raise KeyError("no such word")
        return caption


@dataclass(frozen=True)
class DropAll:
    def __call__(self, record: Record) -> Outcome:
        return Drop("unwanted", "for the test")


def test_records_without_captions_pass_the_default_chain_unchanged() -> None:
    plain = record()
    assert run_chain(DEFAULT_CHAIN, plain) == (plain, [])


def test_lost_captions_leave_boxes_and_other_captions() -> None:
    long = Caption("A bus stands at the kerb. Two people sit under a roof.", provenance=LMM, attempt=1)
    refusal = Caption("I'm sorry, I can't do that.", provenance=LMM, request_id="q7", attempt=2)
    before = record(refusal, long, regions=(Caption("I cannot see it."), Caption("**a red cup**"), None))
    after, losses = run_chain(DEFAULT_CHAIN, before)
    assert after is not None
    assert after.captions == (long,)
    assert [box.xyxy for box in after.boxes] == [box.xyxy for box in before.boxes]
    assert [box.caption and box.caption.text for box in after.boxes] == [None, "a red cup", None]
    assert [(loss.rule, loss.target, loss.index, loss.kind) for loss in losses] == [
        ("RejectRefusal", "image_caption", 0, "policy"),
        ("RejectRefusal", "region_caption", 0, "policy"),
    ]
    assert isinstance(losses[0].verdict, Retry)
    assert (losses[0].request_id, losses[0].attempt) == ("q7", 2)
    assert isinstance(losses[1].verdict, Drop)
    assert losses[0].reject() == Reject(
        "q7", "request", "policy", "refine", "refusal",
        "RejectRefusal: I'm sorry, I can't do that. (s/1/0 image_caption 0)",
    )  # fmt: skip
    assert losses[1].reject().id == "s/1/0#region_caption-0"


def test_a_rule_that_raises_is_a_fault_with_its_name() -> None:
    after, losses = run_chain([Raise()], record())
    assert after is None
    assert losses[0].reject("x") == Reject(
        "s/1/0", "record", "fault", "x", "rule_raised", "Raise: ValueError: broken rule"
    )


def test_a_judgement_that_raises_costs_its_caption_only() -> None:
    good = Caption("good")
    after, losses = run_chain([RaiseOnCaption()], record(Caption("bad"), good))
    assert after is not None
    assert after.captions == (good,)
    assert [(loss.rule, loss.kind, loss.target, loss.index) for loss in losses] == [
        ("RaiseOnCaption", "fault", "image_caption", 0)
    ]


def test_a_dropped_record_ends_the_chain_and_keeps_earlier_losses() -> None:
    after, losses = run_chain([RejectRefusal(), DropAll(), Raise()], record(Caption("I'm sorry.")))
    assert after is None
    assert [(loss.rule, loss.target) for loss in losses] == [("RejectRefusal", "image_caption"), ("DropAll", "record")]


def test_every_rule_is_a_value() -> None:
    for kind in RULES.values():
        assert kind() == kind()
        assert hash(kind()) == hash(kind())
    check_chain(DEFAULT_CHAIN)
    assert {type(rule) for rule in DEFAULT_CHAIN} <= set(RULES.values())


def test_chains_are_built_from_settings() -> None:
    chain = build_chain({"debris": None, "speculation": {"mode": "upstream"}, "length": {"min_tokens": 20}})
    assert chain == (CleanDebris(), RemoveSpeculation(mode="upstream"), RequireLength(min_tokens=20))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speling": {}}, "there is no rule 'speling'; rules: limit_length"),
        ({"length": {"min_token": 1}}, r"rule length has no setting \['min_token'\]; settings: afterwards"),
        ({"length": {"min_tokens": "many"}}, "rule length: min_tokens: .*'many'"),
        ({"speculation": {"mode": "hard"}}, "rule speculation: mode: .*'hard'"),
        ({"length": {}, "speculation": {}}, "RequireLength must come after RemoveSpeculation"),
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        build_chain(settings)
    assert "\n" not in str(caught.value)


def test_classes_and_others_are_not_rules() -> None:
    with pytest.raises(SettingError, match="rule instances"):
        check_chain([cast(Any, RequireLength)])
    with pytest.raises(SettingError, match="place 1"):
        check_chain([CleanDebris(), cast(Any, "length")])


def test_template_sentences_pass_the_default_chain_untouched() -> None:
    text = (
        "The picture shows two people, a dog and three sheep. The two people can both be seen in the middle. "
        "Of the three sheep, one can be seen on the left and two can be seen on the right. "
        "The dog can be seen to the left of the bus. The bus takes up more of the picture than the dog. "
        "The dog and the bus overlap in the picture."
    )
    before = record(Caption(text, provenance=TEMPLATE), regions=(Caption("a small cup on the left"),))
    assert run_chain(DEFAULT_CHAIN, before) == (before, [])
    upstream = run_chain(build_chain({"speculation": {"mode": "upstream"}}), before)
    assert upstream == (before, [])


def test_kept_is_only_returned_when_something_was_lost() -> None:
    assert isinstance(judge_captions(record(Caption("a")), lambda caption, level: Drop("x")), Kept)
    assert isinstance(judge_captions(record(Caption("a")), lambda caption, level: caption), Record)
