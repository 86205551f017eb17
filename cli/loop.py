"""quickstart and run: the whole loop by one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import options
from cli.screen import Screen, counted, screen

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.recipe import Recipe
    from pipelines.run import RunOutcome


def quickstart(
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.", show_default="900")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes to learn from.")] = 2000,
    held_out: Annotated[int, typer.Option(min=1, help="Scenes of each evaluation set.")] = 320,
    seed: Annotated[int, typer.Option(help="Of the world and of training.")] = 0,
    captions: Annotated[
        Literal["on", "off"], typer.Option("--captions", help="Learn from captions too, or from boxes alone.")
    ] = "on",
    workspace: options.Workspace = "quickstart",
    as_json: options.AsJson = False,
) -> None:
    """Run the whole loop on a small world that is rendered on the spot: no GPU, no downloads, minutes.

    Renders scenes, captions them, cleans, merges and exports, trains a tiny detector, evaluates it before and after,
    looks at held-out scenes, and writes a report. Started again after a kill, it goes on.
    """
    with screen("quickstart", workspace, as_json) as out:
        from dataclasses import asdict

        from pipelines.doctor import require_extra
        from pipelines.quickstart import quickstart as run_all

        require_extra("train")
        spoken = captions == "on"
        outcome = run_all(
            workspace, steps=steps, scenes=scenes, held_out=held_out, seed=seed, captions=spoken, watch=out.watch
        )
        out.result = asdict(outcome)
        out.shown += [
            f"{outcome.records} captioned records in {outcome.workspace}/groundingcap",
            f"AP50 on held-out scenes        {outcome.ap50_before:.3f} untrained, {outcome.ap50_after:.3f} trained",
            f"AP50 on pairs never seen       {outcome.ap50_unseen:.3f} trained",
            f"detector                       {outcome.checkpoint}",
            f"{len(outcome.pictures)} scenes with what it sees     {outcome.workspace}/predictions",
            *([f"what it says of the first      {outcome.said}"] if spoken else []),
            f"peak memory of all processes   {outcome.peak_memory_bytes / 2**30:.2f} GiB",
            f"report                         {outcome.report}",
        ]


def run(
    recipe: Annotated[
        str, typer.Argument(help="YAML file, or the name of a bundled one.", autocompletion=options.complete_recipe)
    ],
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.KEY=VALUE", help="Change a value; read as YAML.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and what it would take; open no photo.")
    ] = False,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    max_faults: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of faults above which the exit code is 3.")
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option("--workspace", "-w", envvar="LLMDET_WORKSPACE", show_default="as the recipe says"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Run a recipe: every section of it that is there, in order.

    Stages that are done with the same inputs and settings are passed over; one that was killed goes on.
    """
    with screen("run", workspace, as_json) as out:
        from pipelines.recipe import load

        given = {"workspace": workspace, "data_root": data_root, "max_faults": max_faults}
        changes = [*(set or []), *(_as_set(key, value) for key, value in given.items() if value is not None)]
        chosen = load(recipe, changes, check=False)
        chosen.check(planning=dry_run)
        out.workspace = chosen.workspace
        if dry_run:
            _plan(out, chosen, limit)
        else:
            _run(out, chosen, limit)


def _as_set(key: str, value: object) -> str:
    """An option as an override; JSON's quotes keep YAML from reading a path as a number."""
    import json

    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _run(out: Screen, recipe: Recipe, limit: int | None) -> None:
    from dataclasses import asdict

    from pipelines.doctor import require_extra
    from pipelines.run import run

    if recipe.train:
        require_extra("train")
    outcome = run(recipe, limit=limit, watch=out.watch)
    out.result = asdict(outcome)
    out.shown += _told(outcome)
    if outcome.too_many_faults:
        out.too_many_faults.append(outcome.too_many_faults)


def _told(outcome: RunOutcome) -> list[str | Table]:
    lines: list[str | Table] = [f"{outcome.records} records in {outcome.workspace}/groundingcap"]
    if outcome.rejects:
        lines.append(f"  left out: {counted(outcome.rejects)}")
    if outcome.cost:
        lines.append(f"  captions cost {outcome.cost:.2f}")
    lines += [f"export    {folder}" for folder in outcome.exports.values()]
    if outcome.checkpoint:
        lines.append(f"detector  {outcome.checkpoint}")
    for name, metrics in outcome.metrics.items():
        shown = ", ".join(f"{key} {metrics[key]:.3f}" for key in ("AP", "AP50", "AP75") if key in metrics)
        lines.append(f"  {name}: {shown}")
    return [*lines, f"report    {outcome.report}"]


def _plan(out: Screen, recipe: Recipe, limit: int | None) -> None:
    from cli.planned import show_plan
    from pipelines.run import dry_run

    with out.watch("plan"):
        found = dry_run(recipe, limit)
    show_plan(out, found)
    if recipe.ground and (open_ := [name for name in recipe.ground.sources if not _grounded(recipe, name)]):
        out.note(f"note: the boxes of {', '.join(open_)} come from ground, so questions about them are not counted yet")
    exports = [f"export {name}" for name, _ in recipe.exporters()]
    later = [stage for stage in ("train", "evaluate") if getattr(recipe, stage)]
    out.shown.append(f"then: {', '.join(['refine', 'merge', *exports, *later, 'report'])}")


def _grounded(recipe: Recipe, source: str) -> bool:
    from llmdet.workspace import Workspace

    return Workspace.at(recipe.workspace).grounded(source).manifest() is not None
