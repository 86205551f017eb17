"""ingest, caption, refine, merge, export, report: one stage each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import options
from cli.screen import Screen, counted, screen
from cli.stages import show_stage, show_stages, warn_outdated

if TYPE_CHECKING:
    from llmdet.leaks import LeakSettings
    from llmdet.workspace import Workspace
    from pipelines.caption import CaptionOutcome, CaptionSettings
    from pipelines.engines.engine import Engine
    from pipelines.prices import Prices
    from pipelines.readers import Values

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A field of the reader; the value as YAML.")
]
Price = Annotated[
    list[str] | None,
    typer.Option(
        "--price", metavar="NAME=VALUE", help="gpu_hour, gpus, prompt_million, answer_million, tokens_per_s, ..."
    ),
]


def ingest(
    source: options.NewSource,
    annotations: options.Annotations = None,
    images: options.Images = None,
    format: options.Format = None,
    set: Set = None,
    recipe: Annotated[str | None, typer.Option(help="Take the reader's fields from its sources.")] = None,
    check: Annotated[
        Literal["decode", "header", "skip"], typer.Option(help="How photos are checked: skip opens none.")
    ] = "decode",
    orientation: Annotated[
        Literal["stored", "applied"] | None, typer.Option(help="EXIF rotation; default: as the source says.")
    ] = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    max_faults: options.MaxFaults = 0.05,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Read annotations and check their photos: records/SOURCE.

    Without --annotations the usual layout below --data-root counts (see: llmdet-data sources SOURCE).

    \b
    llmdet-data ingest --source coco --annotations instances_val2017.json --images val2017
    llmdet-data ingest --source mine --format odvg --annotations mine.jsonl --images photos --set label_map=names.json
    """
    with screen("ingest", workspace, as_json) as out:
        values = _reader(source, recipe, data_root, format=format, annotations=annotations, images=images)
        settings = {"images": check, "orientation": orientation, "limit": limit, "leaks": _leaks(recipe, data_root)}
        _ingest(out, source, _set(values, set), data_root, settings, max_faults)


