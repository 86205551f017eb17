"""Small records for the tests of checks: a picture of 100 x 100 with named boxes."""

from __future__ import annotations

from dataclasses import replace

from llmdet.checks.grounds import Ground, grounds
from llmdet.checks.reading import Known, Reading, known, read
from llmdet.record import Box, Caption, Record, Region

XYXY = tuple[float, float, float, float]
LEFT: XYXY = (5, 40, 25, 60)
RIGHT: XYXY = (75, 40, 95, 60)
TOP: XYXY = (40, 5, 60, 25)
MIDDLE: XYXY = (40, 40, 60, 60)


def scene(boxes: dict[str, list[XYXY]], absent: str = "", exhaustive: bool = True, crowd: bool = False) -> Record:
    """A detection record; `absent` are further names, parted by commas, that are known not to be there."""
    text, regions, negatives, order = "", [], [], 0
    for name, places in boxes.items():
        span = (len(text), len(text) + len(name))
        found = tuple(Box(xyxy, order + i, crowd=crowd) for i, xyxy in enumerate(places))
        regions.append(Region((name,), (span,), found))
        order += len(places)
        text += f"{name}. "
    for name in filter(None, absent.split(",")):
        negatives.append((len(text), len(text) + len(name)))
        text += f"{name}. "
    return Record(
        "s/1/0", "s", "1", "0", "detection", "1.png", "s", 100, 100, text, tuple(regions), tuple(negatives), exhaustive
    )  # fmt: skip


def reading(record: Record, text: str) -> tuple[Reading, Known, list[Ground]]:
    """A caption as the checks see it, with the parser that needs no data."""
    here = known(record)
    said = read(text, here.names, "pattern")
    return said, here, grounds(said, here, record.regions)


def captioned(record: Record, *texts: str) -> Record:
    return replace(record, captions=tuple(Caption(text) for text in texts))
