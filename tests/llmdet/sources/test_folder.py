"""A folder of pictures becomes records, with captions where a file has them."""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmdet import rejects
from llmdet.errors import FormatError, ImageError, MissingError
from llmdet.files import safe_join
from llmdet.images import inspect
from llmdet.record import Record, from_batch, to_batch
from llmdet.rejects import Reject
from llmdet.sources.folder import Folder

BEE = '{"file_name": "b.png", "text": "A bee, é."}\n'


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("b.png", "a/Z.JPG", "a/b/c.webp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name)
    return folder


def split(source: Folder) -> tuple[list[Record], list[Reject]]:
    items = list(source.read())
    records = [item for item in items if isinstance(item, Record)]
    left_out = [item for item in items if isinstance(item, Reject)]
    assert from_batch(to_batch(records)) == records
    assert rejects.from_batch(rejects.to_batch(left_out)) == left_out
    return records, left_out


def captions(records: list[Record]) -> dict[str, list[str]]:
    return {record.image: [caption.text for caption in record.captions] for record in records}


def test_all_pictures_below_are_records_by_path(pictures: Path) -> None:
    records, left_out = split(Folder(images=str(pictures)))
    assert left_out == []
    assert [record.image for record in records] == ["a/Z.JPG", "a/b/c.webp", "b.png"]
    assert records[0].id == "folder/a/Z.JPG/0"
    assert {(record.orientation, record.width, record.height, record.text) for record in records} == {
        ("applied", 0, 0, "")
    }


def test_other_files_are_rejects_by_choice(pictures: Path) -> None:
    (pictures / "notes.txt").write_text("x")
    (pictures / ".DS_Store").write_text("x")
    (pictures / ".cache").mkdir()
    (pictures / ".cache" / "x.png").write_text("x")
    _, left_out = split(Folder(images=str(pictures)))
    assert [(reject.id, reject.reason, reject.kind) for reject in left_out] == [
        ("folder/.DS_Store", "hidden_file", "policy"),
        ("folder/.cache/x.png", "hidden_file", "policy"),
        ("folder/notes.txt", "not_a_picture", "policy"),
    ]


def test_a_name_that_is_no_utf8_is_a_reject(pictures: Path) -> None:
    (Path(os.fsdecode(os.fsencode(pictures) + b"/\xff.png"))).write_bytes(b"x")
    records, (reject,) = split(Folder(images=str(pictures)))
    assert len(records) == 3
    assert (reject.reason, reject.kind) == ("text_not_unicode", "fault")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.jsonl", BEE + '{"image": "./a\\\\b/c.webp", "captions": ["One.", "Two."]}\n'),
        ("c.csv", '\ufefffile_name,text\nb.png,"A bee, é."\na/b/c.webp,One.\na/b/c.webp,Two.\n'),
        ("c.tsv", "path\tcaption\nb.png\tA bee, é.\na/b/c.webp\tOne.\na/b/c.webp\tTwo.\n"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_captions_come_from_json_lines_and_csv(
    pictures: Path, tmp_path: Path, name: str, content: str, inside: bool
) -> None:
    path = (pictures if inside else tmp_path) / name
    path.write_text(content)
    records, left_out = split(Folder(images=str(pictures), annotations=str(path)))
    assert left_out == []
    assert captions(records) == {"a/Z.JPG": [], "a/b/c.webp": ["One.", "Two."], "b.png": ["A bee, é."]}
    assert {caption.provenance.origin for record in records for caption in record.captions} == {"source"}


@pytest.mark.parametrize("annotations", ["", "same"])
def test_a_caption_file_in_the_folder_is_found(pictures: Path, annotations: str) -> None:
    (pictures / "metadata.csv").write_text("file_name,text\nb.png,A bee.\n")
    records, left_out = split(Folder(images=str(pictures), annotations=str(pictures) if annotations else ""))
    assert left_out == []
    assert captions(records)["b.png"] == ["A bee."]


def test_bad_caption_rows_are_rejects_and_the_rest_is_read(pictures: Path, tmp_path: Path) -> None:
    rows: list[Any] = [
        '{"file_name": "b.png", "text": "A bee."}',
        '{"file_name": "none.png", "text": "Gone."}',
        '{"file_name": 5, "text": "x"}',
        '{"file_name": "b.png"}',
        '{"file_name": "b.png", "text": " "}',
        '{"file_name": "b.png", "text": ["a", 1]}',
        '{"file_name": "b.png", "text": "\\udc00"}',
        "nonsense",
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(rows))
    records, left_out = split(Folder(images=str(pictures), annotations=str(tmp_path / "c.jsonl")))
    assert captions(records) == {"a/Z.JPG": [], "a/b/c.webp": [], "b.png": ["A bee."]}
    assert {reject.id: reject.reason for reject in left_out} == {
        "folder/c.jsonl:3": "row_malformed",
        "folder/c.jsonl:4": "row_malformed",
        "folder/c.jsonl:5": "caption_empty",
        "folder/c.jsonl:6": "row_malformed",
        "folder/c.jsonl:7": "line_malformed",
        "folder/c.jsonl:8": "line_malformed",
        "folder/none.png": "image_missing",
    }


def test_bad_csv_rows_are_rejects_and_the_rest_is_read(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(
        b"file_name,text\nb.png,one,two\nb.png,\xff\xfe\nb.png," + b"x" * 200_000 + b"\nb.png,A bee.\nb.png\n"
    )
    records, left_out = split(Folder(images=str(pictures), annotations=str(tmp_path / "c.csv")))
    assert captions(records)["b.png"] == ["A bee."]
    assert [(reject.id, reject.reason) for reject in left_out] == [
        ("folder/c.csv:1", "row_malformed"),
        ("folder/c.csv:2", "text_not_unicode"),
        ("folder/c.csv:3", "row_malformed"),
        ("folder/c.csv:5", "row_malformed"),
    ]


def test_what_is_missing_is_said(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for images, annotations, error in [
        (tmp_path / "empty", "", MissingError),
        (tmp_path / "none", "", MissingError),
        (pictures, tmp_path / "none.jsonl", MissingError),
        (pictures, tmp_path / "other.csv", FormatError),
    ]:
        with pytest.raises(error):
            list(Folder(images=str(images), annotations=str(annotations)).read())


def test_every_odd_picture_is_read_or_refused_with_a_reason(samples: Path) -> None:
    records, left_out = split(Folder(images=str(samples / "images_odd")))
    assert left_out == []
    assert len(records) == 30
    refused = {}
    for record in records:
        try:
            inspect(safe_join(str(samples / "images_odd"), record.image))
        except ImageError as error:
            refused[record.image] = error.reason
    assert refused["decompression_bomb.gif"] == "image_too_large"
    assert refused["truncated_jpeg.jpg"] == "image_unreadable"
