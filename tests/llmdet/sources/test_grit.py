"""GRIT's rows become grounded captions with machine boxes."""

import io
import tarfile
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from llmdet import rejects
from llmdet.errors import FormatError
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.grit import Grit
from llmdet.validate import faults

BICYCLE: dict[str, Any] = {
    "key": "000127605",
    "clip_similarity_vitb32": 0.3125,
    "id": 2795296601113,
    "url": "https://example.org/a.jpg",
    "caption": "a red bicycle against a wall",
    "width": 800,
    "height": 600,
    "noun_chunks": [[0, 13, 0.125, 0.25, 0.75, 0.5, 0.8125]],
    "ref_exps": [
        [0.0, 28.0, 0.125, 0.25, 0.75, 0.5, 0.8125],
        [22, 28, 0.0, 0.0, 1.0, 1.0, 0.5],
        [0, 28, 0.5, 0.5, 1.0, 1.0, 0.25],
    ],
}


def split(source: Grit) -> tuple[list[Record], list[Reject]]:
    items = list(source.read())
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert from_batch(to_batch(records)) == records
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    return records, left_out


def source(tmp_path: Path, *rows: Any, **settings: Any) -> Grit:
    (tmp_path / "00000.json").write_bytes(orjson.dumps(list(rows)))
    return Grit(annotations=str(tmp_path / "00000.json"), images=str(tmp_path), **settings)


def test_expressions_become_regions_with_scores_in_pixels(tmp_path: Path) -> None:
    (record,), left_out = split(source(tmp_path, BICYCLE))
    assert left_out == []
    assert faults(record) == []
    assert (record.id, record.image, record.text) == ("grit/000127605/0", "00012/000127605.jpg", BICYCLE["caption"])
    assert [(region.phrases, region.spans) for region in record.regions] == [
        (("a red bicycle against a wall",), ((0, 28),)),
        (("a wall",), ((22, 28),)),
    ]
    assert [box.xyxy for box in record.boxes] == [
        (100.0, 150.0, 600.0, 300.0),
        (0.0, 0.0, 800.0, 600.0),
        (400.0, 300.0, 800.0, 600.0),
    ]
    assert [(box.score, box.origin, box.order) for box in record.boxes] == [
        (0.8125, "pseudo", 0),
        (0.5, "pseudo", 1),
        (0.25, "pseudo", 2),
    ]
    assert [caption.text for caption in record.captions] == [BICYCLE["caption"]]
    kept = ("clip_similarity_vitb32", "id", "url", "noun_chunks")
    assert record.extra == {key: BICYCLE[key] for key in kept}


def test_noun_chunks_are_read_where_the_setting_says_so(tmp_path: Path) -> None:
    (record,), _ = split(source(tmp_path, BICYCLE, expressions="noun_chunks"))
    assert [region.phrases for region in record.regions] == [("a red bicycle",)]


def test_parquet_with_offsets_as_floats_is_read_alike(tmp_path: Path) -> None:
    lists = pa.list_(pa.list_(pa.float64()))
    kinds = {"noun_chunks": lists, "ref_exps": lists}
    table = pa.table({key: pa.array([value], kinds.get(key)) for key, value in BICYCLE.items()})
    pq.write_table(table, tmp_path / "grit.parquet")
    (record,), left_out = split(Grit(annotations=str(tmp_path / "grit.parquet"), images=""))
    assert left_out == []
    assert record == split(source(tmp_path, BICYCLE))[0][0]


def test_tars_and_folders_of_img2dataset_are_read(tmp_path: Path) -> None:
    fetched = {**BICYCLE, "status": "success", "error_message": None}
    lost = {**BICYCLE, "key": "000127606", "status": "failed_to_download", "error_message": "404"}
    folder = tmp_path / "00012"
    folder.mkdir()
    with tarfile.open(tmp_path / "00012.tar", "w") as archive:
        for row in (fetched, lost):
            for suffix, body in (("jpg", b"\xff\xd8"), ("json", orjson.dumps(row)), ("txt", b"a red")):
                member = tarfile.TarInfo(f"{row['key']}.{suffix}")
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
            (folder / f"{row['key']}.json").write_bytes(orjson.dumps(row, option=orjson.OPT_INDENT_2))
    for annotations in (tmp_path / "00012.tar", folder):
        (record,), (reject,) = split(Grit(annotations=str(annotations), images=""))
        assert (record.image_id, len(record.boxes)) == ("000127605", 3)
        assert (reject.kind, reject.reason) == ("policy", "not_downloaded")


