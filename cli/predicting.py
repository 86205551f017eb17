"""predict: what a detector sees in pictures."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import options
from cli.checkpoints import Checkpoint, checkpoint_named
from cli.screen import screen


def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Pictures, or folders of pictures.")],
    text: Annotated[str, typer.Option("--text", "-t", help='What to look for: "dog . red cup ."')],
    checkpoint: Checkpoint = None,
    to: Annotated[str, typer.Option("--out", "-o", help="Folder for the drawn pictures.")] = "predictions",
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Boxes below this score are not shown.")] = 0.3,
    top_k: Annotated[int, typer.Option(min=1, help="At most so many boxes a picture.")] = 100,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Look for what a text names in pictures: boxes as a table, as JSON and drawn."""
    with screen("predict", workspace, as_json) as out:
        from rich.table import Table
        from rich.text import Text

        from llmdet.files import absolute
        from pipelines.doctor import require_extra
        from pipelines.predict import predict as look

        require_extra("train")
        with out.watch("predict"):
            outcome = look(
                images, text, checkpoint_named(checkpoint, workspace), absolute(to), threshold=threshold, top_k=top_k
            )
        out.result = {"images": outcome.images, "out": absolute(to), "json": outcome.json}
        table = Table("picture", "phrase", *(_right(head) for head in ("score", "x1", "y1", "x2", "y2")))
        for picture in outcome.images:
            if picture.error:
                out.note(f"note: {picture.error}")
            for box, score, phrase in zip(picture.boxes, picture.scores, picture.phrases, strict=True):
                numbers = (f"{score:.3f}", *(f"{value:.1f}" for value in box))
                table.add_row(Text(picture.image.rsplit("/", 1)[-1]), Text(phrase), *numbers)
        if all(picture.error for picture in outcome.images):
            out.too_many_faults.append(f"none of the {len(outcome.images)} pictures could be used")
        found = sum(len(picture.boxes) for picture in outcome.images)
        out.shown += [table] if found else []
        out.shown.append(f"{found} boxes of at least {threshold:g} in {len(outcome.images)} pictures")
        out.shown += [f"  {picture.drawn}" for picture in outcome.images if picture.drawn]


def _right(head: str) -> Any:
    from rich.table import Column

    return Column(head, justify="right")
