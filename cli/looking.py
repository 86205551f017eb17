"""status, doctor, sources: what there is, and whether it is in order."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.screen import Screen, counted, screen

if TYPE_CHECKING:
    from rich.table import Table

    from llmdet.workspace import Workspace
    from pipelines.live import Live
    from pipelines.status import StatusOutcome

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def status(
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the runs of caption again every two seconds, until none is at work.")
    ] = False,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """What a workspace holds, what is running in it, and what was left out."""
    with screen("status", workspace, as_json) as out:
        from llmdet.workspace import Workspace
        from pipelines.status import status as look

        if watch:
            _watch(Workspace.at(workspace))
        outcome = look(Workspace.at(workspace))
        out.result = dataclasses.asdict(outcome)
        out.shown += [outcome.workspace, *_status(outcome)]


def _watch(workspace: Workspace) -> None:
    """The runs of caption on standard error while any is at work."""
    import time

    from rich.console import Console
    from rich.live import Live as Display

    from pipelines.live import WRITE_EVERY_S, live_runs

    with Display(console=Console(stderr=True)) as display:
        runs = live_runs(workspace)
        while any(run.state == "running" for run in runs):
            display.update(_live(runs), refresh=True)
            time.sleep(WRITE_EVERY_S)
            runs = live_runs(workspace)


def doctor(
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file of the workspace against its checksum.")
    ] = False,
    remove_damaged: Annotated[
        bool,
        typer.Option("--remove-damaged", help="With --verify: take such files out of the way; their stages redo them."),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option("--source", "-s", help="Is this data set there?", autocompletion=options.complete_source),
    ] = None,
    data_root: options.DataRoot = None,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Look at versions, extras, GPU, Ray, disk and recipes; exit 1 where something is broken.

    With --source: what of the data set lies below --data-root, and what is missing.
    """
    with screen("doctor", workspace, as_json) as out:
        from rich.table import Table
        from rich.text import Text

        from llmdet.workspace import Workspace
        from pipelines.doctor import doctor as look

        found = look(Workspace.at(workspace), verify or remove_damaged, source, data_root or "", remove_damaged)
        levels = [one.level for one in found]
        counts = {level: levels.count(level) for level in ("ok", "warn", "fail")}
        out.result = {"findings": found, **counts}
        table = Table.grid(padding=(0, 2))
        for one in found:
            told = Text(one.text) if not one.hint else Text.assemble(one.text, "\n", (one.hint, "dim"))
            table.add_row(Text(one.level, style=_COLOURS[one.level]), one.subject, told)
        out.shown += [table, ", ".join(f"{count} {level}" for level, count in counts.items())]
    if counts["fail"]:
        raise typer.Exit(1)


