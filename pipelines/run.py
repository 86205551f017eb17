"""run: a recipe from the first annotation to the evaluated detector, one stage after the other."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from llmdet import __version__, files
from llmdet.catalogue import photo_ids_of
from llmdet.errors import MissingError
from llmdet.leaks import Leaks
from llmdet.photo_lists import read_lists
from llmdet.record import Record
from llmdet.sources.source import Item, Source
from llmdet.workspace import Manifest, Workspace
from pipelines.caption import CaptionOutcome, caption
from pipelines.cluster import cluster
from pipelines.engines import ENGINES
from pipelines.engines.engine import Engine
from pipelines.estimate import EXAMPLES, DryRun, Estimator, Example, spend, standing_in
from pipelines.evaluate import UNTRAINED_SUFFIX, EvaluateOutcome, EvaluationSet, Run, evaluate_many
from pipelines.export import export
from pipelines.ground import ground
from pipelines.ingest import ingest, ingested
from pipelines.live import TOKENS
from pipelines.merge import merge
from pipelines.parts import Outcome, Progress
from pipelines.recipe import CaptionSection, Recipe, engine_of
from pipelines.refine import refine
from pipelines.report import ReportSettings, report
from pipelines.train import TrainOutcome, train

# Called with the name of a stage; gives what shows its progress.
Watch = Callable[[str], AbstractContextManager[Progress | None]]


@contextlib.contextmanager
def unwatched(stage: str) -> Iterator[Progress | None]:
    """Shows nothing."""
    yield None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run made; `stages` are the outcomes by "stage source"."""

    workspace: str
    records: int
    rejects: dict[str, int]
    faults: dict[str, int]
    stages: dict[str, Any]
    exports: dict[str, str]
    metrics: dict[str, dict[str, float]]
    report: str
    checkpoint: str = ""
    seconds: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)  # prompt, cached and answer tokens of this run
    cost: float = 0.0  # of this run's captions, in the currency of caption.price
    too_many_faults: str = ""  # one line when faults exceed max_faults


@dataclass
class _Tally:
    """Outcomes as they come."""

    stages: dict[str, Any] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    over: str = ""

    def add(self, name: str, outcome: Outcome, max_faults: float) -> None:
        self.stages[name] = asdict(outcome)
        for mine, more in ((self.rejects, outcome.rejects), (self.faults, outcome.faults)):
            for reason, count in more.items():
                mine[reason] = mine.get(reason, 0) + count
        self.over = self.over or too_many(name, outcome, max_faults)

    def sum(self, name: str) -> Any:
        """Of all stages that have such a figure."""
        return sum(stage.get(name, 0) for stage in self.stages.values())


def too_many(name: str, outcome: Outcome, max_faults: float) -> str:
    """One line where a stage's faults exceed their share, else nothing."""
    faults = sum(outcome.faults.values())
    total = getattr(outcome, "requests", 0) or outcome.records + faults
    if not faults or faults <= max_faults * total:
        return ""
    worst = max(outcome.faults, key=lambda reason: outcome.faults[reason])
    return (
        f"{name}: {faults} of {total} failed ({worst}: {outcome.faults[worst]}), more than --max-faults {max_faults:g}"
    )


def run(recipe: Recipe, *, limit: int | None = None, watch: Watch = unwatched) -> RunOutcome:
    """Run every section of a recipe that is there; stages that are done with the same inputs are passed over.

    Raises the errors of the stages. A run record is written to `runs/`.
    """
    workspace = Workspace.at(recipe.workspace)
    started = time.monotonic()
    tally = _Tally()
    sets_of(recipe)  # a set that is missing fails now and not after training
    if recipe.caption:
        recipe.caption.build_engine().identity()  # and a model before hours of ingest
    with cluster(workspace.url):
        run_data(recipe, workspace, tally, limit, watch)
        exports = _export(recipe, workspace, watch)
        trained = _train(recipe, workspace, watch)
        evaluated = _evaluate(recipe, trained, watch, tally)
    with watch("report"):
        page = report(
            workspace, ReportSettings(title=recipe.report.title or recipe.name, gallery=recipe.report.gallery)
        )
    merged = workspace.groundingcap().require("run merge")
    outcome = RunOutcome(
        workspace=workspace.url,
        records=merged.rows,
        rejects=tally.rejects,
        faults=tally.faults,
        stages=tally.stages,
        exports=exports,
        metrics=evaluated,
        report=page.report,
        checkpoint=trained.folder if trained else "",
        seconds=round(time.monotonic() - started, 3),
        tokens={name: tally.sum(name) for name in TOKENS},
        cost=round(tally.sum("cost"), 6),
        too_many_faults=tally.over,
    )
    _write_run(workspace, recipe, outcome)
    return outcome


