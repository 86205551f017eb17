"""train, evaluate, predict: the detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options
from cli.screen import screen
from cli.stages import warn_outdated

if TYPE_CHECKING:
    from pipelines.recipe import TrainSection

Checkpoint = Annotated[
    str | None,
    typer.Option("--checkpoint", "-c", help="Folder or hub id.", show_default="newest detector of the workspace"),
]
# What a machine with a GPU starts from: Swin-T, trained on Objects365, GoldG, GRIT and V3Det.
HUB_MODEL = "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_grit_v3det"
MAX_MISSING = 0.05  # share of an evaluation's photos, as the default of --max-faults


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
        from pipelines.train import train as learn

        require_extra("train")
        overrides = [*(set or []), *([f"settings.steps={steps}"] if steps else [])]
        section = _section(recipe, gpu, overrides)
        warn_outdated(out, workspace)
        with out.watch("train") as progress:
            outcome = learn(Workspace.at(workspace), section, to, progress)
        out.result = asdict(outcome) | {"checkpoint": outcome.folder}
        went_on = f", of which {outcome.first_step} were done before" if outcome.first_step else ""
        out.shown.append(f"{outcome.steps} steps{went_on} in {outcome.seconds:.1f} s")
        if outcome.losses:
            out.shown.append(f"loss {outcome.losses[0]:.3f} at first, {outcome.losses[-1]:.3f} at last")
        out.shown.append(f"detector {outcome.folder}")


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
            model = _model(checkpoint, workspace)
            with out.watch(f"evaluate {one.name}") as progress:
                folder = absolute(to) if to else join(model, "evaluations")
                outcome = measure([one], model, folder, gpu=_gpu(gpu), progress=progress)[0]
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
            outcome = look(images, text, _model(checkpoint, workspace), absolute(to), threshold=threshold, top_k=top_k)
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


def _section(recipe: str | None, gpu: bool | None, overrides: list[str]) -> TrainSection:
    """The train section of a recipe, or one that fits the machine, with changes."""
    from dataclasses import asdict

    from detector.config import tiny_settings
    from llmdet.errors import SettingError
    from pipelines.recipe import TrainSection, load, section_of, set_values

    if recipe:
        found = load(recipe).train
        if found is None:
            raise SettingError(f"{recipe} has no train section")
        values: dict[str, Any] = found.model_dump() | ({} if gpu is None else {"gpu": gpu})
    elif _gpu(gpu):
        values = {"start": HUB_MODEL, "gpu": True, "settings": {"precision": "bf16", "batch_size": 4, "readers": 4}}
    else:
        values = {"start": "tiny", "short_side": 192, "long_side": 320, "settings": asdict(tiny_settings())}
    return section_of(TrainSection, set_values(values, overrides), "train")


def _gpu(chosen: bool | None) -> bool:
    from pipelines.doctor import gpus

    return bool(gpus()) if chosen is None else chosen


def _model(checkpoint: str | None, workspace: str) -> str:
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


def _images(images: str | None) -> str:
    from llmdet import files
    from llmdet.errors import MissingError, SettingError

    if images is None:
        raise SettingError("--images says where the photos are; or give --detections to score a result file")
    if not files.exists(images):
        raise MissingError(f"no image folder at {images}")
    return files.absolute(images)
