"""run: a recipe from the first annotation to the evaluated detector, one stage after the other."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from llmdet import __version__, files
from llmdet.catalogue import photo_ids_of
from llmdet.errors import MissingError
from llmdet.leaks import Leaks
from llmdet.photo_lists import read_lists
from llmdet.record import Record
from llmdet.sources.source import Source
from llmdet.tokens import estimate_bert_tokens
from llmdet.workspace import Workspace
from pipelines.caption import CaptionSettings, caption
from pipelines.cluster import cluster
from pipelines.engines import ENGINES
from pipelines.engines.engine import Engine
from pipelines.evaluate import UNTRAINED_SUFFIX, CocoSet, EvaluateOutcome, evaluate_many
from pipelines.export import export
from pipelines.ingest import ingest
from pipelines.merge import merge
from pipelines.parts import Outcome, Progress
from pipelines.readers import below
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
    _sets(recipe)  # a set that is missing fails now and not after training
    with cluster():
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
        too_many_faults=tally.over,
    )
    _write_run(workspace, recipe, outcome)
    return outcome


def run_data(recipe: Recipe, workspace: Workspace, tally: _Tally, limit: int | None, watch: Watch) -> None:
    """The data half: ingest, caption and refine of every source, then merge."""
    for source in recipe.build_sources():
        name = source.name
        with watch(f"ingest {name}") as progress:
            outcome: Outcome = ingest(workspace, source, recipe.ingest_settings(limit), progress)
        tally.add(f"ingest {name}", outcome, recipe.max_faults)
        for _ in range(recipe.refine.max_attempts):
            if recipe.caption:
                with watch(f"caption {name}") as progress:
                    outcome = caption(
                        workspace, name, recipe.caption.build_engine(), recipe.caption.settings(), progress
                    )
                tally.add(f"caption {name}", outcome, recipe.max_faults)
            with watch(f"refine {name}") as progress:
                refined = refine(workspace, name, recipe.refine.settings(), progress)
            if not refined.asks:
                break
        tally.add(f"refine {name}", refined, recipe.max_faults)
    with watch("merge") as progress:
        tally.add("merge", merge(workspace, recipe.merge_settings(), progress), recipe.max_faults)


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
        return train(workspace, recipe.train, progress=progress)


def _evaluate(recipe: Recipe, trained: TrainOutcome | None, watch: Watch, tally: _Tally) -> dict[str, dict[str, float]]:
    """Figures after training, and before it under `<set>-untrained`."""
    sets = _sets(recipe)
    if trained is None or not sets:
        return {}
    folder = files.join(trained.folder, "evaluations")
    with watch("evaluate") as progress:
        outcomes = evaluate_many(
            [(one, trained.untrained, files.join(folder, f"{one.name}{UNTRAINED_SUFFIX}")) for one in sets]
            + [(one, trained.folder, files.join(folder, one.name)) for one in sets],
            gpu=bool(recipe.train and recipe.train.gpu),
            progress=progress,
        )
    for outcome in outcomes:
        tally.over = tally.over or outcome.too_many_missing(recipe.max_faults)
    before, after = outcomes[: len(sets)], outcomes[len(sets) :]
    return _metrics(before, UNTRAINED_SUFFIX) | _metrics(after, "")


def _sets(recipe: Recipe) -> list[CocoSet]:
    """The evaluation sets of a recipe. Raises MissingError for one that is not there."""
    sets = []
    for section in recipe.evaluate:
        annotations, images = below(recipe.data_root, section.annotations), below(recipe.data_root, section.images)
        for address in (annotations, images):
            if not files.exists(address):
                raise MissingError(f"evaluate names {address}, which is not there; give --data-root")
        name = section.name or section.task
        sets.append(
            CocoSet(
                name=name,
                annotations=annotations,
                images=images,
                top_k=section.top_k,
                names_per_prompt=section.names_per_prompt,
            )
        )
    return sets


def _metrics(outcomes: list[EvaluateOutcome], suffix: str) -> dict[str, dict[str, float]]:
    return {f"{outcome.name}{suffix}": outcome.metrics for outcome in outcomes}


def _write_run(workspace: Workspace, recipe: Recipe, outcome: RunOutcome) -> None:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    record = {"recipe": recipe.model_dump(mode="json"), "version": __version__, "outcome": asdict(outcome)}
    files.write_json(workspace.path("runs", f"{now}-{uuid.uuid4().hex[:6]}.json"), record)


def plan(recipe: Recipe, limit: int | None = None) -> dict[str, dict[str, int]]:
    """What a run would ask, per source, without asking: records, rejects, leaks, boxes, requests and tokens by task.

    Reads the annotation files, opens no photo: records that show an evaluation photo are known by their ids alone. A
    question about an image counts once, whatever the number of its texts. Tokens are those of the questions' words,
    estimated; what a picture adds is up to the model. The template's questions stand for an engine that is not there.
    """
    leaks = read_lists(recipe.leak_settings())
    return {source.name: _planned(recipe, source, leaks, limit) for source in recipe.build_sources()}


def planning_engine(section: CaptionSection) -> Engine:
    """The recipe's engine, or the template where this version has no such engine: it asks about the same things."""
    return section.build_engine() if section.engine in ENGINES else engine_of("template")


def _planned(recipe: Recipe, source: Source, leaks: Leaks, limit: int | None) -> dict[str, int]:
    prompts = planning_engine(recipe.caption).prompts() if recipe.caption else {}
    settings = recipe.caption.settings() if recipe.caption else CaptionSettings()
    tasks = settings.tasks if recipe.caption else ()
    counts = dict.fromkeys(("records", "rejects", "leaks", "boxes"), 0)
    counts |= {f"{task} {what}": 0 for task in tasks for what in ("requests", "tokens")}
    seen: set[int] = set()  # hashes: a million questions would not fit
    space = photo_ids_of(source)
    for item in source.read():
        if not isinstance(item, Record) or (leaks.by_id(item, space) and leaks.settings.action == "drop"):
            counts["leaks" if isinstance(item, Record) else "rejects"] += 1
            continue
        counts["records"] += 1
        counts["boxes"] += sum(len(region.boxes) for region in item.regions)
        for task in tasks:
            asks = prompts[task].render(item) if settings.asks(task, item) else []
            fresh = {hash((item.image, task, ask.text, ask.schema)): ask.text for ask in asks}
            fresh = {key: text for key, text in fresh.items() if key not in seen}
            seen.update(fresh)
            counts[f"{task} requests"] += len(fresh)
            counts[f"{task} tokens"] += sum(map(estimate_bert_tokens, fresh.values()))
        if limit and counts["records"] >= limit:
            break
    return counts