def test_the_size_comes_from_the_picture_where_the_row_has_none(tmp_path: Path) -> None:
    (tmp_path / "00012").mkdir()
    Image.new("RGB", (400, 200)).save(tmp_path / "00012" / "000127605.jpg")
    bare = {key: value for key, value in BICYCLE.items() if key not in {"width", "height"}}
    for row, settings in ((bare, {}), (BICYCLE, {"size": "picture"})):
        (record,), _ = split(source(tmp_path, row, **settings))
        assert (record.width, record.height) == (400, 200)
        assert record.boxes[0].xyxy == (50.0, 50.0, 300.0, 100.0)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ([0, 29, 0, 0, 1, 1, 0.5], "span_outside_text"),
        ([0.5, 5, 0, 0, 1, 1, 0.5], "span_outside_text"),
        ([5, 5, 0, 0, 1, 1, 0.5], "span_outside_text"),
        ([-1, 5, 0, 0, 1, 1, 0.5], "span_outside_text"),
        (["0", "5", 0, 0, 1, 1, 0.5], "span_malformed"),
        ([0, 5, "0", 0, 1, 1, 0.5], "box_malformed"),
        ([0, 5, 0, 0, None, 1, 0.5], "box_malformed"),
        ([0, 5, 0.5, 0.5, 0.4, 0.6, 0.5], "box_below_one_pixel"),
        ([0, 5, 2.0, 0.5, 3.0, 0.6, 0.5], "box_outside_image"),
        ([0, 5, 0, 0, 1e308, 1, 0.5], "box_not_finite"),
        ([0, 5, 0, 0, 1, 1, "high"], "row_malformed"),
        ([0, 5], "row_malformed"),
        ({"start": 0}, "row_malformed"),
        (None, "row_malformed"),
    ],
)
def test_a_bad_expression_costs_itself_only(tmp_path: Path, expression: Any, reason: str) -> None:
    (record,), (reject,) = split(source(tmp_path, {**BICYCLE, "ref_exps": [expression, BICYCLE["ref_exps"][1]]}))
    assert [box.order for box in record.boxes] == [1]
    assert (reject.id, reject.level, reject.kind, reject.reason) == (
        "grit/000127605/0#0",
        "annotation",
        "fault",
        reason,
    )


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"caption": None}, "row_malformed"),
        ({"caption": ["a"]}, "row_malformed"),
        ({"key": None}, "row_malformed"),
        ({"width": "800"}, "row_malformed"),
        ({"width": -1}, "row_malformed"),
        ({"width": 1e30}, "row_malformed"),
        ({"height": None}, "row_malformed"),
        ({"ref_exps": None}, "row_malformed"),
        ({"ref_exps": "[[0, 5]]"}, "row_malformed"),
        ({"width": None, "height": None}, "image_missing"),
        ({"width": None, "height": None, "key": "../../etc"}, "path_outside_root"),
    ],
)
def test_a_bad_row_is_a_reject_and_the_rest_is_read(tmp_path: Path, values: Any, reason: str) -> None:
    records, (reject,) = split(source(tmp_path, BICYCLE, {**BICYCLE, **values}, BICYCLE))
    assert [record.text_id for record in records] == ["0", "2"]
    assert (reject.id, reject.level, reject.reason) == ("grit/00000.json:1", "record", reason)


@pytest.mark.parametrize("name", ["x.json", "x.parquet", "x.tar"])
def test_a_file_of_another_format_is_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'[{"images": []}]')
    with pytest.raises(FormatError, match=name):
        Grit(annotations=str(tmp_path / name), images="").info()


def test_the_published_row(samples: Path) -> None:
    (record,), left_out = split(Grit(annotations=str(samples / "quoted_rows" / "grit_row.json"), images=""))
    assert left_out == []
    assert faults(record) == []
    assert [region.phrases[0] for region in record.regions] == [
        "a paper cover that reads we heart our customers",
        "a wire hanger with a paper cover that reads we heart our customers",
    ]
    assert record.boxes[0].xyxy[0] == pytest.approx(0.019644069503434333 * 1024, abs=0)
    assert record.boxes[0].xyxy[3] == pytest.approx(0.9603442351023356 * 693, abs=0)
