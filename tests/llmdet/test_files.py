"""Files: what is refused, with which words, and that one bad line costs one line."""

import gzip
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet import files
from llmdet.errors import FormatError, ImageError, MissingError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def put(folder: Path, content: bytes, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


# --- jsonl ---------------------------------------------------------------------------------------------------------


def test_a_bad_line_costs_that_line_only(tmp_path: Path) -> None:
    url = put(tmp_path, b'{"a": 1}\n{"a": \n\xff\xfe\n[1]\n{"a": 2}')
    rows = list(files.iter_jsonl(url))
    assert [number for number, _ in rows] == [1, 2, 3, 4, 5]
    assert [row for _, row in rows if isinstance(row, dict)] == [{"a": 1}, {"a": 2}]
    messages = [str(row) for _, row in rows if isinstance(row, FormatError)]
    assert all(f"{url} line {number}" in message for number, message in zip([2, 3, 4], messages, strict=True))
    assert messages[2].endswith("must be a JSON object; got list")


def test_empty_lines_are_refused_between_rows_and_passed_over_at_the_end(tmp_path: Path) -> None:
    rows = list(files.iter_jsonl(put(tmp_path, b'{"a": 1}\n\n{"a": 2}\n\r\n\n')))
    assert [(number, isinstance(row, dict)) for number, row in rows] == [(1, True), (2, False), (3, True)]
    assert str(rows[1][1]).endswith("line 2 is empty")
    assert list(files.iter_jsonl(put(tmp_path, b""))) == []


def test_byte_order_mark_line_ends_and_separators_inside_strings(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n' + '{"b": "x\u2028y\u0085z"}\n'.encode()
    assert [row for _, row in files.iter_jsonl(put(tmp_path, content))] == [{"a": 1}, {"b": "x\u2028y\u0085z"}]


def test_packed_lines_and_a_packed_file_that_is_none(tmp_path: Path) -> None:
    good = put(tmp_path, gzip.compress(b'{"a": 1}\n'), "rows.jsonl.gz")
    assert list(files.iter_jsonl(good)) == [(1, {"a": 1})]
    with pytest.raises(FormatError, match="cannot be unpacked"):
        list(files.iter_jsonl(put(tmp_path, b'{"a": 1}\n', "plain.jsonl.gz")))
    with pytest.raises(FormatError, match="cannot be unpacked"):
        list(files.iter_jsonl(put(tmp_path, gzip.compress(b'{"a": 1}\n' * 999)[:-9], "cut.jsonl.gz")))


@pytest.mark.parametrize(("compression", "suffix"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_what_is_written_packed_is_read_packed(tmp_path: Path, compression: files.Compression, suffix: str) -> None:
    url = str(tmp_path / f"rows.jsonl{suffix}")
    with files.open_atomic(url, compression) as file:
        file.write(b'{"a": 1}\n' * 3)
    assert list(files.iter_jsonl(url)) == [(1, {"a": 1}), (2, {"a": 1}), (3, {"a": 1})]
    with files.open_text(url) as text:
        assert text.readline() == '{"a": 1}\n'
    url = str(tmp_path / f"list.json{suffix}")
    with files.open_atomic(url, compression) as file:
        file.write(b"[1, 2]")
    assert files.read_json(url) == list(files.iter_json_list(url)) == [1, 2]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_a_packed_file_that_is_none_is_refused(tmp_path: Path, suffix: str) -> None:
    url = put(tmp_path, b"[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]", f"list.json{suffix}")
    for read in (files.read_json, lambda url: list(files.iter_jsonl(url)), lambda url: list(files.iter_json_list(url))):
        with pytest.raises(FormatError, match="cannot be unpacked"):
            read(url)
    with pytest.raises(MissingError):
        files.read_json(str(tmp_path / f"none.json{suffix}"))


def test_a_line_without_end_is_refused_and_the_next_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 20)
    rows = list(files.iter_jsonl(put(tmp_path, b'{"a": "' + b"x" * 95 + b'"}\n{"a": 2}\n')))
    assert str(rows[0][1]).endswith("line 1 has more than 20 bytes")
    assert rows[1:] == [(2, {"a": 2})]


def test_each_must_fail_file_is_refused_with_its_line_number_and_the_rest_is_read(
    samples: Path, tmp_path: Path
) -> None:
    paths = sorted((samples / "json_parsing").glob("n_*"))
    assert len(paths) == 94
    for path in paths:
        content = path.read_bytes()
        url = put(tmp_path, b'{"before": 1}\n' + content + b'\n{"after": 1}\n')
        first, *bad, last = list(files.iter_jsonl(url))
        assert first == (1, {"before": 1})
        assert last == (content.count(b"\n") + 3, {"after": 1})
        assert bad, path.name
        for number, row in bad:
            assert isinstance(row, FormatError), path.name
            assert str(row).startswith(f"{url} line {number} "), path.name


def test_each_must_pass_object_is_accepted(samples: Path, tmp_path: Path) -> None:
    seen = 0
    for path in sorted((samples / "json_parsing").glob("y_*")):
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            seen += 1
            line = path.read_bytes().replace(b"\n", b" ")  # one of them is spread over lines
            assert list(files.iter_jsonl(put(tmp_path, line + b"\n"))) == [(1, value)], path.name
    assert seen == 6


# --- JSON ----------------------------------------------------------------------------------------------------------


def test_read_json_says_where_it_stops_being_json(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.json is not JSON \(line 2, column 6"):
        files.read_json(put(tmp_path, b'{"a": 1,\n"b": x}', "a.json"))


def test_read_json_unpacks_by_name(tmp_path: Path) -> None:
    assert files.read_json(put(tmp_path, gzip.compress(b"[1]"), "a.json.gz")) == [1]
    with pytest.raises(FormatError, match="cannot be unpacked"):
        files.read_json(put(tmp_path, b"[1]", "b.json.gz"))


def test_what_is_not_there_is_missing_in_one_line(tmp_path: Path) -> None:
    for read in (files.read_json, files.read_bytes, files.open_text, lambda url: next(files.iter_jsonl(url))):
        with pytest.raises(MissingError) as caught:
            read(str(tmp_path / "none.json"))
        assert "none.json" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(MissingError):
        files.read_json(str(tmp_path))


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MissingError, match="is not a file"):
        files.read_bytes(str(tmp_path / "pipe"))


@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 20])
@given(values=st.lists(JSON, max_size=5), indent=st.sampled_from([None, 0, 2]))
def test_a_list_read_in_pieces_is_the_list(
    tmp_path_factory: pytest.TempPathFactory, piece: int, values: list[object], indent: int | None
) -> None:
    url = put(tmp_path_factory.mktemp("list"), json.dumps(values, indent=indent).encode(), "list.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_PIECE", piece)
        assert list(files.iter_json_list(url)) == values


@pytest.mark.parametrize(
    "content", ["", "{}", "[1", "[1,]", "[,1]", "[1 2]", "[1] 2", "[NaN]", '["a', "[tru]", '{"a": [1]}', "[1}"]
)
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_what_is_no_list_is_refused(tmp_path: Path, content: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PIECE", piece)
    with pytest.raises(FormatError, match="is not a JSON list"):
        list(files.iter_json_list(put(tmp_path, content.encode(), "list.json")))


def test_a_list_with_a_broken_item_gives_what_came_before(tmp_path: Path) -> None:
    items = files.iter_json_list(put(tmp_path, b'[{"a": 1}, {"a" 2}, ' + b'{"a": 3}, ' * 50 + b"0]", "list.json"))
    assert next(items) == {"a": 1}
    with pytest.raises(FormatError, match="in item 2"):
        next(items)


# --- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "relative",
    [
        "../x.jpg",
        "a/../../x.jpg",
        "/etc/passwd",
        "",
        ".",
        "..",
        "C:\\x.jpg",
        "..\\x.jpg",
        "a\0.jpg",
        "http://h/x.jpg",
        "a::b.jpg",
    ],
)
def test_a_path_that_leaves_the_root_is_refused(relative: str) -> None:
    with pytest.raises(ImageError) as caught:
        files.safe_join("/data/images", relative)
    assert caught.value.reason == "path_outside_root"


@pytest.mark.parametrize(
    ("relative", "joined"),
    [
        ("a.jpg", "/r/a.jpg"),
        ("a/../b.jpg", "/r/b.jpg"),
        ("./a//b.jpg", "/r/a/b.jpg"),
        ("..x/a.jpg", "/r/..x/a.jpg"),
        ("a\\b.jpg", "/r/a/b.jpg"),
    ],
)
def test_a_path_inside_is_joined(relative: str, joined: str) -> None:
    assert files.safe_join("/r", relative) == joined


def test_write_bytes_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    url = str(tmp_path / "deep" / "x.bin")
    digest = files.write_bytes(url, b"abc")
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4's example
    assert os.listdir(tmp_path / "deep") == ["x.bin"]
    assert files.read_bytes(url) == b"abc"
    assert files.read_bytes(url, 2) == b"ab"


def test_urls_work_as_paths_do() -> None:
    files.write_bytes("memory://llmdet-files/rows.jsonl", b'{"a": 1}\n')
    assert files.exists("memory://llmdet-files/rows.jsonl")
    assert list(files.iter_jsonl("memory://llmdet-files/rows.jsonl")) == [(1, {"a": 1})]
    with pytest.raises(MissingError):
        files.read_bytes("memory://llmdet-files/none")


def test_a_long_file_goes_to_the_disk_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = threading.Event(), os.fsync

    def fsync(number: int) -> None:
        sync(number)
        synced.set()

    monkeypatch.setattr("llmdet.files._SYNC_S", 0.01)
    monkeypatch.setattr("os.fsync", fsync)
    with files.open_atomic(str(tmp_path / "a")) as file:
        file.write(b"1")
        assert synced.wait(20)
        file.write(b"2")
    assert (tmp_path / "a").read_bytes() == b"12"


def test_a_file_that_fails_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), files.open_atomic(str(tmp_path / "a")):
        raise KeyError("bad")
    assert (threading.active_count(), list(tmp_path.iterdir())) == (before, [])
