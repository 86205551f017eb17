"""Captions out of answers: what prompts for language models share when they read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from llmdet.prompts.loose_json import Listing, Object, read
from llmdet.prompts.prompt import AnswerError

_THOUGHT = re.compile(r"\A\s*(?:<think>)?.*?</think>", re.S)
_JSON = re.compile(r"\{|\[\s*[\[\]{\"'\u201c]")
_MARKS = re.compile(r"<\|im_start\|>(?:assistant\b)?|<\|(?:im_end|endoftext|eot_id|end|assistant)\|>|</?s>|<eos>")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)\w*[ \t]*$|```(?:json|JSON)?", re.M)
_FIGURE = r"-?\d+(?:\.\d+)?"
_PLACE = re.compile(
    r"<\|box_start\|>.*?<\|box_end\|>|<box>.*?</box>|"
    rf"[\[(]{{1,2}}\s*{_FIGURE}(?:\s*,\s*[\[(]?\s*{_FIGURE}[\])]?){{3}}\s*[\])]{{1,2}}"
)
_PLACED = re.compile(rf"\s*(?:bbox(?:_2d)?|box|region)?\s*\d*\s*[:=]?\s*(?:{_PLACE.pattern})", re.I)
_LABEL = re.compile(
    r"\s*(?:\*\*)?(?:short |region |image )?(?:caption|description|answer)\s*(?:\*\*)?\s*:\s*(?:\*\*)?", re.I
)
_NUMBER = re.compile(r"(?:box|region|id|caption|object|item|no|number)?[\s._#-]*(\d{1,6})(?:\.0+)?", re.I)
_LINE = re.compile(
    r"\s*(?:[-*\u2022]\s+)?(?:\*\*)?[\[(#]*(?:box|region|id|object|item)?\s*#?(\d{1,6})[\])]*(?:\*\*)?\s*(?:[:.)=-]|(?<=\]))\s*(?!\d)(\S.*)",
    re.I,
)
_QUOTES = "\"'`\u201c\u201d\u2018\u2019"
_NOTHING = frozenset({"", "null", "none", "n/a", "na", "nil", "unknown"})
_ID_KEYS = ("id", "box_id", "number", "no", "index", "box", "region", "region_id")
_CAPTION_KEYS = ("caption", "short_caption", "description", "text", "phrase", "label", "name", "content", "value")


def read_image(answer: str) -> str:
    """The description in an answer: everything it says, out of a code fence or a JSON object where it stands in one.

    Raises AnswerError("answer_empty") where no word is left, AnswerError("answer_incomplete") for JSON without one.
    """
    text = _bare(answer)
    if _JSON.match(text) and (values := read(text)):
        captions = [caption for value in values for caption in _texts(value)]
        if not captions:
            raise AnswerError("answer_incomplete", f"JSON without a caption: {text[:80]!r}")
        text = "\n".join(captions)
    if not _tidy(text):
        raise AnswerError("answer_empty", f"no words in {text[:80]!r}" if text else "")
    return _unquoted(text.strip())


def read_region(answer: str) -> str:
    """The one short caption in an answer: its first line that is no introduction. Raises as `read_image` does."""
    text = _bare(answer)
    if _JSON.match(text) and (values := read(text)):
        captions = [caption for value in values for caption in _texts(value)]
        if captions:
            return _some(captions[0])
        if text.startswith("{"):
            raise AnswerError("answer_incomplete", f"JSON without a caption: {text[:80]!r}")
    lines = [line for line in map(str.strip, text.splitlines()) if _tidy(line)]
    spoken = [line for line in lines if not line.endswith(":")] or lines
    return _some(spoken[0] if spoken else "")


def read_numbered(answer: str, ids: Sequence[int]) -> list[str | None]:
    """One caption per asked id, None where the answer has none; the first that says something where it has several.

    Raises AnswerError: answer_empty; answer_not_json where nothing like a list is there; answer_ids_wrong where the
    ids are not those that were asked, so that nobody knows which box is meant; answer_incomplete where no box has a
    caption.
    """
    text = _bare(answer)
    if not text:
        raise AnswerError("answer_empty")
    values = read(text)
    pairs = list(_pairs(values))
    if not pairs:
        loose = [caption for value in values for caption in _texts(value)]
        if len(loose) == len(ids):
            return _chosen(list(zip(ids, loose, strict=True)), ids)
        pairs = [(int(found[1]), found[2]) for found in map(_LINE.fullmatch, text.splitlines()) if found]
    if not pairs and not values:
        if len(ids) == 1:
            return [read_region(text)]
        raise AnswerError("answer_not_json", text[:80])
    return _chosen(_same_numbers(pairs, ids), ids)


def _chosen(pairs: Sequence[tuple[int, str | None]], ids: Sequence[int]) -> list[str | None]:
    told: dict[int, str] = {}
    for number, caption in pairs:
        if text := _tidy(caption or ""):
            told.setdefault(number, text)
    if not any(number in told for number in ids):
        raise AnswerError("answer_incomplete", f"none of {len(ids)} boxes has a caption")
    return [told.get(number) for number in ids]


def _same_numbers(pairs: list[tuple[int, str | None]], ids: Sequence[int]) -> list[tuple[int, str | None]]:
    """Pairs under the ids that were asked: a list that counts from 0 is shifted where it is plainly that."""
    numbers = {number for number, _ in pairs}
    if 0 not in numbers or 0 in ids:
        return pairs
    if numbers == set(range(len(ids))) and set(ids) == set(range(1, len(ids) + 1)):
        return [(number + 1, caption) for number, caption in pairs]
    raise AnswerError("answer_ids_wrong", f"asked for {list(ids)}, got {sorted(numbers)}")


# --- out of JSON ----------------------------------------------------------------------------------------------------


def _pairs(values: Sequence[object]) -> Iterator[tuple[int, str | None]]:
    """(id, caption) of everything that has both, in order."""
    for value in values:
        if isinstance(value, Listing):
            first = value.values[:1]
            if len(value.values) == 2 and isinstance(first[0], float) and isinstance(value.values[1], str):
                yield int(first[0]), value.values[1]
            else:
                yield from _pairs(value.values)
        elif isinstance(value, Object):
            yield from _pairs_of(value)


def _pairs_of(value: Object) -> Iterator[tuple[int, str | None]]:
    number, caption = _id_of(value), _caption_of(value)
    if number is not None and caption is not None:
        yield number, caption
        return
    for key, inner in value.members:
        if found := _NUMBER.fullmatch(key):
            yield int(found[1]), _text_in(inner)
        else:
            yield from _pairs([inner])


def _id_of(value: Object) -> int | None:
    members = {key.lower(): inner for key, inner in reversed(value.members)}
    for key in _ID_KEYS:
        inner = members.get(key)
        if isinstance(inner, float) and inner == int(inner):
            return int(inner)
        if isinstance(inner, str) and (found := _NUMBER.fullmatch(inner.strip())):
            return int(found[1])
    return None


def _caption_of(value: Object) -> str | None:
    """The text under a key that means a caption; else the only text there is."""
    members = {key.lower(): inner for key, inner in reversed(value.members)}
    for key in _CAPTION_KEYS:
        if text := _text_in(members.get(key)):
            return text
    texts = [inner for key, inner in value.members if key.lower() not in _ID_KEYS and _says(inner)]
    return str(texts[0]) if len(texts) == 1 else None


def _text_in(value: object) -> str | None:
    if isinstance(value, Object):
        return _caption_of(value)
    if isinstance(value, Listing):
        return next(filter(None, map(_text_in, value.values)), None)
    return str(value) if _says(value) else None


def _says(value: object) -> bool:
    return isinstance(value, str) and bool(_tidy(value))


def _texts(value: object) -> Iterator[str]:
    """Captions without ids, in order."""
    if isinstance(value, str):
        if _says(value):
            yield value
    elif isinstance(value, Listing):
        for inner in value.values:
            yield from _texts(inner)
    elif isinstance(value, Object):
        caption = _caption_of(value)
        if caption is not None:
            yield caption
        else:
            yield from (text for _, inner in value.members if not isinstance(inner, str) for text in _texts(inner))


# --- text -----------------------------------------------------------------------------------------------------------


def _bare(answer: str) -> str:
    """An answer without thoughts, chat marks, code fences and control characters; line ends are line feeds."""
    if "</think>" in answer:
        answer = _THOUGHT.sub("", answer, count=1)
    answer = _FENCE.sub("", _MARKS.sub(" ", answer.replace("\r\n", "\n").replace("\r", "\n")))
    kept = (char for char in answer if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn"))
    return "".join(kept).strip()


def _tidy(text: str) -> str:
    """A caption on one line without quotes, labels and boxes around it; "" where it says nothing."""
    text = " ".join(_PLACE.sub(" ", _PLACED.sub(" ", text, count=1) if _PLACED.match(text) else text).split())
    if found := _LABEL.match(text):
        text = text[found.end() :]
    text = _unquoted(text.lstrip(" :,;|-\u2013\u2014"))
    nothing = text.lower().rstrip(".") in _NOTHING or not any(char.isalpha() for char in text)
    return "" if nothing else text


def _unquoted(text: str) -> str:
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text


def _some(text: str) -> str:
    """The caption tidied. Raises AnswerError where it has no word."""
    if tidied := _tidy(text):
        return tidied
    raise AnswerError("answer_empty", f"no words in {text[:80]!r}" if text.strip() else "")
