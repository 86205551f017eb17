"""train: the detector learns from the merged records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options
from cli.checkpoints import gpu_wanted
from cli.screen import screen
from cli.stages import warn_outdated

if TYPE_CHECKING:
    from pipelines.recipe import TrainSection
    from pipelines.train import TrainOutcome

# What a machine with a GPU starts from: Swin-T, trained on Objects365, GoldG, GRIT and V3Det.
HUB_MODEL = "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det"


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="Its train section is used.",
            show_default="what fits this machine",
            autocompletion=options.complete_recipe,
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder.", show_default="detector/NAME in the workspace")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.", show_default="as the recipe says")] = None,
    gpu: options.Gpu = None,
    captions: Annotated[
        Literal["on", "off"] | None,
        typer.Option(
            "--captions",
            help="Learn from captions too, through a language model.",
            show_default="as the recipe says, else off",
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="start, workers, settings.learning_rate, ..., as YAML."),
    ] = None,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Train a detector on the merged records; started again with the same --out, it goes on.

    Without a recipe: a tiny model from scratch on a CPU, a pretrained Swin-T where there is a GPU.
    """
    with screen("train", workspace, as_json) as out:
        from dataclasses import asdict

        from llmdet.workspace import Workspace
        from pipelines.doctor import require_extra
        from pipelines.recipe import load
        from pipelines.run import sets_of
        from pipelines.train import folder_of, newest
        from pipelines.train import train as learn

        require_extra("train")
        overrides = [*(set or []), *([f"settings.steps={steps}"] if steps else [])]
        section = section_for(recipe, gpu, captions, overrides)
        asked = section.build_settings()
        sets = sets_of(load(recipe)) if recipe and asked.evaluate_every else []
        warn_outdated(out, workspace)
        try:
            with out.watch("train") as progress:
                outcome = learn(Workspace.at(workspace), section, to, progress, sets)
        except SystemExit:
            out.stop()
            folder = folder_of(Workspace.at(workspace), section, to)
            out.note(f"stopped: the newest checkpoint in {folder} is of step {newest(folder)} of {asked.steps}")
            raise
        out.result = asdict(outcome) | {"checkpoint": outcome.folder}
        out.shown += _told(outcome)


def _told(outcome: TrainOutcome) -> list[str]:
    """How training went, for people."""
    went_on = f", of which {outcome.first_step} were done before" if outcome.first_step else ""
    lines = [f"{outcome.steps} steps{went_on} in {outcome.seconds:.1f} s"]
    if outcome.losses:
        lines.append(f"loss {outcome.losses[0]:.3f} at first, {outcome.losses[-1]:.3f} at last")
    for name, figures in outcome.evaluated.items():
        said = [f"{title} {key} {value:.3f}" for title, one in figures.items() for key, value in [*one.items()][:2]]
        lines.append(f"{name}: {', '.join(said)}")
    return [*lines, f"detector {outcome.folder}"]


def section_for(recipe: str | None, gpu: bool | None, captions: str | None, overrides: list[str]) -> TrainSection:
    """The train section of a recipe, or one that fits the machine, with changes; `captions` is on, off or as it is."""
    from dataclasses import asdict

    from detector.config import tiny_settings
    from llmdet.errors import SettingError
    from pipelines.recipe import TrainSection, captions_for, load, section_of, set_values

    if recipe:
        found = load(recipe).train
        if found is None:
            raise SettingError(f"{recipe} has no train section")
        values: dict[str, Any] = found.model_dump() | ({} if gpu is None else {"gpu": gpu})
    elif gpu_wanted(gpu):
        values = {"start": HUB_MODEL, "gpu": True, "settings": {"precision": "bf16", "batch_size": 4, "readers": 4}}
    else:
        values = {"start": "tiny", "short_side": 192, "long_side": 320, "settings": asdict(tiny_settings())}
    told = values.get("captions")
    wanted = told if captions is None else captions == "on" and (told or True)
    values["captions"] = captions_for(values["start"]) if wanted is True else wanted  # a dict: --set reaches its fields
    return section_of(TrainSection, set_values(values, overrides), "train")
