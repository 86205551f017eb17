"""The card of the merged data set, `groundingcap/README.md`: written by merge, and again by report."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pyarrow.compute as pc

from llmdet import files
from llmdet.card import Asked, Facts, Spent, card
from llmdet.quality import Quality
from llmdet.sources.source import SourceInfo
from llmdet.stats import RejectCounts
from llmdet.workspace import Workspace, read_part
from pipelines.answers import latest
from pipelines.ledger import Ledger
from pipelines.live import live_runs

_TOKENS = ("prompt_tokens", "cached_tokens", "answer_tokens")


def write_card(workspace: Workspace, title: str = "") -> str:
    """Write the card and return its address. Raises MissingError where nothing was merged."""
    merged = workspace.groundingcap().require("run merge")
    # A set that an earlier version merged has no figures.
    quality = {name: Quality.from_dict(values) for name, values in merged.info.get("quality", {}).items()}
    tables = {name: workspace.records(name).manifest() for name in merged.inputs}
    infos = {name: table.info for name, table in tables.items() if table}  # a source may be read anew just now
    text = card(
        title or f"Data set in {workspace.url.rstrip('/').rsplit('/', 1)[-1]}",
        {name: SourceInfo.from_dict(info) for name, info in infos.items()},
        merged.rows,
        Facts(quality, reject_counts(workspace), spent(workspace), merged.settings),
    )
    url = files.join(workspace.groundingcap().url, "README.md")
    files.write_bytes(url, text.encode("utf-8", "backslashreplace"))
    return url


def reject_counts(workspace: Workspace) -> RejectCounts:
    """Everything that was left out, by stage, level, kind and reason."""
    tables = [table for _, _, table in workspace.reject_tables()]
    names = ["stage", "level", "kind", "reason"]
    return reduce(add, (RejectCounts.of(part) for table in tables for part in table.batches(names)), RejectCounts())


def spent(workspace: Workspace) -> Spent:
    """What all answers in the workspace took, those that were refused later too, and what runs say that it cost."""
    rows = [
        _asked(workspace, source, name)
        for source in workspace.children("responses")
        for name in workspace.children("responses", source)
    ]
    runs = [
        files.read_json(workspace.path("runs", name))["outcome"].get("cost", 0.0)
        for name in files.names(workspace.path("runs"), ".json")
    ]
    # A run that goes on has no entry yet, and the command `caption` writes none.
    return Spent(tuple(rows), max(sum(runs), sum(run.cost for run in live_runs(workspace))))


def _asked(workspace: Workspace, source: str, name: str) -> Asked:
    ledger = Ledger(workspace.responses(source, *name.rsplit("-", 1)))
    totals = np.zeros(len(_TOKENS), np.int64)
    answers = 0
    for part in ledger.names():
        table = read_part(files.join(ledger.url, part), list(_TOKENS))
        answers += table.num_rows
        totals += [pc.sum(table[column]).as_py() or 0 for column in _TOKENS]
    newest = latest(workspace, source).get("image" if name.startswith("image") else "region")
    how = newest.provenance if newest and newest.ledger.url == ledger.url else None
    by = f"{how.engine} {how.model}".strip() if how else "earlier settings"
    return Asked(source, name.rsplit("-", 1)[0], by, answers, *totals.tolist())
