"""Whatever stands in the rows of a file: it ends as records that can be stored and rejects that can be stored."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llmdet import rejects
from llmdet.errors import FormatError
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.asv2 import Asv2
from llmdet.sources.folder import Folder
from llmdet.sources.grit import Grit
from llmdet.sources.llava import Llava
from llmdet.sources.odvg import Odvg
from llmdet.sources.source import Source
from llmdet.sources.yolo import Yolo
from llmdet.validate import faults

TEXTS = st.text(st.characters(codec=None, categories=None), max_size=6)  # half surrogate pairs included
NUMBERS = st.one_of(
    st.integers(-3, 9), st.sampled_from([2**31, -(2**63), 2**64, 10**30, 1e308, -1e308]), st.floats(), st.booleans()
)
ODD = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=6,
)
TURNS = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A <ref>cat</ref><box>[[1, 2, 300, 400]]</box>."}]
GOOD: dict[str, dict[str, Any]] = {
    "odvg": {
        "filename": "000000000001.jpg",
        "width": 40,
        "height": 30,
        "conversations": TURNS,
        "tags": ["a"],
        "grounding": {
            "caption": "a cat.",
            "regions": [{"bbox": [1, 2, 9, 9], "phrase": "a cat", "tokens_positive": [[0, 5]], "captions": ["x"]}],
        },
        "detection": {"instances": [{"bbox": [1, 2, 9, 9], "label": 1, "category": "cat"}]},
    },
    "llava": {
        "id": "1",
        "image": "000000000001.jpg",
        "conversations": TURNS,
        "captions": ["a"],
        "instances": [{"category": "cat", "bbox": [0.1, 0.1, 0.5, 0.5]}],
    },
    "grit": {
        "key": "000000001",
        "caption": "a cat",
        "width": 40,
        "height": 30,
        "ref_exps": [[0, 5, 0.1, 0.1, 0.9, 0.9, 0.5]],
        "status": None,
    },
    "asv2": {"image": "train2017/000000000001.jpg", "conversations": TURNS},
    "folder": {"file_name": "000000000001.jpg", "text": "a"},
}


def sources(name: str, annotations: str, images: str) -> Source:
    made: dict[str, Source] = {
        "odvg": Odvg(annotations=annotations, images=images),
        "llava": Llava(annotations=annotations, images=images),
        "grit": Grit(annotations=annotations, images=images),
        "asv2": Asv2(annotations=annotations, images=images),
        "folder": Folder(annotations=annotations, images=images),
    }
    return made[name]


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a nested value."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from paths(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    if isinstance(value, dict):
        return {key: replaced(inner, path[1:], odd) if key == path[0] else inner for key, inner in value.items()}
    return [replaced(inner, path[1:], odd) if index == path[0] else inner for index, inner in enumerate(value)]


def check(source: Source) -> list[Any]:
    """Read all, store all, and look at what was stored; a FormatError is one clear line."""
    items = list(source.read())
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert [record.id for record in from_batch(to_batch(records))] == [record.id for record in records]
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    assert [fault for record in records if record.width for fault in faults(record)] == []
    assert len({record.id for record in records}) == len(records)
    return items


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (40, 30)).save(folder / "000000000001.jpg")
    return folder


@pytest.mark.parametrize("name", sorted(GOOD))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_one_odd_value_costs_at_most_its_row(tmp_path: Path, images: Path, name: str, data: st.DataObject) -> None:
    good = GOOD[name]
    row = replaced(good, data.draw(st.sampled_from(list(paths(good)))), data.draw(ODD))
    for suffix in ("json", "jsonl"):
        path = tmp_path / f"rows.{suffix}"
        lines = [json.dumps(value) for value in (good, row, good)]
        path.write_text("\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]")
        items = check(sources(name, str(path), str(images)))
        kept = [item for item in items if isinstance(item, Record)]
        assert len(kept) >= (1 if name == "folder" else 2)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(values=st.lists(ODD, max_size=3), name=st.sampled_from(sorted(GOOD)))
def test_files_of_odd_values_only_end_in_one_line_or_in_rejects(
    tmp_path: Path, images: Path, values: list[Any], name: str
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(values))
    source = sources(name, str(path), str(images))
    if not values:
        check(source)
    elif any(isinstance(value, dict) for value in values):
        with suppress(FormatError):  # where no object has a key of the format
            items = check(source)
            assert name == "folder" or {type(item) for item in items} == {Reject}
    else:
        with pytest.raises(FormatError, match=r"rows\.json"):
            check(source)


@pytest.mark.parametrize("name", ["grit", "llava"])
@pytest.mark.parametrize("kind", [pa.int8(), pa.bool_(), pa.date32(), pa.binary(), pa.list_(pa.int32()), pa.null()])
def test_columns_of_another_type_end_in_rejects(tmp_path: Path, images: Path, name: str, kind: pa.DataType) -> None:
    value = {pa.binary(): b"\xff", pa.list_(pa.int32()): [1], pa.null(): None}.get(
        kind, True if kind == pa.bool_() else 1
    )
    columns = {key: pa.array([value], kind) for key in GOOD[name]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    items = check(sources(name, str(tmp_path / "x.parquet"), str(images)))
    assert [type(item) for item in items] == [Reject]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(lines=st.lists(st.lists(st.floats(width=32).map(str) | TEXTS, max_size=8).map(" ".join), max_size=4))
def test_odd_label_lines_end_in_rejects(tmp_path: Path, lines: list[str]) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    (tmp_path / "classes.txt").write_text("cat")
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    items = check(Yolo(annotations=str(tmp_path), images=str(tmp_path)))
    assert len([item for item in items if isinstance(item, Record)]) == 1