def caption(
    source: options.NewSource,
    engine: Annotated[
        str | None, typer.Option("--engine", "-e", help="Who answers.", autocompletion=options.complete_engine)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Hub id or folder of the model.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible endpoint.")] = None,
    task: Annotated[Literal["image", "region", "all"], typer.Option(help="What is described.")] = "all",
    shard: Annotated[str, typer.Option(metavar="I/N", help="This driver's share: 0/4 to 3/4, side by side.")] = "0/1",
    seed: Annotated[int, typer.Option(help="Base of all sampling seeds.")] = 0,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A field of the engine; the value as YAML.")
    ] = None,
    price: Price = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and what it would take; ask nothing.")
    ] = False,
    annotations: options.Annotations = None,
    images: options.Images = None,
    format: options.Format = None,
    recipe: Annotated[str | None, typer.Option(help="Take the reader's fields from its sources.")] = None,
    limit: options.Limit = None,
    data_root: options.DataRoot = None,
    max_faults: options.MaxFaults = 0.05,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Ask an engine for captions of images and boxes, ingesting first where that was not done.

    Started again it asks only what has no answer yet.
    """
    with screen("caption", workspace, as_json) as out:
        from llmdet.workspace import Workspace
        from pipelines.caption import CaptionSettings
        from pipelines.caption import caption as ask
        from pipelines.cluster import cluster

        place = Workspace.at(workspace)
        answers = _engine(engine, model=model, base_url=base_url, overrides=set)
        settings = CaptionSettings(task=task, seed=seed, shard=_shard(shard), price=_prices(price))
        if dry_run:
            values = _reader(source, recipe, data_root, format=format, annotations=annotations, images=images)
            _plan(out, source, answers, settings, values, data_root, limit)
            return
        answers.identity(), answers.prompts()  # a model or prompt that is not there is said before hours of ingest
        with cluster(place.url):
            if any((annotations, images, format, recipe, limit)) or not place.records(source).manifest():
                values = _reader(source, recipe, data_root, format=format, annotations=annotations, images=images)
                _ingest(
                    out, source, values, data_root, {"limit": limit, "leaks": _leaks(recipe, data_root)}, max_faults
                )
                out.result = {"ingest": out.result}
            with out.watch(f"caption {source}") as progress:
                outcome = ask(place, source, answers, settings, progress)
        show_stage(out, f"caption {source}", outcome, max_faults)
        _show_answers(out, outcome)


def retry(
    reason: Annotated[
        list[str] | None,
        typer.Option("--reason", "-r", help="What failed for this; without one: the reasons there are."),
    ] = None,
    source: options.Ingested = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A field of the engine that is not as it was, such as base_url."
        ),
    ] = None,
    price: Price = None,
    max_faults: options.MaxFaults = 0.05,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Ask again what failed for a reason, and nothing else: the same engine, another attempt, another seed.

    Errors of the engine (timeout, refused, ...) count, and answers that refine gave up on.
    """
    with screen("retry", workspace, as_json) as out:
        from pipelines.answers import latest
        from pipelines.caption import CaptionSettings
        from pipelines.retry import failures
        from pipelines.retry import retry as ask

        place = _place(workspace)
        names = [source] if source else [name for name in _ingested(place) if latest(place, name)]
        found = {name: failures(place, name).counts() for name in names}
        if not reason:
            out.result = {"failed": found}
            out.shown += [f"{name}: {counted(counts) or 'nothing failed'}" for name, counts in found.items()]
            return
        if not source:
            names = [name for name in names if any(one in found[name] for one in reason)] or names
        each = {}
        for name in names:
            with out.watch(f"retry {name}") as progress:
                outcome = ask(
                    place,
                    name,
                    reason,
                    changes=_set({}, set),
                    settings=CaptionSettings(price=_prices(price)),
                    progress=progress,
                )
            show_stage(out, f"retry {name}", outcome, max_faults)
            out.shown.append(f"  {outcome.asked} requests asked again, {outcome.asked - outcome.failed} answered")
            _show_answers(out, outcome)
            each[name] = dict(out.result)
        out.result |= {"sources": each} if len(each) > 1 else {}
        out.shown.append("now run: llmdet-data refine")


def refine(
    source: options.Ingested = None,
    recipe: Annotated[str | None, typer.Option(help="Take the chain of rules from this recipe.")] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="max_attempts, source_captions or rules.NAME.FIELD."),
    ] = None,
    max_faults: options.MaxFaults = 0.05,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Clean captions and check them against their boxes: captions/SOURCE."""
    with screen("refine", workspace, as_json) as out:
        from pipelines.recipe import RefineSection, load, section_of, set_values
        from pipelines.refine import refine as clean

        place = _place(workspace)
        values = load(recipe, check=False).refine.model_dump(exclude_none=True) if recipe else {}
        settings = section_of(RefineSection, set_values(values, set or []), "refine").settings()
        found = {}
        for name in [source] if source else _ingested(place):
            with out.watch(f"refine {name}") as progress:
                found[name] = clean(place, name, settings, progress)
        show_stages(out, "refine", found, max_faults)
        out.result["asks"] = sum(outcome.asks for outcome in found.values())
        if out.result["asks"]:
            out.shown.append(f"  {out.result['asks']} answers were sent back: run caption, then refine again")


def merge(
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="order, caps.SOURCE, weights.SOURCE, captions or splits.NAME; the value as YAML.",
        ),
    ] = None,
    max_faults: options.MaxFaults = 0.05,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Put all sources into one table: groundingcap."""
    with screen("merge", workspace, as_json) as out:
        from pipelines.merge import MergeSettings
        from pipelines.merge import merge as join
        from pipelines.recipe import set_values
        from pipelines.settings import build

        settings = build(MergeSettings, set_values({}, set or []), "merge")
        with out.watch("merge") as progress:
            outcome = join(_place(workspace), settings, progress)
        show_stage(out, "merge", outcome, max_faults)


