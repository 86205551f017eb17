"""From which score on boxes are shown: what a checkpoint says of itself, else what its makers use, else 0.3.

A file `thresholds.json` beside `config.json` holds the checkpoint's own, for some modes or all:

    {"detection": 0.25, "grounding": 0.2}

Scores of detectors differ: MM-Grounding-DINO's are lower than Grounding DINO's for boxes as good, so that no number
suits all. Those of families are the ones of their own demos (LLMDet's README, mmdet's `--pred-score-thr`).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from detector import checkpoint
from llmdet import files
from llmdet.errors import FormatError
from llmdet.questions import Mode

FILE = "thresholds.json"
FAMILIES: dict[str, dict[Mode, float]] = {  # part of the name of a hub id or folder -> mode -> threshold
    "llmdet": {"detection": 0.4, "grounding": 0.35, "referring": 0.4, "spans": 0.4},
}
OTHERWISE = 0.3


def threshold_of(name: str, mode: Mode) -> float:
    """The threshold of a checkpoint, a folder or hub id, for a mode. Raises FormatError for a damaged file."""
    stored = _stored(name)
    if mode in stored:
        return stored[mode]
    known = (by_mode for part, by_mode in FAMILIES.items() if part in PurePosixPath(name).name.lower())
    return next(known, {}).get(mode, OTHERWISE)


def _stored(name: str) -> dict[str, float]:
    if not Path(name).is_dir():
        return {}
    file = checkpoint.find(name) / FILE
    if not file.is_file():
        return {}
    values = files.read_json(str(file))
    numbers = values.values() if isinstance(values, dict) else [None]
    if not all(isinstance(one, int | float) and 0 <= one <= 1 for one in numbers):
        raise FormatError(f"{file} must be an object of modes with a threshold each, from 0 to 1; got {values!r}")
    return dict(values)
