"""status, doctor, sources, prompts: what there is, and whether it is in order."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.screen import Screen, screen

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.status import StatusOutcome

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def status(workspace: options.Workspace = "workspace", as_json: options.AsJson = False) -> None:
    """What a workspace holds, what is running in it, and what was left out."""
    with screen("status", workspace, as_json) as out:
        from llmdet.workspace import Workspace
        from pipelines.status import status as look

        outcome = look(Workspace.at(workspace))
        out.result = dataclasses.asdict(outcome)
        out.shown += [outcome.workspace, *_status(outcome)]


def doctor(
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file of the workspace against its hash.")
    ] = False,
    workspace: options.Workspace = "workspace",
    as_json: options.AsJson = False,
) -> None:
    """Look at versions, extras, GPU, Ray, disk and recipes; exit 1 where something is broken."""
    with screen("doctor", workspace, as_json) as out:
        from rich.table import Table
        from rich.text import Text

        from llmdet.workspace import Workspace
        from pipelines.doctor import doctor as look

        found = look(Workspace.at(workspace), verify)
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
    """The formats that are read, each with its fields."""
    with screen("sources", None, as_json) as out:
        from llmdet.sources import SOURCES

        _catalogue(out, "sources", "source", SOURCES, name)


def prompts(
    name: Annotated[
        str | None, typer.Argument(help="Only this one, in full.", autocompletion=options.complete_prompt)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """The prompts by id, each with its version."""
    with screen("prompts", None, as_json) as out:
        from llmdet.prompts import PROMPTS

        _catalogue(out, "prompts", "prompt", PROMPTS, name)


# --- tables --------------------------------------------------------------------------------------------------------


def _status(outcome: StatusOutcome) -> list[Table]:
    from rich.table import Table

    tables = Table("stage", "source", "state", "rows", "left out", "seconds", title="tables", title_justify="left")
    for table in outcome.tables:
        if table.table.startswith("asks/") and not table.rows:
            continue  # nothing is asked again: nothing to see
        seconds = "" if table.seconds is None else f"{table.seconds:.1f}"
        tables.add_row(table.table, table.source, _state(table), str(table.rows), _counts(table.rejects), seconds)
    shown = [tables]
    ledgers = Table(
        "source", "ledger", "answered", "failed", "tokens in", "cached", "out", title="answers", title_justify="left"
    )
    for one in outcome.ledgers:
        mark = one.ledger if one.newest else f"{one.ledger} (older)"
        numbers = (one.answered, one.failed, one.prompt_tokens, one.cached_tokens, one.answer_tokens)
        ledgers.add_row(one.source, mark, *map(str, numbers))
    leases = Table("source", "ledger", "shard", "held by", "state", title="leases", title_justify="left")
    for lease in outcome.leases:
        held = f"{lease.owner} on {lease.host}, pid {lease.pid}"
        leases.add_row(
            lease.source, lease.ledger, lease.shard, held, "at work" if lease.alive else "gone: free to take"
        )
    detectors = Table("detector", "state", "figures", title="detectors", title_justify="left")
    for detector in outcome.detectors:
        last = detector.checkpoints[-1] if detector.checkpoints else "no checkpoint"
        figures = ", ".join(f"{name} {value:.3f}" for name, value in detector.metrics.items())
        detectors.add_row(detector.name, "finished" if detector.finished else last, figures)
    runs = Table("run", "recipe", "records", "seconds", title="last runs", title_justify="left")
    for run in outcome.runs:
        runs.add_row(run.run, run.recipe, str(run.records), f"{run.seconds:.1f}")
    return shown + [table for table in (ledgers, leases, detectors, runs) if table.row_count]


def _state(table: Any) -> str:
    """What a manifest and a list of files say about a table."""
    if table.finished:
        return f"finished, {table.pending} parts of a new one" if table.pending else "finished"
    return f"not finished: {table.pending} parts so far"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def _catalogue(out: Screen, key: str, noun: str, kinds: dict[str, Any], name: str | None) -> None:
    """All dataclasses of a dict with a line each, or one with its fields and the text about it."""
    from rich.table import Table
    from rich.text import Text

    from llmdet.errors import SettingError

    if name is not None and name not in kinds:
        raise SettingError(f"no {noun} {name!r}; there are: {', '.join(sorted(kinds))}")
    shown = {name: kinds[name]} if name else dict(sorted(kinds.items()))
    out.result = {key: [{"name": one, **_described(kind)} for one, kind in shown.items()]}
    table = Table(noun, "what it is" if name is None else "fields")
    for one, kind in shown.items():
        facts = _described(kind)
        fields = "\n".join(f"{field}: {value}" for field, value in facts["fields"].items())
        table.add_row(one, Text(facts["summary"] if name is None else fields))
    if name:
        out.shown.append(Text(out.result[key][0]["about"]))
    out.shown.append(table)


def _described(kind: type[Any]) -> dict[str, Any]:
    """A frozen dataclass by its docstrings and fields; a field without a default must be given."""
    import inspect
    import sys

    about = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or "")
    fields = {}
    for field in dataclasses.fields(kind):
        default = "must be given" if field.default is dataclasses.MISSING else repr(field.default)
        fields[field.name] = f"{field.type}, {default}"
    return {"summary": about.split("\n")[0], "about": about, "fields": fields}
