"""What a language model is to say of a sample: one text of the photo, one of each box.

Plain strings: which tokens they are is the business of the language model that reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.config import RegionTarget
from llmdet.record import Box, Record, Region

# In this order and once each, so "an a thing" is "A thing." and "two the dogs" is "The dogs." (LLMDet).
_LEADING = ("a", "an", "the", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_STREAM = 1  # of the random numbers of a sample; denoising draws from the seed itself


@dataclass(frozen=True, slots=True)
class Words:
    """Texts of one sample: of its photo, and of its boxes in their order; None where there is nothing to say."""

    image: str | None
    regions: tuple[str | None, ...]  # parallel to the sample's boxes
    seed: tuple[int, ...]  # of the draw, for whoever draws among the regions


def words_of(
    record: Record, chosen: Sequence[tuple[Region, Box]], target: RegionTarget, seed: tuple[int, ...]
) -> Words:
    """One of the photo's captions, and for each chosen box its phrase or its caption, drawn where there are several."""
    rng = np.random.default_rng((*seed, _STREAM))
    captions = [caption.text for caption in record.captions if caption.text]
    image = captions[int(rng.integers(len(captions)))] if captions else None
    return Words(image, tuple(_of_box(region, box, target, rng) for region, box in chosen), seed)


def _of_box(region: Region, box: Box, target: RegionTarget, rng: np.random.Generator) -> str | None:
    own = box.caption.text if box.caption else ""
    which, coin = int(rng.integers(max(len(region.phrases), 1))), rng.random() < 0.5  # drawn whether needed or not
    if own and (target == "caption" or (target == "mixed" and coin)):
        return own
    return clean_phrase(region.phrases[which]) if region.phrases else own or None


def clean_phrase(phrase: str) -> str | None:
    """`"the red Car."` to `"Red car."`, as LLMDet has it (but for its misspelt `eigth`); None where nothing is left."""
    text = phrase.lower().strip(".")
    for word in _LEADING:
        text = text.removeprefix(f"{word} ")
    return f"{text.capitalize()}." if text.strip() else None
