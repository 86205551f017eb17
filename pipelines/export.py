"""export: the merged records in a format that others read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from llmdet import files
from llmdet.errors import MissingError, SettingError
from llmdet.exports import EXPORTERS, Exporter
from llmdet.exports.exporter import Exported, JsonLines, Lines, Sources, ahead
from llmdet.exports.parquet import Parquet
from llmdet.sources.source import SourceInfo
from llmdet.workspace import Sealed, Table, Workspace, read_sealed
from pipelines.merge import best_table
from pipelines.settings import build
from pipelines.tasks import in_order


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
    exported = _write(exporter, _parts(tables), out, infos)
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


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    table: Table
    name: str

    def read(self) -> pa.Table:
        return self.table.read(self.name)

    def file(self) -> Sealed:
        return read_sealed(files.join(self.table.url, self.name))


def _parts(tables: list[Table]) -> list[_Part]:
    names = [(table, part.name) for table in tables for part in table.require("run the stage before this one").parts]
    return [_Part(number, table, name) for number, (table, name) in enumerate(names)]


def _write(exporter: Exporter, parts: list[_Part], out: str, infos: Sources) -> Exported:
    """Part by part side by side, where the format allows it."""
    if isinstance(exporter, Parquet) and exporter.by_parts and parts:
        return exporter.finish_parts(in_order(_Copy(exporter, out), parts), out)
    if isinstance(exporter, JsonLines) and exporter.by_parts:
        return exporter.write_lines(in_order(_Encode(exporter, infos), parts), out, infos)
    return exporter.write(_batches(parts), out, infos)


@dataclass(frozen=True)
class _Encode:
    """The lines of one part; the driver only puts them one after the other."""

    exporter: JsonLines
    infos: Sources

    def __call__(self, part: _Part) -> Lines:
        return self.exporter.lines(part.file().data, self.infos)


@dataclass(frozen=True)
class _Copy:
    """One part as it is."""

    exporter: Parquet
    out: str

    def __call__(self, part: _Part) -> Exported:
        return self.exporter.write_part(part.number, part.file(), self.out)


def _batches(parts: list[_Part]) -> Iterator[pa.RecordBatch]:
    """All batches in order; the next parts are read while the exporter works on this one."""
    for table in ahead(_Part.read, parts):
        yield from table.to_batches()
