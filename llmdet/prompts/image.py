"""Prompts about the whole picture, for language models that see.

The two principles are LLMDet's (arXiv 2501.18954, section 3): say as much as can be seen, and nothing that cannot.
Nothing of a record but the phrases of its boxes (`image-hints`) is in the text, so that a photo with several texts is
described once. A change of wording needs a new version.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from llmdet.prompts.prompt import Ask, Task
from llmdet.prompts.reading import read_image
from llmdet.record import Record

_MUCH = (
    "Describe this picture in as much detail as you can.\n"
    "Go through everything that can be seen, large and small, and the background too. For each thing say what it is, "
    "its colour, material and texture, its visible parts, what it is doing, how many there are, and where exactly it "
    "is: in the picture, and relative to the things around it. Copy text that can be read, letter for letter.\n"
)
_ONLY = (
    "Write only what the picture shows. Do not guess at names, places, times, causes, moods or intentions, nor at what "
    "lies outside the frame, and do not list what is missing. Leave out what you cannot make out.\n"
    "Answer with plain running text, without introduction, headings or lists."
)
_LONGEST_HINT = 60  # characters of a phrase
_NO_MARKS = str.maketrans("<>", "  ")


@dataclass(frozen=True)
class ImageDetailed:
    """A long description: everything that can be seen, and nothing else."""

    id: str = "image-detailed"
    version: str = "1"
    task: Task = "image"

    def render(self, record: Record) -> list[Ask]:
        return [Ask(_MUCH + _ONLY)]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        return [read_image(answer)]


@dataclass(frozen=True)
class ImageShort:
    """One or two sentences about the main things."""

    id: str = "image-short"
    version: str = "1"
    task: Task = "image"
    max_words: int = 40

    def render(self, record: Record) -> list[Ask]:
        text = (
            f"Describe this picture in one or two sentences, at most {self.max_words} words: its main things with "
            "their colours, what they are doing, and where they are.\n"
        )
        return [Ask(text + _ONLY, max_tokens=4 * self.max_words)]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        return [read_image(answer)]


@dataclass(frozen=True)
class ImageHints:
    """The long description, told which things have boxes: fewer of them are left out or misnamed.

    A photo with several texts is asked about once per text that names other things.
    """

    id: str = "image-hints"
    version: str = "1"
    task: Task = "image"
    max_hints: int = 30  # different phrases; the first of the record's

    def render(self, record: Record) -> list[Ask]:
        hints = _hints(record)[: self.max_hints]
        told = (
            f"Known to be in the picture, with how many of each: {', '.join(hints)}. Mention all of these where you "
            "see them, in words that fit, and everything else as well.\n"
        )
        return [Ask(_MUCH + (told if hints else "") + _ONLY)]

    def narrow(self, ask: Ask, record: Record, boxes: tuple[int, ...]) -> Ask:
        return ask

    def parse(self, ask: Ask, answer: str) -> list[str | None]:
        return [read_image(answer)]


def quoted(phrase: str) -> str:
    """A phrase as data in a prompt: on one line, in double quotes, not endless, without a model's marks.

    Marks such as <|im_end|> and <image> would end the question, or stand for a picture.
    """
    return orjson.dumps(" ".join(phrase.translate(_NO_MARKS).split())[:_LONGEST_HINT]).decode()


def _hints(record: Record) -> list[str]:
    """Phrases of regions with their numbers of boxes, each once whatever its case, in the record's order."""
    counts: dict[str, int] = {}
    names: dict[str, str] = {}
    for region in record.regions:
        for phrase in region.phrases[:1]:
            key = " ".join(phrase.casefold().split())
            names.setdefault(key, phrase)
            counts[key] = counts.get(key, 0) + len(region.boxes)
    return [f"{quoted(names[key])} ({count})" for key, count in counts.items() if key]
