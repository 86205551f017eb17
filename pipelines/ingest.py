"""ingest: what a source says, read once, checked against its photos, written as `records/<source>/`.

One Ray task parses the annotation file and streams parts; other tasks open the photos of a part, hash them, find the
orientation that fits, validate every record, and write.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

import orjson
import pyarrow as pa

from llmdet import files, images, rejects, validate
from llmdet.catalogue import photo_ids_of
from llmdet.errors import ImageError, LlmdetError, MissingError
from llmdet.images import ImageFacts
from llmdet.leaks import Leak, Leaks, LeakSettings, Space
from llmdet.record import Orientation, Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.source import Source
from llmdet.workspace import Manifest, Workspace, fingerprint
from pipelines.cluster import cluster, ray_data
from pipelines.leak_lists import leak_lists, state_of_lists
from pipelines.lease import hold
from pipelines.parts import Outcome, Packed, PartOutput, Progress, Row, StageTables, collect, failure, outcome_of
from pipelines.settings import check_name

# Fields of sources that name a file or folder which is read as a whole; photos are too many to look at each time.
INPUTS = frozenset(
    {"annotations", "lists", "label_map", "instances", "tree", "classes", "labels", "image_data", "corrections"}
)


@dataclass(frozen=True, kw_only=True)
class IngestSettings:
    """How photos are checked, and against which lists of evaluation photos."""

    images: Literal["decode", "header", "skip"] = "decode"  # decode: prove that the pixels can be read
    orientation: Orientation | None = None  # None: as the source says (one's own photos: applied, public sets: stored)
    part_rows: int = 2048
    limit: int | None = None  # first n records, for a try
    leaks: LeakSettings = field(default_factory=LeakSettings)


def ingest(
    workspace: Workspace, source: Source, settings: IngestSettings | None = None, progress: Progress | None = None
) -> Outcome:
    """Read a source into `records/<source.name>/`.

    Raises FormatError for a file of another format, MissingError for a missing file or image folder, SettingError for a
    name that cannot be that of a folder. What is wrong with single rows or photos becomes reject rows.
    """
    settings = settings or IngestSettings()
    started = time.monotonic()
    check_name(source.name, "source")
    source = _rooted(source)
    _require(source, settings)
    tables = _tables(workspace, source, settings)
    done = tables.done()
    if done:
        return outcome_of(done.counts, done.counts["seconds"], skipped=True)
    with hold(tables.table.url) as held, cluster(workspace.url, reads=_seen_by_all(source)):
        leaks, space = leak_lists(workspace, settings.leaks), photo_ids_of(source)
        work = _Check(tables, settings, _images(source), leaks, space)
        rows = collect(_dataset(source, settings).map(Packed(work)), None, progress)
        held.check()
        return tables.commit(
            [row for row in rows if row["index"] >= 0],
            started=started,
            settings={**asdict(settings), "source": _describe(source)},
            info=_with_report(next(row["info"] for row in rows if row["info"]), leaks.report(space, settings.images)),
        )


def ingested(workspace: Workspace, source: Source, settings: IngestSettings) -> Manifest | None:
    """The manifest of `records/<source.name>/` where `ingest` would have nothing to do."""
    return _tables(workspace, _rooted(source), settings).done()


def _tables(workspace: Workspace, source: Source, settings: IngestSettings) -> StageTables:
    """Where a source goes, and the fingerprint of all that its records depend on."""
    inputs = {"source": _describe(source), "settings": asdict(settings), "lists": state_of_lists(settings.leaks)}
    return StageTables(
        "ingest", workspace.records(source.name), workspace.rejects("ingest", source.name), fingerprint(inputs)
    )


def _with_report(info: dict[str, Any], report: dict[str, Any]) -> dict[str, Any]:
    """What the source said of itself, with the lists of evaluation photos that it was checked against.

    The image folder is absolute: training processes and later sessions stand in other folders.
    """
    images = files.absolute(info["images"]) if info["images"] else ""
    return {**info, "images": images, "notes": {**info["notes"], "leaks": report}}


def _rooted(source: Source) -> Source:
    """The source with absolute paths, also those of sources inside it: workers and later sessions stand elsewhere."""
    changed: dict[str, Any] = {}
    for own in fields(source):  # type: ignore[arg-type]
        value = getattr(source, own.name)
        if isinstance(value, str) and value and own.name in INPUTS | {"images"}:
            changed[own.name] = files.absolute(value)
        elif hasattr(value, "read"):
            changed[own.name] = _rooted(value)
        elif isinstance(value, tuple) and value and all(hasattr(item, "read") for item in value):
            changed[own.name] = tuple(_rooted(item) for item in value)
    return replace(source, **changed)  # type: ignore[type-var]


def _seen_by_all(source: Source) -> list[str]:
    """What any node may be asked to read; what is not needed need not be there."""
    places = (getattr(source, "annotations", ""), _images(source))
    return [place for place in places if place and files.exists(place)]


def _images(source: Source) -> str:
    return str(getattr(source, "images", ""))


def _describe(source: Source) -> dict[str, Any]:
    """A source's whole configuration, with the class that reads it and the state of its files.

    Sizes and times stand for the content: a corrected annotation file is a new input.
    """
    values = _plain(asdict(source))  # type: ignore[call-overload]
    return {"reader": type(source).__name__, **values, "files": dict(_inputs(values))}


def _plain(value: Any) -> Any:
    """JSON values; a function (a token counter) stands by its name."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else value