def sources(
    name: Annotated[
        str | None, typer.Argument(help="Only this one, in full.", autocompletion=options.complete_source)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """The data sets that are read: layout, licence, size as published and address; one of them with its fields."""
    with screen("sources", None, as_json) as out:
        import sys

        from llmdet.catalogue import rows
        from llmdet.sources import SOURCES

        # A reader's module opens with one raw row of the format, its address, licence and counts.
        known = {
            one: Kind(sys.modules[kind.__module__].__doc__ or "", dataclasses.fields(kind))  # type: ignore[arg-type]
            for one, kind in SOURCES.items()
        }
        facts = {row.pop("source"): row for row in rows()}
        _catalogue(out, "source", known, name, facts)


# --- tables --------------------------------------------------------------------------------------------------------


def _status(outcome: StatusOutcome) -> list[Table]:
    from rich.table import Table

    tables = Table("stage", "source", "state", "rows", "left out", "seconds", title="tables", title_justify="left")
    for table in outcome.tables:
        if table.table.startswith("asks/") and not table.rows:
            continue  # nothing is asked again: nothing to see
        seconds = "" if table.seconds is None else f"{table.seconds:.1f}"
        tables.add_row(table.table, table.source, _state(table), str(table.rows), counted(table.rejects), seconds)
    shown = [tables]
    ledgers = Table(
        "source", "ledger", "answered", "failed", "tokens in", "cached", "out", title="answers", title_justify="left"
    )
    for one in outcome.ledgers:
        mark = one.ledger if one.newest else f"{one.ledger} (older)"
        numbers = (one.answered, one.failed, one.prompt_tokens, one.cached_tokens, one.answer_tokens)
        ledgers.add_row(one.source, mark, *map(str, numbers))
    live = _live(outcome.live)
    leases = Table("place", "shard", "held by", "state", title="leases", title_justify="left")
    for lease in outcome.leases:
        held = f"{lease.owner} on {lease.host}, pid {lease.pid}"
        leases.add_row(lease.place, lease.shard, held, "at work" if lease.alive else "gone: free to take")
    detectors = Table("detector", "state", "figures", title="detectors", title_justify="left")
    for detector in outcome.detectors:
        last = detector.checkpoints[-1] if detector.checkpoints else "no checkpoint"
        figures = ", ".join(f"{name} {value:.3f}" for name, value in detector.metrics.items())
        detectors.add_row(detector.name, "finished" if detector.finished else last, figures)
    runs = Table("run", "recipe", "records", "seconds", title="last runs", title_justify="left")
    for run in outcome.runs:
        runs.add_row(run.run, run.recipe, str(run.records), f"{run.seconds:.1f}")
    return shown + [table for table in (live, ledgers, leases, detectors, runs) if table.row_count]


def _live(runs: list[Live]) -> Table:
    """The last run of caption of each source: how far it is, and its figures."""
    from rich.table import Table

    table = Table("caption of", "state", "chunks", "left", "figures", title="runs of caption", title_justify="left")
    for run in runs:
        what = " ".join([run.source, run.task, *([run.shard] if run.shard != "0/1" else [])])
        left = "" if run.left_s is None or run.state != "running" else f"{run.left_s / 60:.0f} min"
        by = " ".join([run.engine, *([run.model] if run.model else [])])
        table.add_row(f"{what}, by {by}", run.state, f"{run.chunks_done}/{run.chunks}", left, run.line())
    return table


def _state(table: Any) -> str:
    """What a manifest and a list of files say about a table."""
    if table.finished:
        return f"finished, {table.pending} parts of a new one" if table.pending else "finished"
    return f"not finished: {table.pending} parts so far"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A frozen dataclass that a recipe can name: what is said of it, and its fields."""

    about: str
    fields: tuple[dataclasses.Field[Any], ...]

    def to_dict(self) -> dict[str, Any]:
        import inspect

        about = inspect.cleandoc(self.about)
        return {"summary": about.split("\n")[0], "about": about, "fields": {f.name: _field(f) for f in self.fields}}


def _field(field: dataclasses.Field[Any]) -> str:
    """Type and default of a field; one without a default must be given."""
    if field.default is not dataclasses.MISSING:
        return f"{field.type}, {field.default!r}"
    made = field.default_factory
    return f"{field.type}, {made()!r}" if made is not dataclasses.MISSING else f"{field.type}, must be given"


def _catalogue(
    out: Screen, noun: str, kinds: dict[str, Kind], name: str | None, more: dict[str, dict[str, Any]] | None = None
) -> None:
    """All kinds with a line each, or one with its fields and the text about it; `more` facts by name."""
    from rich.table import Table
    from rich.text import Text

    from llmdet.errors import SettingError

    if name is not None and name not in kinds:
        raise SettingError(f"no {noun} {name!r}; there are: {', '.join(sorted(kinds))}")
    facts = {one: kinds[one].to_dict() | (more or {}).get(one, {}) for one in ([name] if name else sorted(kinds))}
    out.result = {f"{noun}s": [{"name": one, **fact} for one, fact in facts.items()]}
    if name:
        table = Table("field", "type and default")
        for field, value in facts[name]["fields"].items():
            table.add_row(field, Text(value))
        usual = [f"usual place: {place}" for place in facts[name].get("layout", [])]
        out.shown += [Text(facts[name]["about"]), *map(Text, usual), table]
    else:
        table = Table(noun, "what it is", *(["usual place below the data root"] if more else []), show_lines=bool(more))
        for one, fact in facts.items():
            table.add_row(one, Text("\n".join(_told(fact))), *(["\n".join(fact["layout"])] if more else []))
        out.shown.append(table)


def _told(fact: dict[str, Any]) -> list[str]:
    """What the list says of one kind: its summary, or the data set with its size, licence and address."""
    if "title" not in fact:
        return [fact["summary"]]
    counts = ", ".join(f"{count:,} {what}" for what, count in fact["counts"].items())
    return [line for line in (fact["title"], counts, fact["licence"], fact["address"]) if line]
