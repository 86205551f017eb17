"""Loops, cut answers, refusals, echoes and lengths, each with its exact verdict."""

from __future__ import annotations

import pytest

from llmdet.record import Caption, Provenance
from llmdet.rules.length import LimitLength, RequireLength
from llmdet.rules.outcome import Drop, Retry
from llmdet.rules.refusal import RejectRefusal
from llmdet.rules.repetition import RejectRepetition
from llmdet.rules.truncation import RequireEnd

LMM = Provenance(origin="lmm", sampling='{"max_tokens":20}')


def lmm(text: str, attempt: int = 0, answer_tokens: int | None = None) -> Caption:
    return Caption(text, provenance=LMM, attempt=attempt, answer_tokens=answer_tokens)


GOOD = (
    "A red bus stands at the stop beside a tall tree. Two people wait under the green roof, and a dog sits near them. "
    "The man on the left wears a blue coat, the woman on the right wears a blue coat as well. The road is wet."
)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("A cat sits on a mat on a mat on a mat on a mat on a mat.", "'on a mat' 3 times in a row"),
        ("The dog is very very very very very happy.", "'very' 4 times in a row"),
        ("It is left and left and left and left and left.", "'left and' 4 times in a row"),
        ("A dog runs. A cat sits. A dog runs. A dog runs.", "a sentence 3 times: 'a dog runs'"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", "'a' 24 times"),
        ("The room has a chair, a chair, a chair, and a chair.", "'a chair' 4 times in a list"),
        ("The sky is blue, the sky is blue, and the sky is blue.", "'the sky is blue' 3 times in a list"),
    ],
)
def test_loops_are_asked_again_of_a_model_and_dropped_from_others(text: str, detail: str) -> None:
    assert RejectRepetition().judge(lmm(text), "image") == Retry("repetition", detail)
    assert RejectRepetition().judge(Caption(text), "image") == Drop("repetition", detail)


def test_a_list_that_turns_in_circles_is_a_loop() -> None:
    colours = ["red", "blue", "green"]
    text = ", ".join(f"there is a chair on the left side of the {colours[n % 3]} room" for n in range(12)) + "."
    verdict = RejectRepetition().judge(lmm(text), "image")
    assert isinstance(verdict, Retry)
    assert verdict.detail.endswith("of the runs of four words are different")


def test_a_form_filled_again_and_again_is_a_loop_of_a_model() -> None:
    sentences = [f"There is a {thing} on the shelf." for thing in "book vase clock lamp doll plant".split()]
    text, five = " ".join(sentences), lmm(" ".join(sentences[:5]))
    loop = Retry("repetition", "6 sentences like 'there is a * on the shelf'")
    assert RejectRepetition().judge(lmm(text), "image") == loop
    assert RejectRepetition().judge(Caption(text), "image") == Caption(text)
    assert RejectRepetition().judge(five, "image") is five


def test_a_sentence_said_twice_is_said_once() -> None:
    judged = RejectRepetition().judge(lmm("A dog runs. A cat sits. A dog runs."), "image")
    assert isinstance(judged, Caption)
    assert judged.text == "A dog runs. A cat sits."
    assert judged.raw == "A dog runs. A cat sits. A dog runs."


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        'A sign reads "go go go go go go go".',
        "Of the 13 people, five can be seen on the left, five can be seen in the middle and three on the right.",
        "Row after row after row of chairs fill the hall.",
        "A very, very tall man stands between a red car, a red bus and a red bike.",
    ],
)
def test_good_captions_pass_every_rule_untouched(text: str) -> None:
    caption = lmm(text)
    for rule in (RejectRepetition(), RejectRefusal(), RequireEnd(), LimitLength()):
        assert rule.judge(caption, "image") is caption


# --- the end --------------------------------------------------------------------------------------------------------


def test_cut_caption_keeps_its_whole_sentences_when_they_are_most_of_it() -> None:
    judged = RequireEnd().judge(lmm("A dog runs over the wet grass. A cat sits. The"), "image")
    assert isinstance(judged, Caption)
    assert judged.text == "A dog runs over the wet grass. A cat sits."


def test_caption_without_a_whole_sentence_is_asked_again() -> None:
    assert RequireEnd().judge(lmm("A dog runs over the"), "image") == Retry(
        "no_sentence_end", "ends with 'A dog runs over the'"
    )
    cut = lmm("A dog runs over the", answer_tokens=20)
    assert RequireEnd().judge(cut, "image") == Retry("answer_cut", "ends with 'A dog runs over the'")
    verdict = RequireEnd(repair_share=1.1).judge(lmm("A dog runs over grass. A"), "image")
    assert isinstance(verdict, Retry)


