"""What is not language goes, what is language stays."""

from __future__ import annotations

import pytest

from llmdet.record import Caption
from llmdet.rules.debris import CleanDebris, clean_debris
from llmdet.rules.outcome import Drop


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a dog runs on - and on.", "a dog runs on - and on."),
        ("A dog runs\n\nA cat sits", "A dog runs. A cat sits"),
        ("- A dog runs.\n- A cat sits on the", "A dog runs. A cat sits on the"),
        ("A  dog\t runs.\n\nA cat\r\nsits. ", "A dog runs. A cat sits."),
        ("**A dog** runs with `speed` and *joy*.", "A dog runs with speed and joy."),
        ("# The scene\nA dog runs.\n- a red ball\n- a blue hat", "A dog runs. a red ball. a blue hat."),
        ("1. A dog runs\n2) A cat sits", "A dog runs. A cat sits."),
        ("Sure! Here is a detailed description of the image:\n\nA dog runs.", "A dog runs."),
        ("Here's a caption for the photo: A dog runs.", "A dog runs."),
        ("Description: A dog runs.", "A dog runs."),
        ("A dog runs. Let me know if you need more details!", "A dog runs."),
        ("A dog runs.<|im_end|></s>", "A dog runs."),
        ("<|im_start|>assistant\nA dog runs.<|im_end|>", "A dog runs."),
        ("assistant: A dog runs. [/INST]", "A dog runs."),
        ("A [dog](http://x.org/a) <b>runs</b>.<br/>A cat.", "A dog runs . A cat."),
        ("A \x00dog\x07 \u200bruns\ufeff \u202ehere\u202c.", "A dog runs here."),
        ("```\nA dog.\n```", "A dog."),
        ("**Objects:**\n* a dog\n* a cat", "a dog. a cat."),
        ("1.A dog runs.\n2.A cat sits.", "A dog runs. A cat sits."),
        ("assistant\nA dog runs.", "A dog runs."),
        ('["a dog runs"]', "a dog runs"),
        ("A dog runs\uff0ca cat sits\u3002", "A dog runs, a cat sits."),
    ],
)
def test_debris_goes(text: str, expected: str) -> None:
    assert clean_debris(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A dog runs at 1.5 km/h past number 7.",
        "A sign reads 5 * 3 = 15 and snake_case stays.",
        "Café, 一只狗, кошка, \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 and \U0001f469\u200d\U0001f680 stay.",
        "The shop's price is 3 < 5 and 7 > 2.",
        "This is a street: a bus, a tree.",
        "The man tells his friend. Feel the wind.",
    ],
)
def test_language_stays(text: str) -> None:
    assert clean_debris(text) == text


def test_region_captions_stay_phrases() -> None:
    judged = CleanDebris().judge(Caption("- a red\nbus"), "region")
    assert isinstance(judged, Caption)
    assert judged.text == "a red bus"


@pytest.mark.parametrize(
    ("text", "left"),
    [("Caption: a red bus", "a red bus"), ("a care label: wash cold", "a care label: wash cold")],
)
def test_a_label_is_one_only_where_a_region_caption_begins(text: str, left: str) -> None:
    judged = CleanDebris().judge(Caption(text), "region")
    assert isinstance(judged, Caption)
    assert judged.text == left


@pytest.mark.parametrize("text", ["", "  \n", "***", "\x00\x01"])
def test_nothing_left_is_a_drop(text: str) -> None:
    verdict = CleanDebris().judge(Caption(text), "image")
    assert isinstance(verdict, Drop)
    assert verdict.reason == "caption_empty"
