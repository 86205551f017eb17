"""Texts that are too long, and negatives that are drawn."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from detector import checkpoint, text
from detector.data import targets_of
from detector.prompts import SPECIAL, Prompts, token_starts
from llmdet.record import Box, Record, Region

TOKENIZER = checkpoint.tiny_tokenizer()
BOX = Box((1.0, 1.0, 9.0, 9.0))


def record(content: str, *phrases: str, kind: str = "grounding", **changes: object) -> Record:
    """Each phrase has one box and is every place of the text where it stands."""
    regions = []
    for phrase in phrases:
        starts = [at for at in range(len(content)) if content.startswith(phrase, at)]
        spans = tuple((at, at + len(phrase)) for at in starts)
        regions.append(Region((phrase,) * len(spans), spans, (BOX,)))
    whole = Record("s/1/0", "s", "1", "0", "grounding", "a.jpg", "w", 10, 10, content, tuple(regions))
    return replace(whole, kind=kind, **changes)  # type: ignore[arg-type]


def shown(one: Record, limit: int, seed: int = 0, **more: object) -> Record:
    return Prompts(TOKENIZER, limit, **more)(one, np.random.default_rng(seed))  # type: ignore[arg-type]


def check(one: Record, limit: int) -> None:
    """What is left fits, its spans are its phrases, and no box of it loses its tokens."""
    encoded, boxes, region, _ = targets_of(one, TOKENIZER, limit)
    assert len(encoded.ids) <= limit
    assert encoded.lost == ()
    assert len(boxes) == sum(len(each.boxes) for each in one.regions)
    assert encoded.tokens[region].any(axis=1).all()
    for each in one.regions:
        assert tuple(one.text[start:end] for start, end in each.spans) == each.phrases


def test_a_text_that_fits_stays_as_it_is() -> None:
    one = record("a dog and a cat.", "a dog", "a cat")
    tokens = len(text.encode(TOKENIZER, text.from_text(one.text, []), 256).ids)
    assert len(token_starts(TOKENIZER, one.text)) + SPECIAL == tokens
    assert shown(one, 256) is one
    assert shown(one, tokens) is one
    assert shown(one, tokens - 1) is not one


@pytest.mark.parametrize("seed", range(5))
def test_of_a_long_text_pieces_with_phrases_are_kept_first(seed: int) -> None:
    filler = "the grass is green and the sky is blue. " * 40
    one = record(f"{filler}a dog runs. {filler}a cat sleeps. {filler}", "a dog", "a cat")
    left = shown(one, 64, seed)
    check(left, 64)
    assert [region.phrases for region in left.regions] == [("a dog",), ("a cat",)]
    assert left.text.count("grass") > 2  # the rest of the room is used


def test_over_the_epochs_every_phrase_of_a_long_text_has_its_turn() -> None:
    names = [f"{colour} {thing}" for colour in ("red", "blue", "green", "black") for thing in ("dog", "cat", "cup")]
    one = record("".join(f"a {name} is on the table. " for name in names), *names)
    seen: set[str] = set()
    for seed in range(30):
        left = shown(one, 40, seed)
        check(left, 40)
        assert 0 < len(left.regions) < len(names)
        assert left.text != one.text[: len(left.text)] or seed
        seen |= {region.phrases[0] for region in left.regions}
    assert seen == set(names)
    assert shown(one, 40, 3) == shown(one, 40, 3)


def test_2000_tokens_without_a_dot_are_cut_between_words_and_never_within_a_phrase() -> None:
    words = "green " * 1000
    one = record(f"{words}a very large brown dog {words}", "a very large brown dog")
    for seed in range(3):
        left = shown(one, 256, seed)
        check(left, 256)
        assert [region.phrases for region in left.regions] == [("a very large brown dog",)]
    endless = record("green " * 2000, "green " * 1999)
    assert shown(endless, 256).regions == ()


def test_a_phrase_in_several_places_keeps_those_that_are_left() -> None:
    filler = "the sky is blue. " * 60
    one = record(f"a dog runs. {filler}then a dog sleeps. ", "a dog")
    left = shown(one, 12, 1)
    check(left, 12)
    assert len(left.regions[0].spans) == 1


def test_names_are_kept_before_negatives_and_a_dot_in_a_name_does_not_divide_it() -> None:
    others = [f"thing {number}" for number in range(200)]
    names = [*others[:100], "st. bernard dog", *others[100:]]
    content = "".join(f"{name}. " for name in names)
    at = content.index("thing 7.")
    one = record(content, "st. bernard dog", "thing 150", kind="detection", negatives=((at, at + 7),))
    left = shown(one, 64)
    check(left, 64)
    assert {region.phrases[0] for region in left.regions} == {"st. bernard dog", "thing 150"}
    assert all(left.text[start:end] == "thing 7" for start, end in left.negatives)


NAMES = pa.array(sorted(["dog", "Cat", *(f"thing {number}" for number in range(300))]))


def test_negatives_are_drawn_anew_and_fit() -> None:
    one = record("dog. red cup. zebra. ", "dog", "red cup", kind="detection", negatives=((14, 19),))
    texts = set()
    sizes = []
    for seed in range(40):
        left = shown(one, 256, seed, names={"s": NAMES})
        check(left, 256)
        assert [region.phrases for region in left.regions] == [("dog",), ("red cup",)]
        absent = [left.text[start:end] for start, end in left.negatives]
        assert not {"dog", "zebra", "red cup"} & set(absent)
        assert len(set(absent)) == len(absent)
        pieces = [name for name in left.text.split(". ") if name]
        assert sorted(pieces) == sorted([*absent, "dog", "red cup"])
        texts.add(left.text)
        sizes.append(len(absent))
    assert len(texts) == 40
    assert max(sizes) <= 85
    assert min(sizes) < 40 < max(sizes)
    few = shown(one, 256, 0, names={"s": NAMES}, negatives=3)
    assert len(few.negatives) <= 3
    tight = shown(one, 16, 0, names={"s": NAMES})
    check(tight, 16)
    assert len(tight.regions) == 2


def test_sentences_and_sources_without_names_get_no_negatives() -> None:
    sentence = record("a dog runs.", "a dog")
    assert shown(sentence, 256, names={"s": NAMES}) is sentence
    alone = shown(record("zebra. dog. ", "dog", kind="detection", negatives=((0, 5),)), 256, names={})
    assert (alone.text, alone.negatives) == ("dog. ", ())
