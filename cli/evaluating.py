"""evaluate: a detector on annotated sets, or result files against their ground truth."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli import options
from cli.checkpoints import Checkpoint, checkpoint_named, gpu_wanted
from cli.screen import screen

MAX_MISSING = 0.05  # share of an evaluation's photos, as the default of --max-faults


def evaluate(
    annotations: Annotated[str, typer.Option("--annotations", help="Ground truth.")],
    images: Annotated[str | None, typer.Option("--images", help="Folder of its photos.")] = None,
    checkpoint: Checkpoint = None,
    detections: Annotated[
        str | None, typer.Option("--detections", help="Score this result file instead: no model, no torch.")
    ] = None,
    task: Annotated[
        Literal["coco", "lvis", "lvis-fixed", "flickr30k", "refcoco"],
        typer.Option(help="Protocol and format of the ground truth; all but coco score a result file."),
    ] = "coco",
    to: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder.", show_default="evaluations beside the checkpoint")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the set, in file names.", show_default="the task")] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="(box, name) pairs kept per image; of lvis-fixed: detections per category.",
            show_default="300; of lvis-fixed 10000",
        ),
    ] = None,
    protocol: Annotated[
        Literal["llmdet", "mm_grounding_dino"],
        typer.Option(help="Of refcoco: boxes ranked by words of place too, or by score alone."),
    ] = "llmdet",
    names_per_prompt: Annotated[
        int | None, typer.Option(min=1, help="Names asked at once.", show_default="as many as fit")
    ] = None,
    gpu: options.Gpu = None,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Measure a detector on an annotated set, or score a result file.

    \b
    llmdet-data evaluate --annotations instances_val2017.json --images val2017 --checkpoint out
    llmdet-data evaluate --annotations instances_val2017.json --detections detections.json
    llmdet-data evaluate --task lvis-fixed --annotations lvis_v1_minival.json --detections detections.json
    """
    with screen("evaluate", workspace, as_json) as out:
        from dataclasses import asdict

        from llmdet.errors import SettingError
        from llmdet.files import absolute, join
        from pipelines.evaluate import CocoSet, score
        from pipelines.evaluate import evaluate as measure
        from pipelines.scoring import Rules

        if detections:
            rules = Rules(task=task, top_k=top_k or 10_000, protocol=protocol)
            outcome = score(annotations, detections, name or task, rules)
        elif task != "coco":
            raise SettingError(f"--task {task} scores a result file: give --detections")
        else:
            one = CocoSet(
                name=name or task,
                annotations=absolute(annotations),
                images=_images(images),
                top_k=top_k or 300,
                names_per_prompt=names_per_prompt,
            )
            model = checkpoint_named(checkpoint, workspace)
            with out.watch(f"evaluate {one.name}") as progress:
                folder = absolute(to) if to else join(model, "evaluations")
                outcome = measure([one], model, folder, gpu=gpu_wanted(gpu), progress=progress)[0]
        out.result = asdict(outcome)
        width = max(6, *map(len, outcome.metrics))
        out.shown += [
            f"{key:{width}} {value:.4f}" if value >= 0 else f"{key:{width}} no such boxes"
            for key, value in outcome.metrics.items()
        ]
        out.shown.append(f"detections in {outcome.detections}")
        if over := outcome.too_many_missing(MAX_MISSING):
            out.too_many_faults.append(over)
        elif outcome.missing:
            worst = next(iter(outcome.missing.items()))
            out.note(f"note: {len(outcome.missing)} photos could not be used (image {worst[0]}: {worst[1]})")


def _images(images: str | None) -> str:
    from llmdet import files
    from llmdet.errors import MissingError, SettingError

    if images is None:
        raise SettingError("--images says where the photos are; or give --detections to score a result file")
    if not files.exists(images):
        raise MissingError(f"no image folder at {images}")
    return files.absolute(images)