def export(
    format: Annotated[
        str, typer.Option("--format", "-f", help="What is written.", autocompletion=options.complete_export)
    ],
    to: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder or URL.", show_default="exports/FORMAT in the workspace")
    ] = None,
    source: options.Ingested = None,
    form: Annotated[str | None, typer.Option(help="Of odvg: vg, or od for detection lines with a label map.")] = None,
    split: Annotated[str | None, typer.Option(help="Only the records of this split.", show_default="all")] = None,
    images: Annotated[
        Literal["copy", "link", "none"] | None,
        typer.Option(help="Photos beside what is written.", show_default="as the format has it"),
    ] = None,
    shard_records: Annotated[
        int | None, typer.Option(min=1, help="At most so many records a file.", show_default="one file")
    ] = None,
    compression: Annotated[
        Literal["gzip", "zstd"] | None, typer.Option(help="Of json lines.", show_default="none")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A field of the exporter; the value as YAML."),
    ] = None,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Write the merged records, or those of one source, in a format that others read."""
    with screen("export", workspace, as_json) as out:
        from dataclasses import asdict

        from llmdet.files import absolute
        from pipelines.export import export as write
        from pipelines.export import exporter_of
        from pipelines.recipe import set_values

        place = _place(workspace)
        given = {
            "form": form,
            "split": split,
            "images": images,
            "shard_records": shard_records,
            "compression": compression,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        if source is None:
            warn_outdated(out, workspace)
        exporter = exporter_of(format, set_values(chosen, set or []))
        with out.watch(f"export {format}"):
            outcome = write(place, exporter, absolute(to) if to else place.path("exports", format), source)
        out.result = asdict(outcome)
        out.shown.append(f"{outcome.records} records with {outcome.boxes} boxes in {outcome.out}")
        out.shown += [f"  {name}" for name in outcome.files[:8]]
        if len(outcome.files) > 8:
            out.shown.append(f"  and {len(outcome.files) - 8} more files")
        if split and not outcome.records:
            out.note(f"note: no record has the split {split!r}")
        if outcome.lost:
            out.note(f"note: {outcome.cannot_hold.rstrip('.')}. Left out here: {counted(outcome.lost)}")


def report(
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
    gallery: Annotated[int, typer.Option(min=0, help="Records that are shown with their photo.")] = 24,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Write one HTML page about everything in the workspace: counts, drops, captions, photos, training."""
    with screen("report", workspace, as_json) as out:
        from dataclasses import asdict

        from pipelines.report import ReportSettings
        from pipelines.report import report as write

        with out.watch("report"):
            outcome = write(_place(workspace), ReportSettings(title=title, gallery=gallery))
        out.result = asdict(outcome)
        out.shown.append(f"{outcome.records} records: open {outcome.report}")


# --- shared --------------------------------------------------------------------------------------------------------


def _place(workspace: str) -> Workspace:
    from llmdet.workspace import Workspace

    return Workspace.at(workspace)


def _ingested(workspace: Workspace) -> list[str]:
    from llmdet.errors import MissingError

    names = workspace.sources()
    if not names:
        raise MissingError(f"no records in {workspace.url}; run: llmdet-data ingest")
    return names


def _set(values: Values, overrides: list[str] | None) -> Values:
    from pipelines.recipe import set_values

    return set_values(values, overrides or [])


def _reader(source: str, recipe: str | None, data_root: str | None, **given: str | None) -> Values:
    """The fields of a reader: those that a recipe has for the source, then the options; without either its layout."""
    from llmdet.errors import SettingError
    from pipelines.readers import rooted
    from pipelines.recipe import load

    options = {key: value for key, value in given.items() if value is not None}
    if not recipe:
        return options
    chosen = load(recipe, check=False)
    if source not in chosen.sources:
        raise SettingError(f"{recipe} has no source {source!r}; it has: {', '.join(chosen.sources)}")
    values = rooted(chosen.sources[source], data_root or chosen.data_root)
    if "annotations" in options:
        values.pop("finished", None)
    return {**values, **options}


