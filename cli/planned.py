"""What a dry run found, for people and as JSON: counts, tokens, GPU-hours, money, and the first requests in full."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli.screen import Screen
    from pipelines.estimate import DryRun, Example

_SHOWN = {"answer limit"}  # said below the table


def show_plan(out: Screen, found: DryRun) -> None:
    """Fill the screen with a dry run."""
    from rich.table import Table

    if found.note:
        out.note(f"note: {found.note}")
    columns = list(dict.fromkeys(key for counts in found.plan.values() for key in counts))
    totals: dict[str, Any] = {key: sum(counts.get(key, 0) for counts in found.plan.values()) for key in columns}
    table = Table("source", *(column for column in columns if column not in _SHOWN))
    for name, counts in found.plan.items():
        table.add_row(name, *(str(counts.get(column, "")) for column in columns if column not in _SHOWN))
    out.shown += [table, *_spend(found, totals)]
    for number, example in enumerate(found.examples, 1):
        out.shown += _example(number, example)
    asked = {name: value for name, value in asdict(found).items() if name not in ("plan", "note")}
    out.result = {"dry_run": True, "plan": found.plan, **totals, **asked}


def _spend(found: DryRun, totals: dict[str, Any]) -> list[str]:
    if not totals.get("prompt tokens"):
        return []
    lines = [
        f"about {totals['prompt tokens']:,} prompt tokens ({totals['picture tokens']:,} of them pictures) and "
        f"{totals['answer tokens']:,} answer tokens, {totals['answer limit']:,} at most"
    ]
    spend = found.spend
    if spend.gpu_hours is not None:
        lines.append(f"about {spend.gpu_hours:.2f} GPU-hours (speed: {spend.speed})")
    elif spend.cost is None:
        lines.append("GPU-hours and cost are not known: give price.tokens_per_s, or run a few records with --limit")
    if spend.cost is not None:
        lines.append(f"about {spend.cost:.2f} in the currency of the prices")
    return lines


def _example(number: int, example: Example) -> list[str]:
    said = f"request {number}: {example.task} of {example.record}, attempt {example.attempt}"
    sampling = ", ".join(f"{name} {value}" for name, value in example.sampling.items())
    view = ", ".join(f"{name} {value}" for name, value in example.view.items())
    lines = [said, f"  picture   {example.picture}, {view}", f"  sampling  {sampling or 'none'}"]
    lines += [f"  schema    {example.schema}"] if example.schema else []
    return [*lines, *(f"  | {line}" for line in example.text.splitlines())]
