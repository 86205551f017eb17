"""Chains: checked before they run, captions lost without boxes, faults as rows, time in proportion to the text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from llmdet.errors import SettingError
from llmdet.record import Box, Caption, Provenance, Record, Region
from llmdet.rejects import Reject
from llmdet.rules import DEFAULT_CHAIN, RULES, Drop, Kept, Outcome, Retry, build_chain, check_chain, run_chain
from llmdet.rules.captions import judge_captions
from llmdet.rules.chain import Rule
from llmdet.rules.debris import CleanDebris, clean_debris
from llmdet.rules.hedges import remove_hedges
from llmdet.rules.length import LimitLength, RequireLength
from llmdet.rules.refusal import RejectRefusal
from llmdet.rules.repetition import RejectRepetition
from llmdet.rules.speculation import RemoveSpeculation, remove_as_upstream
from llmdet.rules.truncation import RequireEnd

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
    assert [type(rule) for rule in DEFAULT_CHAIN] == list(RULES.values())


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


# --- catastrophic inputs --------------------------------------------------------------------------------------------

# Each grows with n; what they aim at: backtracking, loops over sentences, over pieces, over quotes.
BOMBS: dict[str, Callable[[int], str]] = {
    "no space": lambda n: "ab" * n,
    "words": lambda n: "alpha beta gamma " * n,
    "commas": lambda n: "," * n,
    "hedged pieces": lambda n: "it seems, " * n,
    "undelimited keyword": lambda n: "appearance " * n,
    "one long clause": lambda n: "the dog and the cat " * n + "seems",
    "relatives": lambda n: "a man who " * n + "seems old",
    "stops": lambda n: "." * n,
    "short sentences": lambda n: "A. " * n,
    "sentences": lambda n: "".join(f"Dog {i} seems red, the cat is blue. " for i in range(n)),
    "nulls": lambda n: "\x00" * n,
    "emoji": lambda n: "\U0001f600 " * n,
    "brackets": lambda n: "[" * n,
    "tags": lambda n: "<a " * n,
    "stars": lambda n: "*a " * n,
    "open quotes": lambda n: " 'a" * n,
    "double quotes": lambda n: '"a ' * n,
    "dashes": lambda n: "-" * n,
    "rule lines": lambda n: "- " * n,
    "spaces": lambda n: "a" + " " * n,
    "lines": lambda n: "\n- a" * n,
    "sure": lambda n: "Sure, " * n,
    "right to left": lambda n: "\u202e\u0634\u062c\u0631\u0629 " * n,
    "blank lines": lambda n: "a" + "\n" * n + "b",
    "dashed words": lambda n: "a - b " * n,
    "closers": lambda n: ".)" * n,
    "facts and guesses": lambda n: "it is red, possibly blue, " * n,
    "asides": lambda n: "a dog (possibly red) is here " * n,
    "open brackets": lambda n: "a dog seems (" * n,
    "dotted": lambda n: "a." * n,
    "negations": lambda n: "there is no dog and " * n,
    "described": lambda n: "describe the " * n,
    "closing tokens": lambda n: "</s> " * n + "x",
    "description": lambda n: "here is a " + "very " * n,
}
CLEANERS: dict[str, Callable[[str], object]] = {
    "upstream": remove_as_upstream,
    "hedges": remove_hedges,
    "debris": clean_debris,
    "repetition": lambda text: RejectRepetition().judge(Caption(text, provenance=LMM), "image"),
    "refusal": lambda text: RejectRefusal().judge(Caption(text, provenance=LMM), "image"),
    "end": lambda text: RequireEnd().judge(Caption(text, provenance=LMM), "image"),
}


def seconds(clean: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        clean(text)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize("cleaner", CLEANERS)
@pytest.mark.parametrize("bomb", BOMBS)
def test_ten_times_the_text_takes_about_ten_times_as_long(bomb: str, cleaner: str) -> None:
    clean, make = CLEANERS[cleaner], BOMBS[bomb]
    small, large = seconds(clean, make(400)), seconds(clean, make(4000))
    # 0.04 s of slack: what a busy machine adds to a short run.
    assert large <= 20 * small + 0.04, f"{small:.4f} s, then {large:.4f} s"


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_caption_of_a_megabyte_is_over_within_a_second(bomb: str) -> None:
    text = BOMBS[bomb](1_000_000 // max(1, len(BOMBS[bomb](10)) // 10))
    start = time.perf_counter()
    after, losses = run_chain(DEFAULT_CHAIN, record(Caption(text, provenance=LMM), regions=(Caption(text),)))
    assert time.perf_counter() - start < 1
    assert after is not None
    assert after.captions == ()
    assert {loss.verdict.reason for loss in losses} == {"caption_long"}


def test_limits_lifted_the_chain_still_ends() -> None:
    chain: list[Rule] = [LimitLength(max_chars=10**9), *DEFAULT_CHAIN[1:]]
    for bomb in ("commas", "hedged pieces", "nulls", "words"):
        after, losses = run_chain(chain, record(Caption(BOMBS[bomb](30_000), provenance=LMM)))
        assert after is not None
        assert len(after.captions) + len(losses) == 1


def test_kept_is_only_returned_when_something_was_lost() -> None:
    assert isinstance(judge_captions(record(Caption("a")), lambda caption, level: Drop("x")), Kept)
    assert isinstance(judge_captions(record(Caption("a")), lambda caption, level: caption), Record)
