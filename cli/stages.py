"""What a data stage did, as lines for people and as the keys that every stage has in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.screen import Screen, counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.parts import Outcome


def show_stages(out: Screen, stage: str, found: Mapping[str, Outcome], max_faults: float) -> None:
    """The same for several sources: totals, and each source under `sources`."""
    for name, outcome in found.items():
        show_stage(out, f"{stage} {name}", outcome, max_faults)
    each = {name: _values(outcome) for name, outcome in found.items()}
    out.result = {
        "records": sum(one.records for one in found.values()),
        "rejects": _added([one.rejects for one in found.values()]),
        "faults": _added([one.faults for one in found.values()]),
        "skipped": all(one.skipped for one in found.values()),
        "sources": each,
    }


def show_stage(out: Screen, name: str, outcome: Outcome, max_faults: float) -> None:
    """Counts as one line, and one more for what was left out and what of it is broken."""
    from pipelines.run import too_many

    known = (
        " (was done before with the same inputs and settings)" if outcome.skipped else f" in {outcome.seconds:.1f} s"
    )
    out.shown.append(f"{name}: {outcome.records} records{known}")
    if outcome.rejects:
        out.shown.append(f"  left out: {counted(outcome.rejects)}")
    if outcome.faults:
        out.shown.append(f"  of these faults: {counted(outcome.faults)}")
    over = too_many(name, outcome, max_faults)
    if over:
        out.too_many_faults.append(over)
    out.result |= _values(outcome)


def warn_outdated(out: Screen, workspace: str) -> None:
    """Say when the merged table is older than what it was merged from."""
    from llmdet.workspace import Workspace
    from pipelines.merge import outdated

    if names := outdated(Workspace.at(workspace)):
        out.note(f"note: {', '.join(names)} changed after the last merge, which is used here; for the newest: merge")


def _values(outcome: Outcome) -> dict[str, Any]:
    names = ("records", "rejects", "faults", "skipped")
    return {name: getattr(outcome, name) for name in names}


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    from collections import Counter

    return dict(sum((Counter(one) for one in counts), Counter()))
