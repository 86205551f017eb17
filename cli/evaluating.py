"""evaluate: a detector on annotated sets, or result files against their ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options
from cli.checkpoints import Checkpoint, checkpoint_named, gpu_wanted
from cli.screen import screen

if TYPE_CHECKING:
    from cli.screen import Screen
    from pipelines.evaluate import EvaluateOutcome

MAX_MISSING = 0.05  # share of an evaluation's photos, as the default of --max-faults
_SHOWN = 24  # figures; the metrics file has all


_Annotations = Annotated[
    str, typer.Option("--annotations", help="Ground truth; of odinw and coco-o the folder of their sets.")
]
_Images = Annotated[
    str | None,
    typer.Option("--images", help="Folder of its photos.", show_default="of odinw and coco-o --annotations"),
]
_Detections = Annotated[
    str | None, typer.Option("--detections", help="Score this result file instead: no model, no torch.")
]
_Task = Annotated[
    Literal["coco", "lvis", "lvis-fixed", "refcoco", "flickr30k", "odinw", "coco-o"],
    typer.Option(help="Protocol and format of the ground truth."),
]
_Out = Annotated[
    str | None, typer.Option("--out", "-o", help="Folder.", show_default="evaluations beside the checkpoint")
]
_Name = Annotated[str | None, typer.Option(help="Of the set, in file names.", show_default="the task")]
_TopK = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="(box, name) pairs kept; with --detections and lvis-fixed: as --per-category.",
        show_default="300; 30 of refcoco, 100 of a phrase of flickr30k",
    ),
]
_TopKPer = Annotated[
    Literal["chunk", "image"] | None,
    typer.Option(help="Pairs kept of each prompt, or of each image.", show_default="chunk for lvis, else image"),
]
_PerCategory = Annotated[
    int, typer.Option(min=1, help="Of lvis-fixed: detections of each category that count, over all images.")
]
_NamesPerPrompt = Annotated[
    int | None, typer.Option(min=1, help="Names asked at once.", show_default="40 for lvis, else as many as fit")
]
_Threshold = Annotated[float, typer.Option(min=0, max=1, help="Pairs with a lower score are not kept.")]
_Protocol = Annotated[
    Literal["llmdet", "mm_grounding_dino"],
    typer.Option(help="Of refcoco: how an expression is asked and boxes are ranked."),
]
_Benchmark = Annotated[Literal["odinw13", "odinw35"], typer.Option(help="Of odinw: which sets its average is of.")]
_Split = Annotated[str, typer.Option(help="Of flickr30k: test, val or train.")]
_BatchSize = Annotated[int, typer.Option(min=1, help="Photos asked at once.")]
_Workers = Annotated[
    int | None, typer.Option(min=1, help="Detectors side by side.", show_default="one for each GPU, or each CPU")
]


def evaluate(
    annotations: _Annotations,
    images: _Images = None,
    checkpoint: Checkpoint = None,
    detections: _Detections = None,
    task: _Task = "coco",
    to: _Out = None,
    name: _Name = None,
    top_k: _TopK = None,
    top_k_per: _TopKPer = None,
    per_category: _PerCategory = 10_000,
    names_per_prompt: _NamesPerPrompt = None,
    threshold: _Threshold = 0.0,
    protocol: _Protocol = "llmdet",
    benchmark: _Benchmark = "odinw13",
    split: _Split = "test",
    batch_size: _BatchSize = 8,
    gpu: options.Gpu = None,
    workers: _Workers = None,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Measure a detector on an annotated set, or score a result file.

    \b
    llmdet-data evaluate --annotations instances_val2017.json --images val2017 --checkpoint out
    llmdet-data evaluate --task lvis-fixed --annotations lvis_v1_minival.json --images coco --checkpoint out
    llmdet-data evaluate --annotations instances_val2017.json --detections detections.json
    """
    with screen("evaluate", workspace, as_json) as out:
        from llmdet.files import absolute, join
        from pipelines.evaluate import EvaluationSet, score
        from pipelines.evaluate import evaluate as measure
        from pipelines.scoring import SEVERAL, Rules

        shared: dict[str, Any] = {"task": task, "protocol": protocol, "benchmark": benchmark}
        if detections:
            kept = (top_k or per_category) if task == "lvis-fixed" else per_category
            photos = _images(images) if images else ""
            page = absolute(to) if to else absolute(join(detections, "..")) if images else ""
            rules = Rules(top_k=kept, **shared)
            _show(out, score(annotations, detections, name or task, rules, images=photos, out=page))
            return
        asked: dict[str, Any] = {"top_k": top_k, "top_k_per": top_k_per, "names_per_prompt": names_per_prompt}
        asked |= {"threshold": threshold, "per_category": per_category, "split": split, "batch_size": batch_size}
        photos = _images(images or (annotations if task in SEVERAL else None))
        one = EvaluationSet(name=name or "", annotations=absolute(annotations), images=photos, **shared, **asked)
        model = checkpoint_named(checkpoint, workspace)
        folder = absolute(to) if to else join(model, "evaluations")
        with out.watch(f"evaluate {one.title}") as progress:
            outcome = measure([one], model, folder, gpu=gpu_wanted(gpu), workers=workers, progress=progress)[0]
        _show(out, outcome)


def _show(out: Screen, outcome: EvaluateOutcome) -> None:
    from dataclasses import asdict

    out.result = asdict(outcome)
    out.shown += _lines(outcome)
    if over := outcome.too_many_missing(MAX_MISSING):
        out.too_many_faults.append(over)
    elif outcome.missing:
        worst = next(iter(outcome.missing.items()))
        out.note(f"note: {len(outcome.missing)} photos could not be used (image {worst[0]}: {worst[1]})")


def _lines(outcome: EvaluateOutcome) -> list[str]:
    """Figures, how they were measured, and where the rest is."""
    width = max(6, *map(len, outcome.metrics))
    figures = list(outcome.metrics.items())
    lines = [
        f"{key:{width}} {value:.4f}" if value >= 0 else f"{key:{width}} no such boxes"
        for key, value in figures[:_SHOWN]
    ]
    if len(figures) > _SHOWN:
        lines.append(f"and {len(figures) - _SHOWN} more in the metrics file")
    if outcome.protocol:
        told = (f"{name.replace('_', ' ')} {value}" for name, value in outcome.protocol.items() if value is not None)
        lines.append("protocol: " + ", ".join(told))
    lines.append(f"detections in {outcome.detections}")
    return lines + ([f"page in {outcome.page}"] if outcome.page else [])


def _images(images: str | None) -> str:
    from llmdet import files
    from llmdet.errors import MissingError, SettingError

    if images is None:
        raise SettingError("--images says where the photos are; or give --detections to score a result file")
    if not files.exists(images):
        raise MissingError(f"no image folder at {images}")
    return files.absolute(images)
