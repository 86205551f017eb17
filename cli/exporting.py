"""export-model: a detector for other runtimes."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli import options
from cli.checkpoints import Checkpoint, checkpoint_named
from cli.screen import screen


def export_model(
    checkpoint: Checkpoint = None,
    format: Annotated[
        Literal["onnx", "torch"] | None, typer.Option("--format", "-f", show_default="what --out ends with")
    ] = None,
    to: Annotated[str, typer.Option("--out", "-o", help="File: .onnx, or .pt2 for torch.")] = "detector.onnx",
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Write a detector as ONNX or torch.export's .pt2, for any number and size of pictures and any text."""
    with screen("export-model", workspace, as_json) as out:
        from dataclasses import asdict

        from pipelines.doctor import require_extra
        from pipelines.export_model import export_model as write
        from pipelines.export_model import format_of

        if format_of(to, format) == "onnx":
            require_extra("onnx")
        place = checkpoint_named(checkpoint, workspace)
        with out.watch("export-model") as progress:
            outcome = write(place, to, format, progress=progress)
        out.result = asdict(outcome)
        swapped = []
        if outcome.swapped_queries:
            of = f"{outcome.swapped_queries} of {outcome.queries} queries"
            swapped = [f"{of} start from another of two cells that are as good (to {outcome.tie:.1g} in their scores)"]
        out.shown += [
            f"{outcome.model}: {outcome.megabytes:g} MB, made in {outcome.seconds:.1f} s",
            f"differs from the checkpoint by {outcome.score_difference:.1g} in scores and "
            f"{outcome.box_difference:.1g} in boxes (0..1) at most",
            *swapped,
            f"  {outcome.description}",
            f"  {outcome.tokenizer}",
        ]
