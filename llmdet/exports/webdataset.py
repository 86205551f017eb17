"""WebDataset shards: tar files in which a picture and a JSON file of the same key are one sample.

    shard-000000.tar:   000000000.jpg   000000000.json   000000001.jpg   000000001.json ...

The JSON is the whole record: `{"id": "coco/9/0", "image": "000000000009.jpg", "text": ..., "regions":
[{"phrases": [...], "spans": [[0, 5]], "boxes": [{"xyxy": [...], ...}]}], "captions": [...], ...}`; `read` gives the
same Record back. Keys count records over all shards. Time stamps and owners are zero, so the same records give the
same bytes. Loses nothing; a picture that is missing leaves its JSON alone and is counted.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import fsspec
import orjson
import pyarrow as pa

from llmdet import files
from llmdet.errors import FormatError
from llmdet.exports.exporter import Exported, Sources, Tally, remove_old, selected, shards
from llmdet.exports.pictures import Pictures
from llmdet.record import SCHEMA, Record, from_batch


@dataclass(frozen=True, kw_only=True)
class WebDataset:
    """Writes `shard-00000.tar`, ..."""

    cannot_hold: ClassVar[str] = "WebDataset shards hold the whole record"

    split: str | None = None
    images: Literal["copy", "none"] = "copy"  # "none": JSON only
    shard_records: int = 5000

    def write(self, batches: Iterable[pa.RecordBatch], out: str, sources: Sources) -> Exported:
        pictures, tally, names = Pictures(out, "none", sources), Tally(), []
        for number, shard in enumerate(shards(selected(batches, self.split), self.shard_records)):
            names.append(f"shard-{number:05d}.tar")
            with (
                files.open_atomic(files.join(out, names[-1])) as file,
                tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
            ):
                for batch in shard:
                    for record in from_batch(batch):
                        self._sample(tar, f"{tally.records:09d}", record, pictures)
                        tally.add(sum(len(region.boxes) for region in record.regions))
        remove_old(out, "shard", tuple(names))
        tally.lost.update(pictures.lost)
        return tally.exported(*names)

    def _sample(self, tar: tarfile.TarFile, key: str, record: Record, pictures: Pictures) -> None:
        if self.images != "none":
            picture = pictures.read(record.root, record.source, record.image)
            if picture is not None:
                suffix = posixpath.splitext(record.image)[1].lower() or ".jpg"
                _add(tar, key + suffix, picture)
        _add(tar, f"{key}.json", orjson.dumps(record))


def read(url: str) -> Iterator[tuple[Record, bytes | None]]:
    """Records and pictures of one shard, in order. Raises FormatError for a sample without JSON."""
    with fsspec.open(url, "rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
        picture, stem = None, None
        for member in tar:
            content = tar.extractfile(member)
            data = content.read() if content else b""
            key, suffix = posixpath.splitext(member.name)
            if suffix == ".json":
                yield record_of(orjson.loads(data)), picture if stem == key else None
                picture, stem = None, None
            elif picture is not None:
                raise FormatError(f"{url}: {stem} has no JSON file beside its picture")
            else:
                picture, stem = data, key


def record_of(row: dict[str, Any]) -> Record:
    """The Record that a JSON row is. Raises FormatError."""
    try:
        columns = {**row, "extra": orjson.dumps(row["extra"]).decode()}
        columns["captions"] = [_caption(caption) for caption in row["captions"]]
        columns["regions"] = [
            {**region, "boxes": [{**box, "caption": _caption(box["caption"])} for box in region["boxes"]]}
            for region in row["regions"]
        ]
        return from_batch(pa.RecordBatch.from_pylist([columns], schema=SCHEMA))[0]
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise FormatError(f"not a record as JSON: {error!r}") from error


def _caption(caption: dict[str, Any] | None) -> dict[str, Any] | None:
    """A caption with its provenance as the schema stores it."""
    if caption is None:
        return None
    provenance = orjson.dumps(caption["provenance"], option=orjson.OPT_SORT_KEYS).decode()
    return {**caption, "provenance": provenance}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
