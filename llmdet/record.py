"""Record, the one noun that travels, and its Arrow schema.

A Record is one grounding text of one image of one source, with its regions and captions. `to_batch` and
`from_batch` are the two directions between the row view and the bulk view; the schema lives here and nowhere else.

Conventions: boxes are xyxy in pixels of the image as the annotator saw it, float64, exactly as the source gave
them (never clipped); spans are half-open character offsets into `Record.text`; image paths are relative to a named
root.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa

from llmdet.boxes import XYXY
from llmdet.errors import FormatError

SCHEMA_VERSION = 1

Span = tuple[int, int]
Orientation = Literal["stored", "applied"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a caption came from: enough to make it again."""

    origin: Literal["source", "lmm", "template"] = "source"
    prompt: str = ""  # id@version
    prompt_hash: str = ""
    model: str = ""
    revision: str = ""
    engine: str = ""
    engine_version: str = ""
    sampling: str = ""  # canonical JSON of the base sampling parameters

    def to_json(self) -> str:
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS).decode()


@functools.lru_cache(maxsize=4096)
def _provenance(text: str) -> Provenance:
    return Provenance(**orjson.loads(text))


_provenance_json = functools.lru_cache(maxsize=4096)(Provenance.to_json)


@dataclass(frozen=True, slots=True)
class Link:
    """A span of a caption that names a region of the record, and one box of it where that is certain."""

    span: Span
    region: int
    box: int | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """A text about an image or about one box, as cleaned and as it came."""

    text: str
    raw: str = ""  # what the source or the model said, before any rule
    provenance: Provenance = Provenance()
    request_id: str = ""
    attempt: int = 0
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a region."""

    xyxy: XYXY
    order: int = 0  # position among the image's annotations, as the source lists them
    origin: Literal["human", "pseudo"] = "human"
    score: float | None = None
    annotation_id: str | None = None
    area: float | None = None  # of the mask, square pixels, where the source gives it
    crowd: bool = False
    mask: str | None = None  # COCO segmentation (polygons or RLE) as JSON
    caption: Caption | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """A thing that the text names: its phrases, where they stand in the text, and its boxes.

    `phrases[i]` is the text at `spans[i]`, up to case. A class name with five boxes is one region with five boxes.
    """

    phrases: tuple[str, ...]
    spans: tuple[Span, ...]
    boxes: tuple[Box, ...]
    category_id: int | None = None  # the source's own id, where it has categories


@dataclass(frozen=True, slots=True)
class Record:
    """One grounding text of one image of one source. Id = source/image_id/text_id."""

    id: str
    source: str
    image_id: str
    text_id: str
    kind: Literal["detection", "grounding"]  # names joined by ". ", or sentences
    image: str  # path relative to `root`
    root: str  # name of an image folder; a workspace maps names to addresses
    width: int
    height: int
    text: str
    regions: tuple[Region, ...] = ()
    negatives: tuple[Span, ...] = ()  # spans of names known to be absent
    exhaustive: bool = False  # every object of the named kinds has a box
    captions: tuple[Caption, ...] = ()  # about the whole image
    tags: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # what checks found; nothing is dropped for a flag
    orientation: Orientation = "stored"
    image_sha256: str | None = None
    split: str = ""
    licence: str = ""
    origin: str = ""  # address of the source
    extra: dict[str, Any] = field(default_factory=dict)  # what only this source has (JSON values)

    @property
    def boxes(self) -> list[Box]:
        """All boxes of all regions in the source's order."""
        return sorted((box for region in self.regions for box in region.boxes), key=lambda box: box.order)


def record_id(source: str, image_id: str, text_id: str) -> str:
    """The id of a record."""
    return f"{source}/{image_id}/{text_id}"


# --- Arrow ---------------------------------------------------------------------------------------------------------