def _inputs(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(address, state) of every file or folder that a source reads, those of the sources inside it too."""
    for name, value in values.items():
        if isinstance(value, str) and name in INPUTS:
            yield value, files.state(value)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _inputs(inner)


def _require(source: Source, settings: IngestSettings) -> None:
    annotations = getattr(source, "annotations", None)
    if annotations and not files.exists(annotations):
        raise MissingError(f"no annotations of {source.name} at {annotations}; give --annotations or --data-root")
    if settings.images != "skip" and not files.exists(_images(source)):
        raise MissingError(f"no image folder of {source.name} at {_images(source)}; give --images or --data-root")


def _dataset(source: Source, settings: IngestSettings) -> Any:
    from ray.data import Datasource
    from ray.data.block import BlockMetadata
    from ray.data.datasource import ReadTask

    class SourceParts(Datasource):
        """One read task that yields one block per part, so that parsing and checking overlap."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(lambda: _guarded(source, settings), metadata)]

    # A different CPU share keeps Ray Data from fusing reading and checking into one task.
    return ray_data().read_datasource(SourceParts(), override_num_blocks=1, num_cpus=0.5)


MAX_SIDE = 2**31 - 1  # pixels that the schema can hold
_PART = pa.schema(
    [("index", pa.int32()), ("records", pa.large_binary()), ("rejects", pa.large_binary()), ("info", pa.string())]
)


def _guarded(source: Source, settings: IngestSettings) -> Iterator[pa.Table]:
    """The parts, and where the source cannot be read a last block that says why."""
    try:
        yield from _parts(source, settings)
    except (LlmdetError, OSError) as error:
        yield _part(-2, [], [], orjson.dumps(failure(error)).decode())


def _parts(source: Source, settings: IngestSettings) -> Iterator[pa.Table]:
    """Blocks of one row: a part's records and rejects as Arrow bytes; last, what the source says of itself."""
    records: list[Record] = []
    left_out: list[Reject] = []
    index = taken = 0
    for item in source.read():
        if isinstance(item, Reject):
            left_out.append(item)
            continue
        taken += 1
        if max(item.width, item.height) > MAX_SIDE:  # before Arrow refuses the whole part for it
            size = f"{item.width}x{item.height}"
            left_out.append(Reject(item.id, "record", "fault", "ingest", "size_too_large", size))
        else:
            records.append(item)
        full = len(records) == settings.part_rows
        if full:
            yield _part(index, records, left_out)
            records, left_out, index = [], [], index + 1
        if settings.limit and taken >= settings.limit:
            break
    if records or left_out or index == 0:
        yield _part(index, records, left_out)
    yield _part(-1, [], [], orjson.dumps(source.info().to_dict()).decode())


def _part(index: int, records: list[Record], left_out: list[Reject], info: str = "") -> pa.Table:
    row = [[index], [_pack(to_batch(records))], [_pack(rejects.to_batch(left_out))], [info]]
    return pa.table([pa.array(v, f.type) for v, f in zip(row, _PART, strict=True)], schema=_PART)


def _pack(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _unpack(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


@dataclass(frozen=True)
class _Check:
    """The work on one part: photos, validity, and writing."""

    tables: StageTables
    settings: IngestSettings
    images: str
    leaks: Leaks = field(default_factory=Leaks)
    space: Space = "any"

    def __call__(self, row: Row) -> Row:
        index = row["index"]
        if index < 0:
            said = orjson.loads(row["info"])
            return said if "failure" in said else {"index": index, "info": said}
        result = self.tables.adopt(index) or self.tables.write(index, self._output(row))
        return {**result, "info": None}

    def _output(self, row: Row) -> PartOutput:
        left_out = rejects.from_batch(_unpack(row["rejects"]))
        kept: list[Record] = []
        for record in from_batch(_unpack(row["records"])):
            checked = self._checked(record)
            if isinstance(checked, Record):
                checked, bad = validate.without_bad_boxes(checked)
                left_out += [Reject(f"{record.id}#{box}", "annotation", "fault", "ingest", *why) for box, why in bad]
                checked = self._valid(checked)
            if isinstance(checked, Record):
                kept.append(checked)
            else:
                left_out.append(checked)
        return PartOutput(to_batch(kept), left_out)

    def _checked(self, record: Record) -> Record | Reject:
        try:
            judged = self._judged(record, self.leaks.by_id(record, self.space))
            files.safe_join(self.images, record.image)  # a name that leaves its folder is refused unopened, too
            if isinstance(judged, Record) and self.settings.images != "skip":
                return self._with_photo(judged)
            return judged
        except ImageError as error:
            return Reject(record.id, "record", "fault", "ingest", error.reason, error.detail)
        except LlmdetError as error:
            return Reject(record.id, "record", "fault", "ingest", "image_unreadable", str(error))

    def _judged(self, record: Record, leak: Leak | None) -> Record | Reject:
        return self.leaks.judge(record, leak) if leak and "leak" not in record.flags else record

    def _valid(self, record: Record) -> Record | Reject:
        faults = validate.faults(record)
        if faults:
            return Reject(record.id, "record", "fault", "ingest", faults[0].split(":")[0], "; ".join(faults[:3]))
        return record

    def _with_photo(self, record: Record) -> Record | Reject:
        url = files.safe_join(self.images, record.image)
        facts = images.inspect(url, decode=self.settings.images == "decode", looks=self.leaks.by_content)
        judged = self._judged(record, self.leaks.by_looks(facts.sha256, facts.looks))
        return judged if isinstance(judged, Reject) else self._fitted(judged, facts)

    def _fitted(self, record: Record, facts: ImageFacts) -> Record:
        """The record with the photo's hash, and its size or the orientation that gives it that size."""
        prefer = self.settings.orientation or record.orientation
        if record.width == 0 and record.height == 0:  # the source does not know the size
            width, height = facts.size(prefer)
            return replace(record, image_sha256=facts.sha256, width=width, height=height, orientation=prefer)
        orientation = facts.orientation_that_fits(record.width, record.height, prefer)
        return replace(record, image_sha256=facts.sha256, orientation=orientation)
