"""Prompts about boxes, for language models that see: one short caption per box, in four ways.

    region-batch    one question for up to 16 boxes of a picture; the answer is a JSON list   (default)
    region-each     one question per box; picture and instructions first, the box last, so that a prefix cache has the
                    rest from the second box on
    region-crop     one question per box, which shows only the part around it
    region-mark     one question for up to 16 boxes, which are drawn on the picture with their numbers

A box keeps its number when it is asked about again. A change of wording needs a new version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import orjson

from llmdet import boxes as geometry
from llmdet.boxes import XYXY
from llmdet.errors import SettingError
from llmdet.prompts.frames import GENERAL, Frame
from llmdet.prompts.image import quoted
from llmdet.prompts.prompt import Ask, Task, View, boxes_of
from llmdet.prompts.reading import read_numbered, read_region
from llmdet.prompts.views import crop_of
from llmdet.record import Record

_CHARACTERS_PER_WORD = 10  # with its space; English has about six
_TOKENS_PER_WORD = 4
_OBJECT_TOKENS = 28  # most that the JSON around one caption can take, with every character a token
_MOST_REPEATS = 100  # in one repetition of a pattern; xgrammar 0.2.8 fails above 128
# Printable ASCII but for what JSON must escape: one character is at most one token, and no escapes can be broken.
_CHARACTER = r"[ !#-\[\]-~]"

_STYLE = (
    "{words} words that name what kind of thing it is and what can be seen of it: colour, material, parts, what it is "
    "doing, text on it. No guesses, nothing about the rest of the picture, no mention of boxes, numbers or coordinates."
)
_HINT = "A name in quotation marks is what an annotator called it. Say the same in your words, or more exactly.\n"


_ANSWER = (
    "Answer with a JSON list and nothing else, one object per box in this order: "
    '[{"id": number, "caption": "..."}, ...]\nBoxes:\n'
)


@dataclass(frozen=True)
class _Captions:
    """What all region prompts have. A thing is a box's place, cut to the picture, and its phrase."""

    id: str = ""
    version: str = "1"
    task: Task = "region"
    min_words: int = 5
    max_words: int = 15
    hints: bool = True  # say what the annotation calls a box

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words <= 200:
            raise SettingError(
                f"{self.id} needs 1 <= min_words <= max_words <= 200; got {self.min_words} and {self.max_words}"
            )

    def _style(self, task: str, legend: str = "") -> str:
        """The instructions: everything that is the same for all boxes of a picture."""
        style = _STYLE.format(words=f"{self.min_words} to {self.max_words}")
        return f"{task} {style}\n{legend}{_HINT if self.hints else ''}"

    def _hint(self, phrase: str) -> str:
        return f" {quoted(phrase)}" if self.hints and phrase.strip() else ""


@dataclass(frozen=True)
class RegionBatch(_Captions):
    """One question for up to `max_boxes` boxes of a picture, answered with a JSON list."""

    id: str = "region-batch"
    frame: Frame = GENERAL  # how the model's family sees the picture and writes boxes
    max_boxes: int = 16  # in one question; a record with more asks several

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "frame", Frame.of(self.frame))
        _check_boxes(self.id, self.max_boxes)

    def render(self, record: Record) -> list[Ask]:
        return [self._ask(record, boxes) for boxes in _groups(record, self.max_boxes)]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return self._ask(record, boxes)

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        return read_numbered(answer, _numbers(ask.boxes, self.max_boxes))

    def _ask(self, record: Record, boxes: tuple[int, ...]) -> Ask:
        size, things, numbers = (record.width, record.height), _things(record), _numbers(boxes, self.max_boxes)
        task = "Each numbered box marks one thing in this picture. For every box write a caption of the thing in it:"
        text = self._style(task, f"A box is left, top, right, bottom, {self.frame.legend(*size)}.\n") + _ANSWER
        lines = [
            f"{number}: {self.frame.write(things[box].place, *size)}{self._hint(things[box].phrase)}"
            for number, box in zip(numbers, boxes, strict=True)
        ]
        longest = _list_tokens(len(boxes), self.max_words)
        return Ask(text + "\n".join(lines), _schema(numbers, self.max_words), boxes, max_tokens=longest)


@dataclass(frozen=True)
class RegionMark(_Captions):
    """One question for up to `max_boxes` boxes, drawn on the picture with their numbers; a JSON list comes back."""

    id: str = "region-mark"
    max_boxes: int = 16  # in one question; more lines on one picture would hide what they mark

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_boxes(self.id, self.max_boxes)

    def render(self, record: Record) -> list[Ask]:
        return [self._ask(record, boxes) for boxes in _groups(record, self.max_boxes)]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return self._ask(record, boxes)

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        return read_numbered(answer, _numbers(ask.boxes, self.max_boxes))

    def _ask(self, record: Record, boxes: tuple[int, ...]) -> Ask:
        things, numbers = _things(record), _numbers(boxes, self.max_boxes)
        task = (
            "Coloured boxes with numbers are drawn on this picture; each marks one thing. For every box write a "
            "caption of the thing in it:"
        )
        lines = [f"{number}:{self._hint(things[box].phrase)}" for number, box in zip(numbers, boxes, strict=True)]
        text = self._style(task) + _ANSWER + "\n".join(lines)
        view = View("mark", tuple(things[box].place for box in boxes), numbers)
        return Ask(text, _schema(numbers, self.max_words), boxes, view, _list_tokens(len(boxes), self.max_words))


