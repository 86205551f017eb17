"""export: the merged records in a format that others read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from llmdet.errors import MissingError, SettingError
from llmdet.exports import EXPORTERS, Exporter
from llmdet.exports.exporter import ahead
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Table, Workspace
from pipelines.merge import best_table
from pipelines.settings import build


@dataclass(frozen=True, slots=True)
class ExportOutcome:
    """What was written where."""

    out: str
    files: tuple[str, ...]
    records: int
    boxes: int
    lost: dict[str, int]  # what the format could not hold, counted
    cannot_hold: str
    seconds: float


def exporter_of(format: str, options: Mapping[str, object] | None = None) -> Exporter:
    """The exporter of a format with its options checked. Raises SettingError."""
    if format not in EXPORTERS:
        raise SettingError(f"no format {format!r}; there are: {', '.join(sorted(EXPORTERS))}")
    return build(EXPORTERS[format], dict(options or {}), f"export.{format}")


def export(workspace: Workspace, exporter: Exporter, out: str, source: str | None = None) -> ExportOutcome:
    """Write `groundingcap/`, or one source's records in their best state, to the folder `out`.

    Works before merge, caption and refine were run: then the records are exported as they are.
    """
    started = time.monotonic()
    tables = best_tables(workspace, source)
    infos = {name: info_of(workspace, name) for name in ([source] if source else workspace.sources())}
    exported = exporter.write(_batches(tables), out, infos)
    return ExportOutcome(
        out=out,
        **asdict(exported),
        cannot_hold=exporter.cannot_hold,
        seconds=round(time.monotonic() - started, 3),
    )


def info_of(workspace: Workspace, source: str) -> SourceInfo:
    """What a source said of itself when it was ingested."""
    manifest = workspace.records(source).require(f"run: llmdet-data ingest --source {source}")
    return SourceInfo.from_dict(manifest.info)


def best_tables(workspace: Workspace, source: str | None = None) -> list[Table]:
    """The merged table, or the best state of each source where there is none. Raises MissingError."""
    if source is None and workspace.groundingcap().manifest():
        return [workspace.groundingcap()]
    names = [source] if source else workspace.sources()
    if not names:
        raise MissingError(f"no records in {workspace.url}; run: llmdet-data ingest")
    return [best_table(workspace, name) for name in names]


def _batches(tables: list[Table]) -> Iterator[pa.RecordBatch]:
    """All batches in order; the next parts are read while the exporter works on this one."""
    parts = [(table, part.name) for table in tables for part in table.require("run the stage before this one").parts]
    for part in ahead(lambda where: where[0].read(where[1]), parts):
        yield from part.to_batches()
