"""From records and what their texts name to boxes: the detector's half of `ground`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from llmdet import files
from llmdet.errors import ImageError, SettingError
from llmdet.images import open_image
from llmdet.phrases import Grammar, ParserChoice
from llmdet.pseudo import Find, Thing, finds_of
from llmdet.record import Record

if TYPE_CHECKING:
    from PIL import Image

    from detector.looks import Look
    from detector.predict import Detector

Asked = tuple[Record, str, Sequence[Thing]]  # with the text that names the things
_Scored = tuple[NDArray[np.float64], NDArray[np.float64]]  # boxes (n, 4), their scores (n,)


@dataclass(frozen=True, kw_only=True)
class GroundSettings:
    """Which text is grounded, how the detector is asked, and which of its boxes count."""

    caption: Literal["own", "lmm"] = "own"  # the source's text or caption, or the newest answer of `caption`, cleaned
    boxed: Literal["keep", "replace"] = "keep"  # records that have boxes already: leave them, or ground them anew
    parser: ParserChoice = "auto"  # of noun phrases: nltk where its data is there, else pattern
    grammar: Grammar = "default"  # of noun phrases; glip is that of MM-Grounding-DINO
    skip: tuple[str, ...] = ()  # heads of phrases that are no things, beside those of `llmdet.pseudo.NO_THINGS`
    prompt: Literal["names", "sentence"] = "names"  # "dog. red ball.", or the text itself with its spans
    names_per_prompt: int | None = None  # None: as many as fit; 1: each phrase alone
    min_score: float = 0.3  # mean of the probabilities of a phrase's tokens
    nms_iou: float = 0.5  # of two boxes of one thing that overlap more the better stays
    conflict_iou: float = 0.8  # of boxes of different things that overlap so much the best stays
    min_boxes: int = 3  # records with fewer are left out
    text: Literal["caption", "names"] = "caption"  # of the record: what was grounded, or the names that have boxes
    same_size: bool = True  # only pictures of one size share a batch; False: they are padded, which fills a GPU better
    batch_size: int = 8  # pictures
    part_rows: int = 256  # records of a unit of work: what a kill can cost

    def check(self) -> GroundSettings:
        """The settings themselves. Raises SettingError for a number that makes no sense."""
        for name in ("min_score", "nms_iou", "conflict_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"ground: {name} must be from 0 to 1; got {getattr(self, name)}")
        for name, least in {"min_boxes": 0, "batch_size": 1, "part_rows": 1, "names_per_prompt": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"ground: {name} must be at least {least}; got {value}")
        return self


@dataclass(frozen=True, slots=True)
class Finder:
    """Asks a detector for the things of many records."""

    checkpoint: str
    device: str
    images: str  # folder of the photos
    settings: GroundSettings

    def find(self, asked: Sequence[Asked]) -> list[list[Find] | ImageError]:
        """The boxes of each record's things before boxes of different things meet, or what is wrong with its photo."""
        if not asked:
            return []
        from detector.looks import look

        model = _detector(self.checkpoint, self.device)
        scored: list[dict[int, list[_Scored]]] = [{} for _ in asked]
        faults: dict[int, ImageError] = {}
        for batch in self._batches(model, asked):
            images = {number: image for number, _ in batch if (image := self._opened(asked, number, faults))}
            usable = [(number, one) for number, one in batch if number in images]
            seen = look(model, [images[number] for number, _ in usable], [one for _, one in usable]) if usable else []
            for (number, one), answer in zip(usable, seen, strict=True):
                for column, thing in enumerate(one.phrases):
                    scored[number].setdefault(thing, []).append((answer.boxes, answer.scores[:, column]))
        return [
            faults[number] if number in faults else self._finds(record, scored[number])
            for number, (record, _, _) in enumerate(asked)
        ]

    def _batches(self, model: Detector, asked: Sequence[Asked]) -> Iterator[list[tuple[int, Look]]]:
        """(number, prompt) in groups of one length of prompt, and of one size of photo unless they may be padded."""
        from detector.looks import model_size

        sizes = [model_size(model, (record.width, record.height)) for record, _, _ in asked]
        looks = [
            (len(one.ids), sizes[number], number, one)
            for number, (_, text, things) in enumerate(asked)
            for one in self._looks(model, text, things)
        ]
        looks.sort(key=lambda entry: entry[:2])  # stable: inside a group in the order of the records
        for _, group in groupby(looks, lambda entry: entry[:2] if self.settings.same_size else entry[:1]):
            members = [(number, one) for _, _, number, one in group]
            for start in range(0, len(members), self.settings.batch_size):
                yield members[start : start + self.settings.batch_size]

    def _looks(self, model: Detector, text: str, things: Sequence[Thing]) -> list[Look]:
        from detector.looks import looks_for_names, looks_for_spans

        tokenizer, limit = model.parts.tokenizer, int(model.parts.model.config.max_text_len)
        if self.settings.prompt == "sentence":
            return looks_for_spans(tokenizer, text, [thing.spans for thing in things], limit)
        return looks_for_names(tokenizer, [thing.name for thing in things], limit, self.settings.names_per_prompt)

    def _opened(self, asked: Sequence[Asked], number: int, faults: dict[int, ImageError]) -> Image.Image | None:
        """A record's photo as it was annotated; None, and a fault, where it cannot be used."""
        record = asked[number][0]
        if number in faults:
            return None
        try:
            image = open_image(files.safe_join(self.images, record.image), record.orientation)
            if image.size != (record.width, record.height):
                size = f"{image.width}x{image.height}"
                raise ImageError("size_mismatch", f"the record says {record.width}x{record.height}, the file is {size}")
        except ImageError as error:
            faults[number] = error
            return None
        return image

    def _finds(self, record: Record, scored: dict[int, list[_Scored]]) -> list[Find]:
        found: list[Find] = []
        for thing, parts in sorted(scored.items()):
            boxes, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
            options = (self.settings.min_score, self.settings.nms_iou, (record.width, record.height))
            found += finds_of(thing, boxes, scores, *options)
        return found


_loading = Lock()


def _detector(checkpoint: str, device: str) -> Detector:
    """The detector of this worker process, loaded once whatever the number of threads."""
    with _loading:
        return _loaded(checkpoint, device)


@lru_cache(maxsize=1)
def _loaded(checkpoint: str, device: str) -> Detector:
    from detector.predict import Detector

    return Detector.load(checkpoint, device)
