"""Every file of a workspace against its checksum, and what is damaged out of the way: then its stage makes it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fsspec.core import url_to_fs

from llmdet import files
from llmdet.errors import BusyError, FormatError, MissingError
from llmdet.seal import is_whole
from llmdet.workspace import MANIFEST, Table, Workspace
from pipelines.lease import leases
from pipelines.ledger import Ledger
from pipelines.status import tables_of


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not as it was written."""

    url: str
    fault: str  # "is missing", "is damaged: ..."
    again: str  # the command that makes it again
    folder: str  # whose lease must be free before anything is removed
    remove: tuple[str, ...]  # addresses that must go, for the command to make it again and nothing else


def check_files(workspace: Workspace) -> tuple[int, list[Damage]]:
    """How many files were read, and those that are missing or damaged."""
    checked, found = 0, []
    for one in _checked(workspace):
        checked += 1
        if one:
            found.append(one)
    return checked, found


def remove_damaged(damages: list[Damage]) -> None:
    """Take damaged files out of the way. Raises BusyError while somebody writes to one of their folders."""
    for folder in {one.folder for one in damages}:
        for lease in leases(folder).values():
            if lease is not None and lease.alive():
                raise BusyError(f"{lease.owner} on {lease.host} (pid {lease.pid}) is writing to {folder}; wait for it")
    for url in {url for one in damages for url in one.remove}:
        fs, path = url_to_fs(url)
        if fs.exists(path):
            fs.rm_file(path)


def _checked(workspace: Workspace) -> Iterator[Damage | None]:
    """Of each file that is read what is wrong with it, or None."""
    for stage, source, table in tables_of(workspace):
        yield from _table(_again(stage.split("-")[0], source), table)
    for source in workspace.children("responses"):
        again = _again("caption", source) + " (only its requests are asked again)"
        folder = workspace.path("responses", source)
        yield from (_json(files.join(folder, name), again, folder) for name in files.names(folder, ".json"))
        for name in workspace.children("responses", source):
            ledger = Ledger(workspace.path("responses", source, name))
            for part in ledger.names():
                yield _file(files.join(ledger.url, part), again, ledger.url)
            if "complete.json" in files.names(ledger.url, ".json"):
                yield _json(files.join(ledger.url, "complete.json"), again, ledger.url)
    for name in files.names(workspace.path("leaks"), ".parquet"):
        yield _file(workspace.path("leaks", name), "llmdet-data ingest", workspace.path("leaks"))


def _again(stage: str, source: str) -> str:
    return f"llmdet-data {stage}" + (f" --source {source}" if source and stage != "merge" else "")


def _table(again: str, table: Table) -> Iterator[Damage | None]:
    """The parts that the manifest promises, and those that wait for one."""
    manifest_url = files.join(table.url, MANIFEST)
    try:
        manifest = table.manifest()
    except FormatError:
        yield Damage(manifest_url, "is damaged: it is no manifest", again, table.url, (manifest_url,))
        return
    promised = {part.name: part.sha256 for part in manifest.parts} if manifest else {}
    for name, sha256 in promised.items():
        yield _file(files.join(table.url, name), again, table.url, sha256, (manifest_url,))
    for name in set(table.listing()) - set(promised):
        yield _file(files.join(table.url, name), again, table.url)


def _file(url: str, again: str, folder: str, sha256: str = "", more: tuple[str, ...] = ()) -> Damage | None:
    try:
        data = files.read_bytes(url)
    except MissingError:
        return Damage(url, "is missing", again, folder, more)
    if not is_whole(data):
        return Damage(url, "is damaged: its checksum does not fit its content", again, folder, (url, *more))
    if sha256 and files.sha256(data) != sha256:
        return Damage(url, "is not the file that the manifest promises", again, folder, (url, *more))
    return None


def _json(url: str, again: str, folder: str) -> Damage | None:
    try:
        files.read_json(url)
    except (FormatError, MissingError):
        return Damage(url, "is damaged: it is not JSON", again, folder, (url,))
    return None
