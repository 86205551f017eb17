"""Which checkpoint, and on which device: what evaluate, predict and ground ask alike."""

from __future__ import annotations

from typing import Annotated

import typer

Checkpoint = Annotated[
    str | None,
    typer.Option("--checkpoint", "-c", help="Folder or hub id.", show_default="newest detector of the workspace"),
]


def gpu_wanted(chosen: bool | None) -> bool:
    """What was asked for; else whether this machine has a GPU."""
    from pipelines.doctor import gpus

    return bool(gpus()) if chosen is None else chosen


def checkpoint_named(checkpoint: str | None, workspace: str) -> str:
    """The checkpoint that was named, as an absolute path where it is a folder of this machine."""
    import os

    from llmdet.files import absolute
    from llmdet.workspace import Workspace
    from pipelines.doctor import require_extra
    from pipelines.status import newest_detector

    require_extra("train")
    if checkpoint is None:
        return newest_detector(Workspace.at(workspace))
    return absolute(checkpoint) if os.path.exists(checkpoint) else checkpoint