def run_data(recipe: Recipe, workspace: Workspace, tally: _Tally, limit: int | None, watch: Watch) -> None:
    """The data half: ingest, ground, caption and refine of every source, then merge."""
    for source in recipe.build_sources():
        name = source.name
        with watch(f"ingest {name}") as progress:
            outcome: Outcome = ingest(workspace, source, recipe.ingest_settings(limit), progress)
        tally.add(f"ingest {name}", outcome, recipe.max_faults)
        said = _ground(recipe, workspace, name, tally, watch)
        for _ in range(recipe.refine.max_attempts):
            if recipe.caption:
                with watch(f"caption {name}") as progress:
                    engine, settings = recipe.caption.build_engine(), recipe.caption.settings()
                    said = after(said, caption(workspace, name, engine, settings, progress))
            with watch(f"refine {name}") as progress:
                refined = refine(workspace, name, recipe.refine.settings(), progress)
            if not refined.asks:
                break
        if said:
            tally.add(f"caption {name}", said, recipe.max_faults)
        tally.add(f"refine {name}", refined, recipe.max_faults)
    with watch("merge") as progress:
        tally.add("merge", merge(workspace, recipe.merge_settings(), progress), recipe.max_faults)


def _ground(recipe: Recipe, workspace: Workspace, name: str, tally: _Tally, watch: Watch) -> CaptionOutcome | None:
    """Pseudo boxes of a source that is to get some; what was asked about its images before, where they need that."""
    section = recipe.ground
    if section is None or name not in section.sources:
        return None
    said, settings = None, section.build_settings()
    if settings.caption == "lmm" and recipe.caption:
        with watch(f"caption {name}") as progress:
            first = replace(recipe.caption.settings(), task="image")
            said = caption(workspace, name, recipe.caption.build_engine(), first, progress)
    with watch(f"ground {name}") as progress:
        checkpoint = section.checkpoint
        outcome = ground(workspace, name, checkpoint, settings, gpu=section.gpu, progress=progress)
    tally.add(f"ground {name}", outcome, recipe.max_faults)
    return said


def after(before: CaptionOutcome | None, last: CaptionOutcome) -> CaptionOutcome:
    """The last of several rounds, with what all of them asked and spent."""
    if before is None:
        return last
    spent = ("prompt_tokens", "cached_tokens", "answer_tokens", "asked", "cost", "seconds")
    sums: dict[str, Any] = {name: getattr(before, name) + getattr(last, name) for name in spent}
    return replace(last, skipped=before.skipped and last.skipped, **sums)


def _export(recipe: Recipe, workspace: Workspace, watch: Watch) -> dict[str, str]:
    """Folder of each export, by its name."""
    folders = {}
    for name, exporter in recipe.exporters():
        folders[name] = workspace.path("exports", name)
        with watch(f"export {name}"):
            export(workspace, exporter, folders[name])
    return folders


def _train(recipe: Recipe, workspace: Workspace, watch: Watch) -> TrainOutcome | None:
    if recipe.train is None:
        return None
    with watch("train") as progress:
        return train(workspace, recipe.train, progress=progress, sets=sets_of(recipe))


def _evaluate(recipe: Recipe, trained: TrainOutcome | None, watch: Watch, tally: _Tally) -> dict[str, dict[str, float]]:
    """Figures after training, and before it under `<set>-untrained`."""
    sets = sets_of(recipe)
    if trained is None or not sets:
        return {}
    folder = files.join(trained.folder, "evaluations")
    with watch("evaluate") as progress:
        outcomes = evaluate_many(
            [Run(one, trained.untrained, files.join(folder, f"{one.title}{UNTRAINED_SUFFIX}")) for one in sets]
            + [Run(one, trained.folder, files.join(folder, one.title)) for one in sets],
            gpu=bool(recipe.train and recipe.train.gpu),
            progress=progress,
        )
    for outcome in outcomes:
        tally.over = tally.over or outcome.too_many_missing(recipe.max_faults)
    before, after = outcomes[: len(sets)], outcomes[len(sets) :]
    return _metrics(before, UNTRAINED_SUFFIX) | _metrics(after, "")


