"""Pictures: every odd one is used or refused with a reason word, in bounded time and memory."""

import io
import json
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import pytest
from PIL import Image

from llmdet import images
from llmdet.errors import ImageError
from llmdet.images import ImageFacts, inspect, open_image

REASONS = {"image_missing", "image_empty", "image_unreadable", "image_too_large"}
MEASURE = r"""
import json, re, sys, time
from llmdet import images
from llmdet.errors import ImageError
start = time.perf_counter()
try:
    images.inspect(sys.argv[1]); images.open_image(sys.argv[1], "applied"); reason = None
except ImageError as error:
    reason = error.reason
# Not getrusage: what that says of a new process starts at the size of the process that started it.
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps([reason, time.perf_counter() - start, peak]))
"""


def save(folder: Path, image: Image.Image, name: str, **options: object) -> str:
    image.save(folder / name, **options)
    return str(folder / name)


def reason(url: str) -> str:
    with pytest.raises(ImageError) as caught:
        inspect(url)
    with pytest.raises(ImageError) as again:
        open_image(url)
    assert caught.value.reason == again.value.reason
    assert "\n" not in str(caught.value)
    return caught.value.reason


def reason_or_none(url: str) -> str | None:
    """Why a picture is refused; None for one that opens as RGB of the size that `inspect` said."""
    try:
        facts = inspect(url)
        opened = open_image(url, "applied")
    except ImageError as error:
        return error.reason
    assert (opened.mode, opened.size) == ("RGB", facts.size("applied"))
    return None


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_facts_of_a_plain_photo(tmp_path: Path) -> None:
    url = save(tmp_path, Image.new("RGB", (40, 30), (255, 0, 0)), "a.png")
    facts = inspect(url)
    assert (facts.width, facts.height, facts.exif) == (40, 30, 1)
    assert len(facts.sha256) == 64
    assert open_image(url).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_size_and_pixels_only_when_applied(tmp_path: Path, orientation: int) -> None:
    picture = Image.new("RGB", (40, 30))
    picture.paste((255, 255, 255), (0, 0, 20, 15))  # upper left quarter
    exif = Image.Exif()
    exif[0x0112] = orientation
    url = save(tmp_path, picture, "a.png", exif=exif)
    facts = inspect(url)
    assert facts.exif == orientation
    assert facts.size("stored") == (40, 30) == open_image(url).size
    turned = (30, 40) if orientation >= 5 else (40, 30)
    assert facts.size("applied") == turned
    applied = open_image(url, "applied")
    assert applied.size == turned
    # TIFF 6.0: where row 0 and column 0 of the stored picture are shown.
    corner = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[orientation]
    bright = {
        (x, y)
        for x in (0, 1)
        for y in (0, 1)
        if applied.getpixel((x * (turned[0] - 1), y * (turned[1] - 1))) == (255,) * 3
    }
    assert bright == {corner}


def test_orientation_that_fits_the_annotations() -> None:
    facts = ImageFacts("", 40, 30, 6)
    assert facts.orientation_that_fits(40, 30) == "stored"
    assert facts.orientation_that_fits(30, 40) == "applied"
    assert ImageFacts("", 40, 40, 6).orientation_that_fits(40, 40, prefer="applied") == "applied"
    with pytest.raises(ImageError) as caught:
        facts.orientation_that_fits(41, 30)
    assert caught.value.reason == "size_mismatch"
    assert "41x30" in caught.value.detail
    assert "40x30" in caught.value.detail


def test_reasons_of_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    assert reason(str(tmp_path / "none.jpg")) == "image_missing"
    assert reason(str(tmp_path / "folder.jpg")) == "image_missing"
    assert reason(str(tmp_path / "text.jpg" / "below.jpg")) == "image_missing"
    assert reason(str(tmp_path / ("x" * 300 + ".jpg"))) == "image_missing"
    assert reason(str(tmp_path / "empty.jpg")) == "image_empty"
    assert reason(str(tmp_path / "text.jpg")) == "image_unreadable"


def test_a_format_that_starts_other_programs_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert reason(str(path)) == "image_unreadable"


def test_a_cut_jpeg_is_found_without_its_full_decode(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((400, 300), 90).convert("RGB").save(buffer, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(buffer.getvalue()[:-2000])
    assert reason(str(path)) == "image_unreadable"
    assert inspect(str(path), decode=False).width == 400


def test_pixels_are_bounded_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(12000, 12000, b"\0" * 100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(str(path)) == "image_too_large"


def test_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = save(tmp_path, Image.new("RGB", (40, 30)), "a.bmp")
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    assert reason(url) == "image_too_large"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    name = "a.tif" if mode == "CMYK" else "a.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Pillow will stop writing 32-bit PNG, not reading it
        url = save(tmp_path, Image.new(mode, (9, 9)), name)
    opened = open_image(url)
    assert (opened.mode, opened.size) == ("RGB", (9, 9))


def test_sixteen_bits_are_scaled_and_transparency_lies_on_white(tmp_path: Path) -> None:
    grey = Image.new("I;16", (4, 4), 0x8000)
    assert open_image(save(tmp_path, grey, "grey.png")).getpixel((0, 0)) == (128, 128, 128)
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half.putpixel((1, 1), (255, 0, 0, 255))
    opened = open_image(save(tmp_path, half, "half.png"))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks about broken metadata
def test_bytes_at_random_places_never_raise_anything_else(tmp_path: Path) -> None:
    sources = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        Image.effect_noise((24, 24), 50).convert("RGB").save(buffer, kind)
        sources[kind] = buffer.getvalue()
    state = 1
    for kind, data in sources.items():
        for _ in range(60):
            broken = bytearray(data)
            for _ in range(6):
                state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
                broken[(state >> 33) % min(len(broken), 120)] = state >> 24 & 0xFF
            path = tmp_path / f"broken.{kind.lower()}"
            path.write_bytes(broken)
            reason = reason_or_none(str(path))
            assert reason is None or reason in REASONS


def test_every_odd_picture_is_used_or_refused_with_a_reason(samples: Path) -> None:
    paths = sorted((samples / "images_odd").iterdir())
    assert len(paths) == 30
    refused = {}
    for path in paths:
        start = time.perf_counter()
        refused[path.name] = reason_or_none(str(path))
        assert time.perf_counter() - start < 5, path.name
    assert {name: reason for name, reason in refused.items() if reason} == {
        "broken.png": "image_unreadable",
        "decompression_bomb.gif": "image_too_large",
        "truncated_jpeg.jpg": "image_unreadable",
    }
    assert {n: inspect(str(samples / "images_odd" / f"hopper_orientation_{n}.jpg")).exif for n in (2, 3, 6)} == {
        2: 2,
        3: 3,
        6: 6,
    }


def test_the_largest_picture_that_passes_stays_under_a_gigabyte(tmp_path: Path) -> None:
    side = int(images.MAX_PIXELS**0.5)
    url = save(tmp_path, Image.new("LA", (side, side), (200, 100)), "large.png", compress_level=1)
    done = subprocess.run([sys.executable, "-c", MEASURE, url], capture_output=True, text=True, check=True)
    answer, seconds, peak = json.loads(done.stdout)
    assert answer is None
    assert seconds < 5
    assert peak < 1e9