@dataclass(frozen=True)
class RegionEach(_Captions):
    """One question per box; only its last line differs between the boxes of a picture."""

    id: str = "region-each"
    frame: Frame = GENERAL  # how the model's family sees the picture and writes boxes

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "frame", Frame.of(self.frame))

    def render(self, record: Record) -> list[Ask]:
        size = record.width, record.height
        task = "A box marks one thing in this picture. Write a caption of it:"
        text = self._style(task, f"The box is left, top, right, bottom, {self.frame.legend(*size)}.\n")
        text += "Answer with the caption only.\nThe box: "
        return [
            Ask(
                text + self.frame.write(thing.place, *size) + self._hint(thing.phrase),
                boxes=(box,),
                max_tokens=_TOKENS_PER_WORD * self.max_words,
            )
            for box, thing in enumerate(_things(record))
        ]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        return [read_region(answer)]


@dataclass(frozen=True)
class RegionCrop(_Captions):
    """One question per box, which shows the box and a little around it instead of the whole picture."""

    id: str = "region-crop"
    padding: float = 0.1  # shown around the box on each side, in widths and heights of it

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.padding <= 10:
            raise SettingError(f"region-crop needs a padding from 0 to 10 sides of the box; got {self.padding}")

    def render(self, record: Record) -> list[Ask]:
        text = self._style("This picture was cut out of a larger one around one thing. Write a caption of that thing:")
        text += "Answer with the caption only."
        return [
            Ask(
                text + (f"\nThe thing:{hint}" if (hint := self._hint(thing.phrase)) else ""),
                boxes=(box,),
                view=crop_of(thing.place, record.width, record.height, self.padding),
                max_tokens=_TOKENS_PER_WORD * self.max_words,
            )
            for box, thing in enumerate(_things(record))
        ]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        return [read_region(answer)]


# --- boxes and their numbers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Thing:
    place: XYXY  # pixels, inside the picture
    phrase: str


def _things(record: Record) -> list[_Thing]:
    """All boxes with their phrases, as `boxes_of` counts them."""
    found = []
    for region in record.regions:
        phrase = region.phrases[0] if region.phrases else ""
        for box in region.boxes:
            x1, y1, x2, y2 = geometry.clip(np.array(box.xyxy), record.width, record.height).tolist()
            found.append(_Thing((x1, y1, x2, y2), phrase))
    return found


def _groups(record: Record, most: int) -> list[tuple[int, ...]]:
    count = len(boxes_of(record))
    return [tuple(range(start, min(start + most, count))) for start in range(0, count, most)]


def _numbers(boxes: Sequence[int], most: int) -> tuple[int, ...]:
    """The number of each box within the question that first asked about it, from 1; narrowing keeps it."""
    return tuple(box % most + 1 for box in boxes)


def _check_boxes(prompt: str, most: int) -> None:
    if not 1 <= most <= 64:
        raise SettingError(f"{prompt} needs 1 <= max_boxes <= 64; got {most}")


# --- what an answer may be ------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _schema(numbers: tuple[int, ...], max_words: int) -> str:
    """JSON schema of the list: these ids in this order, each with one bounded caption.

    `pattern` bounds the captions, not maxLength, with which one engine (xgrammar) lets raw control characters through.
    """
    caption = {"type": "string", "pattern": _pattern(_CHARACTERS_PER_WORD * max_words)}
    items = [
        {
            "type": "object",
            "properties": {"id": {"const": number}, "caption": caption},
            "required": ["id", "caption"],
            "additionalProperties": False,
        }
        for number in numbers
    ]
    count = len(items)
    schema = {"type": "array", "prefixItems": items, "items": False, "minItems": count, "maxItems": count}
    return orjson.dumps(schema).decode()


def _pattern(longest: int) -> str:
    """Of a text that begins with a letter or digit and has 3 to `longest` characters."""
    parts, rest = f"[A-Za-z0-9]{_CHARACTER}{{2}}", longest - 3
    while rest > 0:
        parts += f"{_CHARACTER}{{0,{min(rest, _MOST_REPEATS)}}}"
        rest -= _MOST_REPEATS
    return f"^{parts}$"


def _list_tokens(count: int, max_words: int) -> int:
    """What the longest list that the schema allows needs, were every character a token, and the end of the answer."""
    return count * (_CHARACTERS_PER_WORD * max_words + _OBJECT_TOKENS) + 8
