"""Things that a caption claims and the picture has not, as CHAIR counts them; and boxes that no caption speaks of."""

from __future__ import annotations

from collections.abc import Sequence

from llmdet.checks.finding import Checked, Finding
from llmdet.checks.names import can_mean, words_of
from llmdet.checks.reading import Known, Noun, Reading
from llmdet.record import Box


def ungrounded(reading: Reading, known: Known) -> Checked:
    """Claimed things of the vocabulary, and those of them that are known to be absent.

    A name is known to be absent only where the record lists it so; that no box has it says nothing. A word that can
    also mean something else is no contradiction unless all its meanings are absent.
    """
    findings, claims = [], 0
    for noun in reading.claims:
        said = [name for name, fit in noun.meant.items() if fit != "part"]
        present = any(name in known.present for name in noun.meant)
        claims += present or bool(said)
        if said and not present and _absent(noun, said, reading.text, known):
            word = reading.text[slice(*noun.span)]
            findings.append(Finding("ungrounded_object", noun.span, f"{word!r}: no {' or '.join(sorted(said))}"))
    return Checked(claims, tuple(findings))


def _absent(noun: Noun, said: Sequence[str], text: str, known: Known) -> bool:
    if not all(name in known.absent for name in said):
        return False
    words = words_of(text[slice(*noun.span)])
    own = any(words_of(name) == words for name in said)
    return own or can_mean(words) <= known.absent


def unmentioned(readings: Sequence[Reading], known: Known, least_area: float) -> Checked:
    """Boxes of at least `least_area` square pixels that none of the captions speaks of, by name.

    Nothing where a caption was too long to be read.
    """
    if not all(reading.text for reading in readings):
        return Checked(0)
    spoken = {name for reading in readings for noun in reading.nouns for name in noun.meant}
    findings, boxes = [], 0
    for name, regions in known.present.items():
        large = [box for region in regions for box in region.boxes if _area(box) >= least_area]
        boxes += len(large)
        if name not in spoken:
            findings += [Finding("box_not_mentioned", (0, 0), f"{name} at {_shown(box)}") for box in large]
    return Checked(boxes, tuple(findings))


def _area(box: Box) -> float:
    x1, y1, x2, y2 = box.xyxy
    return (x2 - x1) * (y2 - y1)


def _shown(box: Box) -> str:
    return "[" + ", ".join(f"{value:.0f}" for value in box.xyxy) + "]"
