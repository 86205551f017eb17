"""How long a text is for BERT, guessed without its vocabulary."""

from __future__ import annotations

import re

# A word, or one character that BERT's tokenizer splits off by itself.
_PIECES = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
_LETTERS_PER_TOKEN = 6
_DIGITS_PER_TOKEN = 2
_SPECIAL_TOKENS = 2  # [CLS] and [SEP]


def estimate_bert_tokens(text: str) -> int:
    """About how many WordPiece tokens a text has, [CLS] and [SEP] counted; meant to be too many rather than too few.

    Six letters or two digits are one token, rounded up for each word; any other character is one. Frequent words are
    one token whatever their length, so ordinary English is counted too high, which pays for the rare names that are
    counted too low. It is an estimate, not a bound. Where the vocabulary is at hand, count with it instead.
    """
    return _SPECIAL_TOKENS + sum(_piece_tokens(piece) for piece in _PIECES.findall(text))


def _piece_tokens(piece: str) -> int:
    per_token = _DIGITS_PER_TOKEN if piece[0].isdecimal() else _LETTERS_PER_TOKEN
    return -(-len(piece) // per_token)
