"""What people name: files, folders, lists, web addresses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from llmdet.errors import FormatError, MissingError
from pipelines.pictures import addresses, opened
from pipelines.videos import Every

EVERY = Every.read("1s")


def photo(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "red").save(path)
    return str(path)


def test_a_folder_is_its_pictures_and_videos_sorted(tmp_path: Path) -> None:
    photos = [photo(tmp_path / name) for name in ("b.jpg", "a/c.PNG")]
    for name in ("notes.md", "clip.mp4"):
        (tmp_path / name).write_bytes(b"")
    assert addresses([str(tmp_path)]) == [photos[1], photos[0], str(tmp_path / "clip.mp4")]


def test_drawings_below_a_folder_are_no_pictures_of_it(tmp_path: Path) -> None:
    mine = photo(tmp_path / "a.jpg")
    drawn = photo(tmp_path / "predictions/a.jpg")
    assert addresses([str(tmp_path)], without=f"{tmp_path}/predictions") == [mine]
    assert addresses([f"{tmp_path}/predictions"], without=f"{tmp_path}/predictions") == [drawn]


def test_a_text_file_lists_what_else_can_be_named(tmp_path: Path) -> None:
    inside = photo(tmp_path / "in/a.jpg")
    lines = ["# mine", "", " https://example.org/x.jpg?size=2 ", str(tmp_path / "in"), "gone.jpg", "more.txt"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found = addresses([str(tmp_path / "list.txt"), "b.png"])
    assert found == ["https://example.org/x.jpg?size=2", inside, "gone.jpg", "more.txt", "b.png"]


def test_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(MissingError, match=r"no pictures in .*list\.txt"):
        addresses([str(tmp_path / "list.txt")])
    with pytest.raises(MissingError, match="no such file"):
        addresses([str(tmp_path / "other.txt")])
    (tmp_path / "list.txt").write_bytes(b"a.jpg\n\xff\xfe")
    with pytest.raises(FormatError, match="is not UTF-8 text"):
        addresses([str(tmp_path / "list.txt")])


def test_a_picture_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")
    for url, reason in ((str(tmp_path / "a.jpg"), "image_unreadable"), ("gone.jpg", "image_missing")):
        (one,) = opened(url, EVERY)
        assert one.image is None
        assert one.error.startswith(f"{reason}: ")


def test_a_file_name_that_no_json_can_hold_is_told() -> None:
    (one,) = opened("a\udc80.jpg", EVERY)
    assert (one.url, one.error) == ("a?.jpg", "image_missing: the file name 'a?.jpg' is not UTF-8; rename it")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A web site that has one picture."""
    photo(tmp_path / "a.png")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if "broken" in self.path:
                self.send_error(500)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_web_addresses_are_fetched(site: str) -> None:
    pytest.importorskip("aiohttp")
    assert addresses([f"{site}/a.png"]) == [f"{site}/a.png"]
    (there,) = opened(f"{site}/a.png", EVERY)
    assert there.image is not None
    assert there.image.size == (8, 6)
    for path in ("gone.png", "broken.png"):
        (absent,) = opened(f"{site}/{path}", EVERY)
        assert absent.error.startswith("image_missing: ")
        assert "\n" not in absent.error
    (nowhere,) = opened("http://127.0.0.1:9/a.png", EVERY)
    assert nowhere.error.startswith("image_missing: ")