def sets_of(recipe: Recipe) -> list[EvaluationSet]:
    """The evaluation sets of a recipe. Raises MissingError for one that is not there."""
    sets = [section.build_set(recipe.data_root) for section in recipe.evaluate]
    for one in sets:
        for address in (one.annotations, one.images):
            if not files.exists(address):
                raise MissingError(f"evaluate names {address}, which is not there; give --data-root")
    return sets


def _metrics(outcomes: list[EvaluateOutcome], suffix: str) -> dict[str, dict[str, float]]:
    return {f"{outcome.name}{suffix}": outcome.metrics for outcome in outcomes}


def _write_run(workspace: Workspace, recipe: Recipe, outcome: RunOutcome) -> None:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    record = {"recipe": recipe.model_dump(mode="json"), "version": __version__, "outcome": asdict(outcome)}
    files.write_json(workspace.path("runs", f"{now}-{uuid.uuid4().hex[:6]}.json"), record)


def plan(recipe: Recipe, limit: int | None = None) -> dict[str, dict[str, int]]:
    """The counts of `dry_run`, per source."""
    return dry_run(recipe, limit).plan


def dry_run(recipe: Recipe, limit: int | None = None) -> DryRun:
    """What a run would ask, per source, without asking: records, rejects, leaks, boxes, requests and tokens by task.

    Reads the annotation files and opens no photo: records that show an evaluation photo are known by their ids alone.
    A source that was ingested counts as it is in the workspace, and what its ledger answers is taken off. A question
    about an image counts once, whatever the number of its texts. How tokens are guessed: `pipelines.estimate`.
    """
    workspace, leaks = Workspace.at(recipe.workspace), read_lists(recipe.leak_settings())
    section = recipe.caption or CaptionSection()
    engine, note = planning_engine(section)
    counts: dict[str, dict[str, int]] = {}
    examples: list[Example] = []
    for source in recipe.build_sources():
        estimator = Estimator(workspace, source.name, engine, section.settings()) if recipe.caption else None
        made = ingested(workspace, source, recipe.ingest_settings(limit))
        counts[source.name] = _planned(workspace, source, leaks, estimator, made, limit)
        examples += estimator.found.examples if estimator else []
    tokens = [sum(one.get(name, 0) for one in counts.values()) for name in ("prompt tokens", "answer tokens")]
    prices = section.settings().price
    return DryRun(counts, examples[:EXAMPLES], spend(workspace, engine, prices, tokens[0], tokens[1]), note)


def planning_engine(section: CaptionSection) -> tuple[Engine, str]:
    """The recipe's engine, or what can stand in for it, with a line that says so."""
    if section.engine not in ENGINES:
        return engine_of("template"), (
            f"there is no engine {section.engine} yet: counted by the questions of the template engine"
        )
    return standing_in(section.build_engine())


def _planned(
    workspace: Workspace,
    source: Source,
    leaks: Leaks,
    estimator: Estimator | None,
    made: Manifest | None,
    limit: int | None,
) -> dict[str, int]:
    counts = dict.fromkeys(("records", "rejects", "leaks", "boxes"), 0)
    items: Iterable[Item] = source.read()
    if made:
        counts["rejects"] = sum(made.counts["rejects"].values())
        items = workspace.best_records(source.name).records()
    space = photo_ids_of(source)
    for item in items:
        if not isinstance(item, Record) or (not made and leaks.by_id(item, space) and leaks.settings.action == "drop"):
            counts["leaks" if isinstance(item, Record) else "rejects"] += 1
            continue
        counts["records"] += 1
        counts["boxes"] += sum(len(region.boxes) for region in item.regions)
        if estimator:
            estimator.add(item)
        if limit and counts["records"] >= limit:
            break
    return counts | (dict(estimator.found.counts) if estimator else {})
