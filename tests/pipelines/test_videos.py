"""Frames of videos: which are taken, in which colours, and what is no video."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llmdet.errors import ExtraError, ImageError, SettingError
from pipelines.pictures import opened
from pipelines.videos import Every, frames

cv2 = pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """25 frames in 2.5 seconds, whose red grows by ten each."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(25):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[..., 2] = 10 * number
        video.write(picture)
    video.release()
    return str(path)


@pytest.mark.parametrize(
    ("every", "numbers"), [("10", [0, 10, 20]), ("1s", [0, 10, 20]), ("0.5s", [0, 5, 10, 15, 20]), ("99s", [0])]
)
def test_frames_are_taken_by_number_or_time(clip: str, every: str, numbers: list[int]) -> None:
    taken = list(frames(clip, Every.read(every)))
    assert [one.number for one in taken] == numbers
    assert [one.time_s for one in taken] == pytest.approx([number / 10 for number in numbers])
    for one in taken:
        red, green, blue = one.image.getpixel((30, 20))  # type: ignore[misc]
        assert abs(red - 10 * one.number) <= 6
        assert max(green, blue) <= 6


def test_a_step_below_a_frame_takes_all(clip: str) -> None:
    assert len(list(frames(clip, Every.read("0.01s")))) == 25


@pytest.mark.parametrize("wrong", ["", "0", "0s", "1.5", "-1", "s", "1 s", "nan"])
def test_other_steps_are_refused(wrong: str) -> None:
    with pytest.raises(SettingError, match="every must be a number of frames"):
        Every.read(wrong)


def test_what_is_no_video_says_so(tmp_path: Path, clip: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (tmp_path / "cut.avi").write_bytes(Path(clip).read_bytes()[:300])
    for name in ("a.mp4", "cut.avi"):
        with pytest.raises(ImageError, match=r"video_unreadable: .* holds no video that can be read"):
            list(frames(str(tmp_path / name), Every.read("1")))
    (one,) = opened(str(tmp_path / "gone.mp4"), Every.read("1"))
    assert one.error.startswith("image_missing: ")


def test_a_video_of_another_file_system_is_fetched(clip: str) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/clip.avi", Path(clip).read_bytes())
    assert len(list(frames("memory://clip.avi", Every.read("10")))) == 3
    with pytest.raises(ImageError, match="cannot be fetched"):
        list(frames("memory://gone.avi", Every.read("10")))


def test_without_opencv_the_extra_is_named(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ExtraError, match=r"pip install 'llmdet-data\[video\]'"):
        list(frames(clip, Every.read("1")))
