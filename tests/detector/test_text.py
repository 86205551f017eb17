"""Prompts, spans and tokens; the vocabulary that is shipped."""

import pytest
from transformers import PreTrainedTokenizerBase

from detector import checkpoint, text
from llmdet.errors import SettingError


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return checkpoint.tiny_tokenizer()


def tokens_by_loop(tokenizer: PreTrainedTokenizerBase, words: str, spans: list[tuple[int, int]]) -> list[int]:
    """Tokens that hold a character of a span, character by character."""
    answer = tokenizer(words, return_offsets_mapping=True)
    hits = set()
    for start, stop in spans:
        for char in range(start, stop):
            hits |= {number for number, (a, b) in enumerate(answer["offset_mapping"]) if a <= char < b}
    return sorted(hits)


def test_names_become_a_prompt_with_spans() -> None:
    prompt = text.from_names(["Dog", " red  cup "])
    assert prompt.text == "dog. red cup."
    assert [prompt.text[a:b] for ((a, b),) in prompt.phrases] == ["dog", "red cup"]
    assert text.split_names(" dog . red  cup?blue kite. . ") == ["dog", "red cup", "blue kite"]


@pytest.mark.parametrize("name", ["", "  ", ".", "?!"])
def test_a_name_without_a_letter_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="needs a letter or digit"):
        text.from_names(["dog", name])


def test_a_text_is_closed_by_a_dot_and_keeps_its_offsets() -> None:
    prompt = text.from_text("Two Dogs near İzmir  ", [((4, 8),), ((14, 19),)])
    assert prompt.text == "two dogs near İzmir."
    assert [prompt.text[a:b] for ((a, b),) in prompt.phrases] == ["dogs", "İzmir"]


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        ("red square. blue star. ", [[(0, 10)], [(12, 21)]]),
        ("a puddle . next to the puddle . ", [[(2, 8), (23, 29)]]),
        ("an xylophonist-like st. bernard . ", [[(3, 19)], [(20, 31)], [(6, 7)]]),
        ("ÉCLAIR, 12.5 日本 \U0001f600 cat", [[(0, 6)], [(8, 12)], [(13, 15)], [(16, 17)], [(18, 21)]]),
    ],
)
def test_maps_equal_a_loop_over_characters(
    tokenizer: PreTrainedTokenizerBase, words: str, phrases: list[list[tuple[int, int]]]
) -> None:
    prompt = text.from_text(words, [tuple(spans) for spans in phrases])
    encoded = text.encode(tokenizer, prompt, 256)
    assert encoded.lost == ()
    for row, spans in zip(encoded.tokens, phrases, strict=True):
        assert row.nonzero()[0].tolist() == tokens_by_loop(tokenizer, prompt.text, spans) != []


def test_phrases_beyond_the_limit_are_told_and_never_background(tokenizer: PreTrainedTokenizerBase) -> None:
    names = ["dog", "red cup", "cat", "blue kite"]
    encoded = text.encode(tokenizer, text.from_names(names), 9)  # [CLS] dog . red cup . cat . [SEP]
    assert tokenizer.convert_ids_to_tokens(encoded.ids.tolist()) == ["[CLS]", *"dog . red cup . cat .".split(), "[SEP]"]
    assert encoded.lost == (3,)
    assert encoded.tokens.sum(1).tolist() == [1, 2, 1, 0]
    # One token less and "cat" goes with its dot.
    assert text.encode(tokenizer, text.from_names(names), 8).lost == (2, 3)


def test_a_phrase_cut_in_two_is_lost_as_a_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = text.encode(tokenizer, text.from_text("red dog cat cup", [((0, 3),), ((4, 15),)]), 5)
    assert len(encoded.ids) == 5
    assert encoded.lost == (1,)
    assert not encoded.tokens[1].any()
    assert encoded.tokens[0].any()


def test_the_vocabulary_keeps_the_ids_that_the_model_has_built_in() -> None:
    words = checkpoint.VOCABULARY.read_text(encoding="utf-8").splitlines()
    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    assert {number: words[number] for number in fixed} == fixed
    assert len(set(words)) == len(words)


def test_any_ascii_word_is_spelled_without_unknown_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    printable = "".join(chr(code) for code in range(33, 127))
    for words in (printable, "quixotic zyzzyva", "l33t-speak_x", "Straße naïve café"):
        assert tokenizer.unk_token_id not in tokenizer(words.replace("ß", "ss"))["input_ids"]
    assert tokenizer("red square star")["input_ids"].__len__() == 5  # one token for each word
