"""English in, everything else out; names, quotations and single foreign words stay."""

from __future__ import annotations

import pytest

from llmdet.record import Caption, Provenance
from llmdet.rules.language import RequireEnglish, is_foreign, other_script
from llmdet.rules.outcome import Drop, Retry

LMM = Provenance(origin="lmm")


@pytest.mark.parametrize(
    "text",
    [
        "Un perro duerme en una cama junto a la ventana.",
        "Deux enfants jouent dans le jardin avec un ballon.",
        "Der Hund liegt auf dem Teppich.",
        "Uma menina com um balão está na praia.",
        "\u72d7\u5728\u6c99\u53d1\u4e0a\u7761\u89c9\u3002",
        "A dog sleeps. \u0421\u043e\u0431\u0430\u043a\u0430 \u0441\u043f\u0438\u0442.",
        "The man 站在 the street.",
        "A man is riding a 自行车.",
        "In the background are many trees and 汽车.",
        "A woman sits on a 소파 in a living room.",
        "There is a รถ near the house.",
        "A cat is on the الطاولة next to a cup.",
        "A dog sleeps on a bed. El perro tiene una manta con flores.",
    ],
)
def test_other_languages_are_asked_again(text: str) -> None:
    verdict = RequireEnglish().judge(Caption(text, provenance=LMM), "image")
    assert isinstance(verdict, Retry)
    assert verdict.reason == "wrong_language"
    assert RequireEnglish().judge(Caption(text), "image") == Drop(verdict.reason, verdict.detail)


@pytest.mark.parametrize(
    "text",
    [
        "The van of Pão de Açúcar stands near the Avenida da Liberdade.",
        "María José and Jürgen Müller share a jalapeño pizza.",
        "A sign in Arabic and English hangs above the door.",
        'The poster reads "La vida es bella con una sonrisa" in red.',
        "The kanji \u6771\u4eac are painted on a drum.",
        "A man dies in a duel in the painting; the other one sees his mother.",
        "two men in hats",
        "The sign reads 出口 and points to the left.",
        "A T-shirt printed with the word ЯЛТЫ hangs in the window.",
        "An Arabic inscription, الله أكبر, decorates the arch.",
        "A Chinese character (福) decorates a red lantern.",
        "The words 止まれ are painted on the road.",
        "The Greek letter Ω is engraved on the watch.",
        "A crêpe with crème fraîche lies on a plate beside a café au lait.",
        "A bowl of phở stands on a bamboo mat.",
        "The thermometer shows 31 \u00b0C.",
    ],
)
def test_english_with_foreign_names_stays(text: str) -> None:
    caption = Caption(text, provenance=LMM)
    assert RequireEnglish().judge(caption, "image") is caption


@pytest.mark.parametrize("text", ["123 456", "\U0001f600\U0001f600", "... !!! ---"])
def test_text_without_a_word_is_no_language(text: str) -> None:
    assert RequireEnglish().judge(Caption(text), "region") == Drop("no_language", text)


def test_the_share_of_other_scripts_is_of_letters() -> None:
    assert other_script("A caf\u00e9 12 \u0434\u043e\u043c\u0430") == 4 / 9
    assert other_script("A beta \u03b2 and gamma \u03b3") == 0.0  # three letters are a sign or a formula
    assert other_script("\u732b") == 1.0


def test_a_name_brings_its_small_words_along() -> None:
    assert not is_foreign("Calle de la Paz")
    assert is_foreign("una calle de la ciudad con flores")