@pytest.mark.parametrize("text", ['He says "stop."', "Is it on?", "(A dog runs.)", "一只狗。", "A dog runs\u2026"])
def test_every_kind_of_end_is_an_end(text: str) -> None:
    caption = lmm(text)
    assert RequireEnd().judge(caption, "image") is caption


def test_people_may_leave_out_the_full_stop() -> None:
    caption = Caption("A man riding a horse")
    assert RequireEnd().judge(caption, "image") is caption
    assert RequireEnd(only_lmm=False).judge(caption, "image") == Drop(
        "no_sentence_end", "ends with 'A man riding a horse'"
    )


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I cannot see the image.",
        "Unfortunately, I am unable to describe this image.",
        "As an AI language model, I do not have eyes.",
        "Sorry, I can not identify people.",
        "A dog runs. I apologize for the confusion.",
        "The image could not be loaded.",
        "No image was provided.",
        "Please provide the image that you want described.",
        "I do not have the ability to view images.",
    ],
)
def test_refusals_are_asked_again(text: str) -> None:
    verdict = RejectRefusal().judge(lmm(text), "image")
    assert isinstance(verdict, Retry)
    assert verdict.reason == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        'A shop window says "Sorry, we are closed".',
        "A man with a sorry look cannot reach the shelf.",
        "A girl holds a card that reads 'I'm sorry'.",
        "An AI company's logo is on the wall.",
        "The image shows a lake. The picture is black and white.",
        "A poster asks people to please provide details.",
        "A framed picture is provided with a label.",
    ],
)
def test_captions_with_the_words_of_a_refusal_pass(text: str) -> None:
    caption = lmm(text)
    assert RejectRefusal().judge(caption, "image") is caption


@pytest.mark.parametrize(
    "text",
    [
        "<image>\nA dog.",
        "USER: what is this? ASSISTANT: a dog",
        "Describe the image in detail. A dog runs.",
        "Please provide a detailed description of the region.",
        "Do not speculate about what the picture cannot show.",
        "In this task, you will be given an image and must describe it.",
        "Given the image, generate a detailed caption.",
        "What is the man doing? The man is surfing.",
        "<|object_ref_start|>a dog<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
    ],
)
def test_prompts_said_back_are_told_apart(text: str) -> None:
    verdict = RejectRefusal().judge(lmm(text), "image")
    assert isinstance(verdict, Retry)
    assert verdict.reason == "prompt_echo"


def test_own_prompt_is_known() -> None:
    prompt = "Tell us every thing that the photograph holds. Be brief."
    text = "Tell us every thing that the photograph holds. A dog."
    assert RejectRefusal().judge(lmm(text), "image") == lmm(text)
    verdict = RejectRefusal(prompts=(prompt,)).judge(lmm(text), "image")
    assert verdict == Retry("prompt_echo", "Tell us every thing that the photograph holds.")


def test_talk_about_the_caption_is_not_a_caption() -> None:
    text = "A dog runs. The caption describes a dog."
    assert RejectRefusal().judge(lmm(text), "image") == Retry("about_itself", "The caption describes a dog.")
    assert RejectRefusal(about_itself=False).judge(lmm(text), "image") == lmm(text)


# --- lengths --------------------------------------------------------------------------------------------------------


def test_short_captions_go_back_once_and_are_then_kept_or_dropped() -> None:
    text = "word " * 76 + "end."
    assert len(text.split()) == 77  # 100.1 tokens
    assert RequireLength().judge(lmm(text), "image") == lmm(text)
    short = " ".join(text.split()[1:])  # 76 words: 98.8 tokens
    assert RequireLength().judge(lmm(short), "image") == Retry("caption_short", "99 tokens")
    second = lmm(short, attempt=1)
    assert RequireLength().judge(second, "image") is second
    assert RequireLength(afterwards="drop").judge(second, "image") == Drop("caption_short", "99 tokens")
    assert RequireLength(retries=2).judge(second, "image") == Retry("caption_short", "99 tokens")


def test_the_engines_own_count_is_used_while_the_text_is_the_answer() -> None:
    assert RequireLength().judge(lmm("short", answer_tokens=100), "image") == lmm("short", answer_tokens=100)
    changed = Caption("short", raw="longer", provenance=LMM, answer_tokens=100)
    assert RequireLength().judge(changed, "image") == Retry("caption_short", "2 tokens")


def test_only_language_models_are_asked_for_length() -> None:
    caption = Caption("short")
    assert RequireLength().judge(caption, "image") is caption
    assert RequireLength(only_lmm=False, afterwards="drop").judge(caption, "image") == Drop("caption_short", "2 tokens")


def test_endless_captions_are_taken_out_first() -> None:
    assert LimitLength(max_chars=5).judge(Caption("123456"), "region") == Drop("caption_long", "6 characters")
    assert LimitLength(max_chars=6).judge(Caption("123456"), "region") == Caption("123456")
