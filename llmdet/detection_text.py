"""The grounding text of a detection source: class names joined by ". ", as LLMDet builds COCO and V3Det.

`"zebra. cat. kite. "`: each name is followed by a dot and a blank, the dot is not part of the span. Negatives are drawn
once and frozen in the text, so that everybody trains on the same data; `dynamic` leaves them to the trainer.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Literal

from llmdet.record import Span

# "all": every name of the source; a number: that many names in all, positives counted; "dynamic": positives only.
Negatives = Literal["all", "dynamic"] | int


def detection_text(
    positives: Iterable[str], vocabulary: Sequence[str], negatives: Negatives, key: str
) -> tuple[str, dict[str, Span]]:
    """The text and the span of every name in it.

    `key` (seed and record id) alone decides the draw and the order. A number smaller than the positives keeps all
    positives: a box never loses its name.
    """
    rng = random.Random(hashlib.blake2b(key.encode(), digest_size=8).digest())
    names = list(dict.fromkeys(positives))
    present = set(names)
    if negatives == "all":
        names += [name for name in vocabulary if name not in present]
    elif negatives != "dynamic":
        names += _draw(vocabulary, present, negatives - len(names), rng)
    rng.shuffle(names)
    text, spans = "", {}
    for name in names:
        spans[name] = (len(text), len(text) + len(name))
        text += f"{name}. "
    return text, spans


def _draw(vocabulary: Sequence[str], present: set[str], count: int, rng: random.Random) -> list[str]:
    if count <= 0:
        return []
    # Draw enough to fill up after the positives among them are thrown out: cheaper than filtering 13,204 names.
    drawn = rng.sample(vocabulary, min(len(vocabulary), count + len(present)))
    return [name for name in drawn if name not in present][:count]
