"""ground: boxes for photos that have none."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import options
from cli.checkpoints import Checkpoint, checkpoint_named, gpu_wanted
from cli.screen import screen
from cli.stages import show_stage


def ground(
    source: options.Ingested = None,
    checkpoint: Checkpoint = None,
    gpu: options.Gpu = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", help="Take settings from its ground section.", show_default="defaults"),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="min_score, min_boxes, caption, ...; the value as YAML."),
    ] = None,
    max_faults: options.MaxFaults = 0.05,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Find the things that captions name: pseudo boxes of a detector, as grounded/SOURCE.

    \b
    llmdet-data ground --source llava --checkpoint detector --gpu
    llmdet-data ground --source mine --set caption=lmm --set min_score=0.2
    """
    with screen("ground", workspace, as_json) as out:
        from llmdet.errors import SettingError
        from llmdet.workspace import Workspace
        from pipelines.finding import GroundSettings
        from pipelines.ground import ground as find
        from pipelines.recipe import load, set_values
        from pipelines.settings import build

        if source is None:
            raise SettingError("--source says whose records get boxes; see: llmdet-data status")
        section = load(recipe, check=False).ground if recipe else None
        if recipe and section is None:
            raise SettingError(f"{recipe} has no ground section")
        values = set_values(dict(section.settings) if section else {}, set or [])
        settings = build(GroundSettings, values, "ground")
        model = checkpoint_named(checkpoint or (section.checkpoint if section else None), workspace)
        with out.watch(f"ground {source}") as progress:
            outcome = find(Workspace.at(workspace), source, model, settings, gpu=gpu_wanted(gpu), progress=progress)
        show_stage(out, f"ground {source}", outcome, max_faults)
        out.result |= {"checkpoint": model}
