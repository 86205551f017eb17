"""The grounding text of a detection source: class names joined by ". ", as LLMDet builds COCO and V3Det.

`"zebra. cat. kite. "`: each name is followed by a dot and a blank, the dot is not part of the span. Negatives are drawn
once and frozen in the text, so that everybody trains on the same data; `dynamic` leaves them to the trainer.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from llmdet.record import Span

# "all": every name of the source; a number: that many names in all, positives counted; "dynamic": positives only.
Negatives = Literal["all", "dynamic"] | int


def split_names(text: str) -> list[str]:
    """`"dog . red cup ."` to `["dog", "red cup"]`: what a person types."""
    return [name for part in re.split(r"[.?]", text) if (name := " ".join(part.split()))]


def detection_text(
    positives: Iterable[str],
    vocabulary: Sequence[str],
    negatives: Negatives,
    key: str,
    avoid: Collection[str] = (),
) -> tuple[str, dict[str, Span]]:
    """The text and the span of every name in it; a name stands there once, however often it is given.

    `key` (seed and record id) alone decides the draw and the order. A number smaller than the positives keeps all
    positives: a box never loses its name. `vocabulary` holds each name once; names of `avoid` are never drawn from it.
    """
    rng = random.Random(hashlib.blake2b(key.encode(), digest_size=8).digest())
    names = list(dict.fromkeys(positives))
    taken = {*names, *avoid}
    if negatives == "all":
        names += dict.fromkeys(name for name in vocabulary if name not in taken)
    elif negatives != "dynamic":
        names += _draw(vocabulary, taken, negatives - len(names), rng)
    rng.shuffle(names)
    text, spans = "", {}
    for name in names:
        spans[name] = (len(text), len(text) + len(name))
        text += f"{name}. "
    return text, spans


def _draw(vocabulary: Sequence[str], taken: set[str], count: int, rng: random.Random) -> list[str]:
    if count <= 0:
        return []
    # Draw enough to fill up after the taken ones among them are thrown out: cheaper than filtering 13,204 names.
    drawn = rng.sample(vocabulary, min(len(vocabulary), count + len(taken)))
    return list(dict.fromkeys(name for name in drawn if name not in taken))[:count]