def _leaks(recipe: str | None, data_root: str | None) -> LeakSettings | None:
    """A recipe's lists of evaluation photos; without one nothing is checked, and the manifest says so."""
    from pipelines.recipe import load

    if not recipe:
        return None
    chosen = load(recipe, check=False)
    return chosen.model_copy(update={"data_root": data_root or chosen.data_root}).leak_settings()


def _ingest(
    out: Screen, source: str, values: Values, data_root: str | None, settings: dict[str, Any], max_faults: float
) -> None:
    from pipelines.ingest import IngestSettings
    from pipelines.ingest import ingest as read
    from pipelines.readers import source_of
    from pipelines.settings import build

    reader = source_of(source, values, data_root or "")
    chosen = build(IngestSettings, {key: value for key, value in settings.items() if value is not None}, "ingest")
    with out.watch(f"ingest {source}") as progress:
        outcome = read(_place(out.workspace or ""), reader, chosen, progress)
    show_stage(out, f"ingest {source}", outcome, max_faults)


def _engine(name: str | None, model: str | None, base_url: str | None, overrides: list[str] | None) -> Engine:
    """The engine that was named; without a name vLLM where there is a GPU for it."""
    from importlib.util import find_spec

    from llmdet.errors import ExtraError, SettingError
    from pipelines.doctor import gpus
    from pipelines.engines import ENGINES
    from pipelines.recipe import engine_of

    if name is None:
        if "vllm" not in ENGINES or not gpus():
            raise SettingError(f"no GPU here and no --engine said; there are: {', '.join(sorted(ENGINES))}")
        name = "vllm"
        if not find_spec("vllm") and not os.environ.get("RAY_ADDRESS"):  # the driver of a cluster need not have it
            raise ExtraError(
                f"{ExtraError.of('vllm', 'vllm')}; or say another --engine: {', '.join(sorted(set(ENGINES) - {name}))}"
            )
    given = {key: value for key, value in (("model", model), ("base_url", base_url)) if value is not None}
    return engine_of(name, _set(given, overrides))


def _show_answers(out: Screen, outcome: CaptionOutcome) -> None:
    out.shown.append(f"  {outcome.answered} of {outcome.requests} requests answered")
    if outcome.cost:
        out.shown.append(f"  cost {outcome.cost:.2f}")
    names = ("requests", "answered", "asked", "failed", "prompt_tokens", "cached_tokens", "answer_tokens", "cost")
    out.result |= {name: getattr(outcome, name) for name in (*names, "ledgers")}


def _plan(
    out: Screen,
    source: str,
    engine: Engine,
    settings: CaptionSettings,
    values: Values,
    data_root: str | None,
    limit: int | None,
) -> None:
    """What caption would ask, of the workspace's records or, before ingest, of the annotation files."""
    from itertools import islice

    from cli.planned import show_plan
    from llmdet.record import Record
    from pipelines.estimate import plan_caption
    from pipelines.readers import source_of

    place = _place(out.workspace or "")
    ingested = place.best_records(source).manifest()
    items = [] if ingested else source_of(source, values, data_root or "").read()
    records = islice((item for item in items if isinstance(item, Record)), limit)
    with out.watch("plan"):
        found = plan_caption(place, source, engine, settings, records)
    show_plan(out, found)


def _prices(values: list[str] | None) -> Prices:
    from pipelines.prices import Prices
    from pipelines.recipe import set_values
    from pipelines.settings import build

    return build(Prices, set_values({}, values or []), "price")


def _shard(text: str) -> tuple[int, int]:
    from llmdet.errors import SettingError

    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise SettingError(f"--shard must be I/N with I from 0 to N - 1, such as 0/4; got {text!r}")
    return int(number), int(count)