_SPAN = pa.list_(pa.int32(), 2)
_LINK = pa.struct([("span", _SPAN), ("region", pa.int32()), ("box", pa.int32())])
_CAPTION = pa.struct(
    [
        ("text", pa.string()),
        ("raw", pa.string()),
        ("provenance", pa.string()),  # JSON: few distinct values, so parquet's dictionary makes it free
        ("request_id", pa.string()),
        ("attempt", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("links", pa.list_(_LINK)),
    ]
)
_BOX = pa.struct(
    [
        ("xyxy", pa.list_(pa.float64(), 4)),
        ("order", pa.int32()),
        ("origin", pa.string()),
        ("score", pa.float64()),
        ("annotation_id", pa.string()),
        ("area", pa.float64()),
        ("crowd", pa.bool_()),
        ("mask", pa.string()),
        ("caption", _CAPTION),
    ]
)
_REGION = pa.struct(
    [
        ("phrases", pa.list_(pa.string())),
        ("spans", pa.list_(_SPAN)),
        ("boxes", pa.list_(_BOX)),
        ("category_id", pa.int64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("image_id", pa.string()),
        ("text_id", pa.string()),
        ("kind", pa.string()),
        ("image", pa.string()),
        ("root", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("text", pa.string()),
        ("regions", pa.list_(_REGION)),
        ("negatives", pa.list_(_SPAN)),
        ("exhaustive", pa.bool_()),
        ("captions", pa.list_(_CAPTION)),
        ("tags", pa.list_(pa.string())),
        ("flags", pa.list_(pa.string())),
        ("orientation", pa.string()),
        ("image_sha256", pa.string()),
        ("split", pa.string()),
        ("licence", pa.string()),
        ("origin", pa.string()),
        ("extra", pa.string()),
    ],
    metadata={"llmdet.schema_version": str(SCHEMA_VERSION)},
)

# Struct types and the classes they stand for; fields of both are in the same order.
_CLASSES: dict[pa.DataType, type] = {_LINK: Link, _CAPTION: Caption, _BOX: Box, _REGION: Region}


def to_batch(records: Sequence[Record]) -> pa.RecordBatch:
    """The bulk view of records: one Arrow batch with `SCHEMA`."""
    with _without_collector():
        return pa.RecordBatch.from_arrays(_columns(records, SCHEMA), schema=SCHEMA)


def from_batch(batch: pa.RecordBatch | pa.Table) -> list[Record]:
    """The row view of a batch or table that has the columns of `SCHEMA`.

    Raises FormatError for a table of a newer schema, or one that lacks columns.
    """
    check_schema(batch.schema)
    if isinstance(batch, pa.Table):
        return [record for part in batch.to_batches() for record in from_batch(part)]
    with _without_collector():
        columns = [_decode(batch.column(f.name), f.name) for f in SCHEMA]
        return [Record(*row) for row in zip(*columns, strict=True)]


def check_schema(schema: pa.Schema) -> None:
    """Raise FormatError unless a table can be read as records by this version."""
    stored = (schema.metadata or {}).get(b"llmdet.schema_version")
    if stored is not None and int(stored) > SCHEMA_VERSION:
        raise FormatError(
            f"records of schema version {stored.decode()} came, this llmdet-data reads up to {SCHEMA_VERSION}; "
            "update with: pip install -U llmdet-data"
        )
    missing = [name for name in SCHEMA.names if name not in schema.names]
    if missing:
        raise FormatError(f"a table of records needs the columns {missing}, which this one lacks")


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the cyclic garbage collector from walking, again and again, a million objects that hold no cycle.

    It takes half of the time of either direction.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _encode(values: Sequence[Any], kind: pa.DataType, name: str = "") -> pa.Array:
    """Python values of one field to an Arrow array, column by column: many times faster than by dicts."""
    if name == "provenance":
        return pa.array([_provenance_json(value) for value in values], pa.string())
    if name == "extra":
        return pa.array([orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode() for value in values], pa.string())
    if pa.types.is_fixed_size_list(kind):
        flat = np.array(values, dtype=kind.value_type.to_pandas_dtype()).reshape(-1)
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), kind.list_size).cast(kind)
    if pa.types.is_list(kind):
        offsets = np.zeros(len(values) + 1, dtype=np.int32)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        inner = _encode([item for value in values for item in value], kind.value_type)
        return pa.ListArray.from_arrays(pa.array(offsets), inner, type=kind)
    if pa.types.is_struct(kind):
        return _encode_struct(values, kind)
    return pa.array(values, kind)


def _columns(objects: Sequence[Any], kind: pa.StructType | pa.Schema) -> list[pa.Array]:
    """The fields of objects as one Arrow array each."""
    rows = map(operator.attrgetter(*(f.name for f in kind)), objects)
    columns = zip(*rows, strict=True) if objects else ((),) * len(kind)
    return [_encode(column, f.type, f.name) for column, f in zip(columns, kind, strict=True)]


def _encode_struct(values: Sequence[Any], kind: pa.StructType) -> pa.Array:
    present = [value for value in values if value is not None]
    dense = pa.StructArray.from_arrays(_columns(present, kind), fields=list(kind))
    if len(present) == len(values):
        return dense
    # Spread the present ones over their rows: take() with null indices leaves nulls between.
    rows = iter(range(len(present)))
    indices = pa.array([None if value is None else next(rows) for value in values], pa.int32())
    return dense.take(indices)


def _decode(array: pa.Array, name: str = "") -> list[Any]:
    """An Arrow array to Python values; the inverse of `_encode`."""
    kind = array.type
    if name == "provenance":
        return [None if text is None else _provenance(text) for text in array.to_pylist()]
    if name == "extra":
        return [orjson.loads(text) if text else {} for text in array.to_pylist()]
    if pa.types.is_fixed_size_list(kind):
        flat = array.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.list_size)
        return _spread(array, [tuple(row) for row in flat.tolist()])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _decode(array.flatten())
        ends = np.cumsum(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)).tolist()
        return [tuple(inner[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else []
    if pa.types.is_struct(kind):
        return _decode_struct(array)
    if array.null_count == 0 and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return array.to_numpy(zero_copy_only=False).tolist()
    return array.to_pylist()


def _decode_struct(array: pa.StructArray) -> list[Any]:
    dense = array.drop_null() if array.null_count else array
    build = _CLASSES[_canonical(array.type)]
    rows = zip(*(_decode(dense.field(f.name), f.name) for f in _canonical(array.type)), strict=True)
    return _spread(array, [build(*row) for row in rows])


def _spread(array: pa.Array, present: list[Any]) -> list[Any]:
    """Put None between values where the array is null."""
    if array.null_count == 0:
        return present
    values = iter(present)
    return [next(values) if valid else None for valid in array.is_valid().to_pylist()]


@functools.lru_cache(maxsize=64)
def _canonical(kind: pa.StructType) -> pa.StructType:
    """The struct of this module with the same first fields (parquet and polars rename list items, not fields)."""
    names = {f.name for f in kind}
    for known in _CLASSES:
        if {f.name for f in known} == names:
            return known
    raise FormatError(f"a column holds a struct with the fields {sorted(names)}, which is none of this version's")


def images_of(records: Iterable[Record]) -> int:
    """How many different images the records show."""
    return len({(record.root, record.image) for record in records})
