import pytest

from llmdet.tokens import estimate_bert_tokens


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 2),
        ("a dog", 4),
        ("A dog, a cat.", 8),
        ("motorcycle", 4),  # ten letters
        ("t-shirt", 5),
        ("route 66", 4),
        ("in 1990", 5),
        ("caf\u00e9", 4),  # three letters and one other character
        ("\u732b\u732b", 4),
        ("  ", 2),
    ],
)
def test_words_digits_and_marks_are_counted(text: str, count: int) -> None:
    assert estimate_bert_tokens(text) == count
