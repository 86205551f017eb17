"""export-model: a detector as one file that other runtimes open, and what they have to know beside it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmdet import files
from llmdet.errors import FormatError, SettingError

if TYPE_CHECKING:
    from detector.export import Agreement
    from pipelines.parts import Progress

ModelFormat = Literal["onnx", "torch"]
SUFFIXES: dict[ModelFormat, str] = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-3  # of scores and of boxes in 0..1
TIED = 1e-4  # of the scores of two of the encoder's cells, so that either may come first
CHECKED = ((1, 192, 256, 8), (2, 256, 200, 20))  # images, height, width, tokens: other ones than were traced


@dataclass(frozen=True, slots=True)
class ExportModelOutcome:
    """The files, and how far the exported detector's answers are from those of the checkpoint.

    Of so many `queries` that were compared, `swapped_queries` start from another of two cells whose scores differ by
    `tie` at most; see `detector.export.Agreement`.
    """

    model: str
    description: str
    tokenizer: str
    megabytes: float
    score_difference: float
    box_difference: float
    tie: float
    swapped_queries: int
    queries: int
    seconds: float


def export_model(
    checkpoint: str, out: str, kind: ModelFormat | None = None, *, progress: Progress | None = None
) -> ExportModelOutcome:
    """Write `out`, and beside it `<stem>.json` and `<stem>.tokenizer.json`; nothing of a file that does not agree.

    Without `kind` the suffix of `out` says it. Raises SettingError for a suffix that does not fit, FormatError where
    scores or boxes differ by more than 1e-3.
    """
    from detector import checkpoint as checkpoints
    from detector import export

    started = time.monotonic()
    kind, path = format_of(out, kind), Path(files.absolute(out))
    parts = checkpoints.read(checkpoint)
    model = parts.model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    _told(progress, 0)
    program = export.trace(model)
    _told(progress, 1)
    # Weights that lie beside an ONNX file are known to it by name, so that it is written under its own.
    place = path.parent / f".{path.stem}.{os.getpid()}.tmp" / path.name
    place.parent.mkdir()
    try:
        export.write(program, place, kind)
        _told(progress, 2)
        agreement = export.check(place, kind, model, CHECKED)
        accept(agreement, checkpoint)
        opset = export.onnx_opset(place) if kind == "onnx" else None
        for file in sorted(place.parent.iterdir()):
            os.replace(file, path.parent / file.name)
    finally:
        for file in place.parent.iterdir():
            file.unlink()
        place.parent.rmdir()
    description, tokenizer = path.with_suffix(".json"), path.with_suffix(".tokenizer.json")
    files.write_json(str(description), export.description(parts, kind, opset))
    files.write_bytes(str(tokenizer), export.tokenizer_json(parts))
    _told(progress, 3)
    return ExportModelOutcome(
        model=str(path),
        description=str(description),
        tokenizer=str(tokenizer),
        megabytes=round(sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6, 1),
        score_difference=agreement.scores,
        box_difference=agreement.boxes,
        tie=agreement.tie,
        swapped_queries=agreement.swapped,
        queries=agreement.queries,
        seconds=round(time.monotonic() - started, 3),
    )


def accept(agreement: Agreement, checkpoint: str) -> None:
    """Raise FormatError where a file is not the checkpoint; what is no number is no agreement."""
    if not agreement.tie <= TIED:
        raise FormatError(
            f"the exported detector chose other cells than {checkpoint}, whose scores differ by {agreement.tie:.2g}; "
            f"at most {TIED:g} is expected, so that nothing was written"
        )
    if not (agreement.scores <= TOLERANCE and agreement.boxes <= TOLERANCE):
        raise FormatError(
            f"the exported detector differs from {checkpoint} by {agreement.scores:.2g} in a score and "
            f"{agreement.boxes:.2g} in a box; at most {TOLERANCE:g} is expected, so that nothing was written"
        )


def format_of(out: str, kind: ModelFormat | None) -> ModelFormat:
    """What the file is to be. Raises SettingError where its suffix says another thing, or nothing."""
    by_suffix: dict[str, ModelFormat] = {suffix: name for name, suffix in SUFFIXES.items()}
    told = by_suffix.get(Path(out).suffix)
    expected = ", ".join(f"{suffix} for {name}" for name, suffix in SUFFIXES.items())
    if "://" in out:
        raise SettingError(f"--out {out}: a model is written to a folder of this machine")
    if told is None or (kind is not None and told != kind):
        raise SettingError(f"--out {out}: the file must end with {expected}")
    return told


def _told(progress: Progress | None, done: int) -> None:
    if progress:
        progress(done, 3)
