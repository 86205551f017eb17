"""demo: a web page of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import options
from cli.checkpoints import Checkpoint, gpu_wanted
from cli.screen import Screen, screen

if TYPE_CHECKING:
    from pipelines.demo import Finder
    from pipelines.shelf import Shelf


def demo(
    checkpoint: Checkpoint = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than 127.0.0.1 opens it to a network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 7860,
    gpu: options.Gpu = None,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Open a web page: look for things in pictures, leaf through the records. Ctrl-C ends it.

    With --json its address is told as soon as it listens, and once more at the end.
    """
    with screen("demo", workspace, as_json) as out:
        from pipelines.demo import demo as serve
        from pipelines.doctor import require_extra

        require_extra("demo")
        with serve(_finder(out, checkpoint, workspace, gpu), _shelf(out, workspace), host=host, port=port) as page:
            out.result = {"address": page.address}
            if as_json:
                out.print(seconds=0.0)
            out.note(f"open {page.address} (Ctrl-C ends it)")
            if host not in ("127.0.0.1", "localhost", "::1"):
                out.note(f"note: everybody who reaches {host} can use this page and see the records")
            page.run()


def _finder(out: Screen, checkpoint: str | None, workspace: str, gpu: bool | None) -> Finder | None:
    """The detector that was named, else the newest of the workspace, else none."""
    from cli.checkpoints import checkpoint_named
    from llmdet.errors import ExtraError, MissingError
    from pipelines.demo import Finder

    try:
        return Finder(checkpoint_named(checkpoint, workspace), gpu_wanted(gpu))
    except (ExtraError, MissingError) as error:
        if checkpoint is not None:
            raise
        out.note(f"note: without a detector: {error}")
        return None


def _shelf(out: Screen, workspace: str) -> Shelf | None:
    """The records of the workspace, if there are any."""
    from llmdet.errors import MissingError
    from llmdet.workspace import Workspace
    from pipelines.shelf import Shelf

    try:
        return Shelf.of(Workspace.at(workspace))
    except MissingError as error:
        out.note(f"note: without records: {error}")
        return None
