"""Pieces of a data set card: licences and origins of the sources, and the evaluation photos that were looked for.

Markdown lines; `llmdet.exports.hf` and merge put them into their README.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmdet.sources.source import SourceInfo

_NOTHING = "none"


def origins(sources: Mapping[str, SourceInfo]) -> list[str]:
    """A table of licence and address of each source, and of those whose captions were attached to it."""
    rows = [["source", "licence", "address"], ["---"] * 3]
    for name, info in sources.items():
        rows.append([name, info.licence or "not stated", info.address])
        for giver, said in info.notes.get("attached", {}).items():
            rows.append([f"{name}: captions of {giver}", said["licence"] or "not stated", said["address"]])
    return [_row(row) for row in rows]


def leaks(sources: Mapping[str, SourceInfo]) -> list[str]:
    """Which lists of evaluation photos each source was checked against, and which not and why."""
    lines = [
        "Photos that detectors are evaluated on were looked for in each source. A list that was not checked says "
        "nothing: its photos may be in the data.",
        "",
        _row(["source", "checked", "not checked", "photos found were"]),
        _row(["---"] * 4),
    ]
    for name, info in sources.items():
        report = info.notes.get("leaks", {})
        found = report.get("lists", {})
        checked = [_checked(key, one) for key, one in found.items() if one["state"] == "checked"]
        missing = [f"{key} ({one['why']})" for key, one in found.items() if one["state"] != "checked"]
        missing = missing if report else ["all lists (no check was made)"]
        done = {"drop": "left out", "flag": "kept with the flag `leak`", "keep": "kept"}.get(
            report.get("action"), "kept"
        )
        lines.append(_row([name, "; ".join(checked) or _NOTHING, "; ".join(missing) or _NOTHING, done]))
    return lines


def not_checked(notes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(list, why) of each list of evaluation photos that a source was not checked against, by the notes of its info."""
    report = notes.get("leaks")
    if report is None:
        yield "all lists", "no check was made"
        return
    yield from ((key, one["why"]) for key, one in report["lists"].items() if one["state"] != "checked")


def card(title: str, sources: Mapping[str, SourceInfo], records: int) -> str:
    """A whole card in Markdown."""
    lines = [
        f"# {title}",
        "",
        f"{records:,} records: images with a grounding text, boxes that are tied to spans of it, and captions. "
        "Made by llmdet-data.",
        "",
        "## Sources",
        "",
        *origins(sources),
        "",
        "## Evaluation photos",
        "",
        *leaks(sources),
    ]
    return "\n".join(lines) + "\n"


def _checked(name: str, one: Mapping[str, object]) -> str:
    limits = f", {one['why']}" if one["why"] else ""
    return f"{name} ({one['photos']:,} photos, by {one['by']}{limits})"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
