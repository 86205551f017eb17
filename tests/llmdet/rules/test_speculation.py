"""Upstream's vectors to the letter; the default mode keeps the facts that stand beside a guess."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.record import Box, Caption, Record, Region
from llmdet.rules.hedges import remove_hedges
from llmdet.rules.outcome import Drop, Kept
from llmdet.rules.speculation import KEYWORDS, RemoveSpeculation, remove_as_upstream

UNCHANGED = object()

# Inputs and outputs of LLMDet's own function, as published in a description of it.
UPSTREAM = [
    (
        "A red bus stands at the stop, possibly waiting for riders, near a tree.",
        "A red bus stands at the stop near a tree.",
    ),
    ("Two dogs lie on the rug. They appear to be asleep.", "Two dogs lie on the rug."),
    ("In the corner, a lamp is on, suggesting it is evening.", ""),
    (
        "The wall is white. There is no picture on it. A clock hangs above.",
        "The wall is white. A clock hangs above.",
    ),
    ("Possibly a cat sits there.", UNCHANGED),
    ("The man has a calm appearance.", UNCHANGED),
    ("On the left, a woman seems happy.", ""),
    ("A sign reads STOP", UNCHANGED),
    ("The sky is blue, the sea seems calm and the sand is white", "The sky is blue."),
    ("A dog that looks like a wolf, with grey fur, stands still.", ""),
    ("A man, a woman, and perhaps a child, walk.", "A man, a woman walk."),
    ("The seemingly old car is parked. The road is wet.", UNCHANGED),
]


@pytest.mark.parametrize(("text", "expected"), UPSTREAM)
def test_upstream_vectors(text: str, expected: object) -> None:
    assert remove_as_upstream(text) == (text if expected is UNCHANGED else expected)


def by_substitution(text: str) -> str:
    """The published description taken literally, with regular expressions (quadratic, so for short texts only)."""
    whole = "|".join(re.escape(word) for word in KEYWORDS)
    prepositions = set(
        "in on at by with about against between into through during before after above below to from up down for of "
        "under over as".split()
    )
    kept = []
    for sentence in re.split(r"(?<=\.)\s+", text):
        if not any(word in sentence for word in KEYWORDS):
            kept.append(sentence.strip())
            continue
        left = re.sub(rf",?[^,]*\b(?:{whole})\b[^,]*,?", "", sentence).strip()
        left = left if left.endswith(".") else left + "."
        if left != "." and left.split()[0].lower() not in prepositions:
            kept.append(left)
    return " ".join(kept)


PIECES = [*"seems appearance not , . walks é".split(), " no ", ", ", ". ", "On ", "a dog ", " ", "\n", "tends not to "]


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_linear_removal_equals_the_substitution(text: str) -> None:
    assert remove_as_upstream(text) == by_substitution(text)


DEFAULT = [
    ("A red bus stands at the stop, possibly waiting for riders, near a tree.", UPSTREAM[0][1]),
    ("Two dogs lie on the rug. They appear to be asleep.", "Two dogs lie on the rug."),
    ("In the corner, a lamp is on, suggesting it is evening.", "In the corner, a lamp is on."),
    ("Possibly a cat sits there.", ""),
    ("Perhaps waiting for a bus, a man stands at the kerb.", "A man stands at the kerb."),
    ("On the left, a woman seems happy.", "On the left is a woman."),
    ("On the left, a woman holds a cup, perhaps of tea.", "On the left, a woman holds a cup."),
    ("The sky is blue, the sea seems calm and the sand is white", "The sky is blue, the sand is white"),
    ("A dog that looks like a wolf, with grey fur, stands still.", "A dog, with grey fur, stands still."),
    ("A man, a woman, and perhaps a child, walk.", "A man and a woman walk."),
    ("There are apples, oranges, and possibly a pear.", "There are apples and oranges."),
    ("The road is wet suggesting recent rain.", "The road is wet."),
    ("The bus, which appears to be red, is parked near a tree.", "The bus is parked near a tree."),
    ("A man who appears to be a chef is standing near a stove.", "A man is standing near a stove."),
    ("A woman holds a bag that seems heavy and a man carries a box.", "A woman holds a bag and a man carries a box."),
    ("The light suggests that it is late, and the shadows are long.", "The shadows are long."),
    ("A man with no hat stands near a car.", "A man stands near a car."),
    ("The wall is white. There is no picture on it. A clock hangs above.", "The wall is white. A clock hangs above."),
    ("Two girls look into the camera with no smile on their faces.", "Two girls look into the camera."),
    (
        "The goalie is in a crouch and one player with a red and white top appears to be glad.",
        "The goalie is in a crouch.",
    ),
    ("A car is on the tracks and may or may not have been hit.", "A car is on the tracks."),
    ("Here are two girls, talking to each other, or maybe texting.", "Here are two girls, talking to each other."),
    ("a dog that looks like a wolf", "a dog"),
    ("People are gathered together most likely waiting.", "People are gathered together."),
    (
        "Two men, one in red, are playing in a hall which appears to be old.",
        "Two men, one in red, are playing in a hall.",
    ),
    ("A group of people, some sitting, seem to be glad, as there are streamers.", "There are streamers."),
    ("An old, perhaps homeless, man is sitting at a table.", "An old man is sitting at a table."),
    ("Presumably, the man is a chef. He holds a pan.", "He holds a pan."),
    ("The man, presumably, is a chef.", ""),
    ("Two men are fishing, apparently.", ""),
    ("Judging by the light, the sun is low, and a fence runs along the field.", "A fence runs along the field."),
    ("If I had to guess, the photo is from 1970.", ""),
    ("The wall has framed pictures and, apparently, a child's drawing.", "The wall has framed pictures."),
    ("A plate with ham and, it seems, a pickle sits on a cloth.", "A plate with ham sits on a cloth."),
    ("Two women face each other and are, it seems, talking.", "Two women face each other."),
    ("A man and, possibly, his son walk along the beach.", ""),
    (
        "The vegetables, including broccoli, carrots, and possibly zucchini, are on a tray.",
        "The vegetables, including broccoli and carrots, are on a tray.",
    ),
    ("The man, dressed in white, possibly a chef, is cooking.", "The man, dressed in white, is cooking."),
    ("The truck has a sign and seems to carry hay, which is stacked high.", "The truck has a sign."),
    ("A man stands, possibly waiting for a bus, which is red.", "A man stands."),
    (
        "His arms are wide, his mouth open, apparently shouting, with people behind him.",
        "His arms are wide, his mouth open, with people behind him.",
    ),
    ("The crowd is cheering, and although their faces are blurred, they seem glad.", "The crowd is cheering."),
    ("The woman could be a nurse, as she is wearing blue scrubs.", "The woman is wearing blue scrubs."),
    ("The man is not wearing a helmet, but he has knee pads on.", "The man has knee pads on."),
    ("He isn't wearing a shirt and carries a board.", "He carries a board."),
    ("The scene seems to be a park, where a man is throwing a ball.", "A man is throwing a ball."),
    ("The animal, a large dog or maybe a wolf, stands on a ridge.", "The animal, a large dog, stands on a ridge."),
    ("Two boys play a guess-who game.", "Two boys play a guess-who game."),
    ("The scoreboard indicates that the home team leads.", "The scoreboard indicates that the home team leads."),
    ("A lady (but with no hat) and a guy are in a court.", "A lady and a guy are in a court."),
    ("Regarding the street, the presence of plants, bicycles, and cars suggests order.", ""),
    ("The car is loud, possibly causing stress, noise, or even smells.", "The car is loud."),
    ("Three boys wearing swim trunks and no shirts play in the surf.", ""),
    ("A man in a blue shirt appears to sleep and a sign that says go.", ""),
    ("A dog sits\u2026 perhaps waiting for food.", "A dog sits\u2026"),
    # Where nothing whole would be left, the sentence goes.
    ("The man is possibly waiting for a train. A bag is red.", "A bag is red."),
    ("A dog and possibly a cat lie on the rug.", ""),
]


@pytest.mark.parametrize(("text", "expected"), DEFAULT)
def test_default_keeps_the_facts_beside_the_guess(text: str, expected: str) -> None:
    assert remove_hedges(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The man has a calm appearance.",
        "The seemingly old car is parked. The road is wet.",
        "A sign reads STOP",
        'A sign reads "maybe no parking" above the door.',
        "A sign says \u201cperhaps tomorrow\u201d in red.",
        "The sign reads maybe.",
        'A board shows "It may rain. Perhaps not." in white.',
        "A no parking sign stands on the left.",
        "A no entry sign hangs on the wall.",
        "A dog appears in the background.",
        "A hint of blue is in the sky.",
        "In May 2020, a car is parked in Mr. Maybach's garage.",
        "The unlikely pair stands still. An unexpected guest arrives.",
    ],
)
def test_default_leaves_what_only_looks_like_a_guess(text: str) -> None:
    assert remove_hedges(text) == text


def test_negations_stay_when_asked_for() -> None:
    text = "The street is empty. There are no people."
    assert remove_hedges(text) == "The street is empty."
    assert remove_hedges(text, keep_negations=True) == text


WORDS = "a the dog man seems possibly and which suggesting stands is red , . On no with that appears ; \" ' -".split()


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_default_never_invents_words_and_ends_where_it_began(text: str) -> None:
    cleaned = remove_hedges(text)
    added = set(re.findall(r"\w+", cleaned.lower())) - set(re.findall(r"\w+", text.lower()))
    assert added <= {"and", "is", "are"}
    assert remove_hedges(cleaned) == cleaned or len(remove_hedges(cleaned)) < len(cleaned)


def record(*texts: str) -> Record:
    box = Box((0, 0, 5, 5), caption=Caption("a cup, possibly empty"))
    region = Region(("cup",), ((0, 3),), (box,))
    captions = tuple(Caption(text) for text in texts)
    return Record("s/1/0", "s", "1", "0", "detection", "1.jpg", "r", 9, 9, "cup. ", (region,), captions=captions)


def test_rule_cleans_all_captions_and_keeps_the_raw_text() -> None:
    outcome = RemoveSpeculation()(record("A cup is red, perhaps new.", "A cup stands here."))
    assert isinstance(outcome, Record)
    assert [(c.text, c.raw) for c in outcome.captions] == [
        ("A cup is red.", "A cup is red, perhaps new."),
        ("A cup stands here.", ""),
    ]
    assert outcome.boxes[0].caption == Caption("a cup", raw="a cup, possibly empty")


def test_caption_that_was_all_guess_goes_and_boxes_stay() -> None:
    outcome = RemoveSpeculation()(record("They seem happy."))
    assert isinstance(outcome, Kept)
    assert outcome.record.captions == ()
    assert len(outcome.record.boxes) == 1
    (loss,) = outcome.losses
    assert (loss.target, loss.index) == ("image_caption", 0)
    assert loss.verdict == Drop("caption_empty", "nothing was left after cleaning")


def test_upstream_mode_keeps_the_caption_when_nothing_is_left_and_leaves_regions_alone() -> None:
    before = record("On the left, a woman seems happy.")
    assert RemoveSpeculation(mode="upstream")(before) == before
