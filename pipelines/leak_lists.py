"""Evaluation photos for ingest: folders of them are hashed once, in parallel, and kept in the workspace."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from llmdet import files
from llmdet.leaks import Leaks, LeakSettings, PhotoList
from llmdet.photo_lists import PhotoRow, look, no_photos, photo_list, pictures, read_lists
from llmdet.workspace import Workspace, fingerprint, read_part, to_parquet
from pipelines.parts import Row, run_parts

CHUNK = 256  # photos
_SCHEMA = pa.schema([("name", pa.string()), ("sha256", pa.string()), ("looks", pa.binary())])


def leak_lists(workspace: Workspace, settings: LeakSettings) -> Leaks:
    """All lists of the settings, ready to be asked. Raises FormatError, SettingError; needs a running cluster."""
    if settings.action == "keep":
        return read_lists(settings)
    return read_lists(settings, tuple(_photos(workspace, folder) for folder in settings.photos))


def state_of_lists(settings: LeakSettings) -> dict[str, str]:
    """The state of every file and folder that the settings name: a new list is a new input."""
    single = (settings.coco_val, settings.lvis_val, settings.flickr30k, settings.image_data)
    return {path: files.state(path) for path in (*single, *settings.refcoco, *settings.photos) if path}


def _photos(workspace: Workspace, folder: str) -> PhotoList:
    if not files.exists(folder):
        return no_photos(folder)
    url = workspace.path("leaks", f"photos-{fingerprint([folder, files.state(folder)])}.parquet")
    if not files.exists(url):
        files.write_bytes(url, to_parquet(_hashed(folder)))
    table = read_part(url)
    rows = zip(*(table.column(name).to_pylist() for name in _SCHEMA.names), strict=True)
    return photo_list(folder, (row if row[1] else None for row in rows))


def _hashed(folder: str) -> pa.Table:
    """A row for each picture of a folder; those that cannot be read have no hash."""
    names = pictures(folder)
    items = [{"index": at, "names": names[at : at + CHUNK]} for at in range(0, len(names), CHUNK)]
    found = sorted(run_parts(items, _Look(folder)), key=lambda row: row["index"])
    rows = [
        {"name": name, "sha256": sha256, "looks": bytes.fromhex(looks) if looks else None}
        for part in found
        for name, sha256, looks in part["rows"]
    ]
    return pa.Table.from_pylist(rows, _SCHEMA)


@dataclass(frozen=True)
class _Look:
    """The work on a chunk of photos."""

    folder: str

    def __call__(self, item: Row) -> Row:
        seen = zip(item["names"], look(self.folder, item["names"]), strict=True)
        return {"index": item["index"], "rows": [_row(name, row) for name, row in seen]}


def _row(name: str, row: PhotoRow | None) -> list[str | None]:
    if row is None:
        return [name, None, None]
    return [name, row[1], row[2].hex() if row[2] else None]
