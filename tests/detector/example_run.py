"""A very small training set and very quick settings, for tests of training and prediction."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.config import ModelSettings, TrainSettings, quickstart_settings
from detector.data import TrainData
from llmdet import world
from llmdet.record import Box, Record, Region, to_batch
from llmdet.workspace import to_parquet

MODEL = ModelSettings(short_side=64, long_side=64)


def settings(steps: int, **changes: Any) -> TrainSettings:
    quick: dict[str, Any] = {"batch_size": 2, "warmup": 1, "log_every": 1, "checkpoint_every": 1000}
    return replace(quickstart_settings(steps), **(quick | changes))


def records(count: int) -> list[Record]:
    """Records of the scenes that `data` renders; the last one has no box."""
    rows = []
    for index in range(count):
        things = world.compose(np.random.default_rng((0, 0, index))) if index + 1 < count else []
        names = [*sorted({" ".join(thing.pair) for thing in things}), "green kite"]
        text, regions = "", []
        for name in names:
            span = (len(text), len(text) + len(name))
            text += f"{name}. "
            boxes = tuple(Box(thing.xyxy) for thing in things if " ".join(thing.pair) == name)
            if boxes:
                regions.append(Region((name,), (span,), boxes))
        image = f"images/{index + 1:012d}.jpg"
        rows.append(
            Record(
                f"w/{index}/0", "w", str(index), "0", "detection", image, "w", 128, 128, text, tuple(regions), (span,)
            )
        )
    return rows


def data(folder: Path, count: int = 6) -> TrainData:
    """`count` records in two parquet parts, with their photos."""
    world.write_world(folder, count, seed=0)
    (folder / "records").mkdir()
    rows = records(count)
    for number, part in enumerate((rows[: count // 2], rows[count // 2 :])):
        (folder / "records" / f"part-{number:05d}.parquet").write_bytes(to_parquet(to_batch(part)))
    return TrainData(str(folder / "records"), {"w": str(folder)})
