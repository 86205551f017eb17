"""Frames of videos, by OpenCV (extra `video`): its wheels bring an FFmpeg that is LGPL and reads what people have."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs
from PIL import Image

from llmdet.errors import ExtraError, ImageError, SettingError
from llmdet.images import MAX_PIXELS

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Every:
    """Which frames are taken: the first, and then one after so many frames or seconds."""

    step: float
    seconds: bool

    @classmethod
    def read(cls, text: str) -> Every:
        """`"30"` is every 30th frame, `"0.5s"` one for each half second. Raises SettingError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s?)", text.strip())
        step = float(found[1]) if found else 0.0
        if not found or step <= 0 or (not found[2] and step != int(step)):
            raise SettingError(
                f"every must be a number of frames, such as 30, or of seconds, such as 0.5s; got {text!r}"
            )
        return cls(step, bool(found[2]))


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video: its number from 0, and when it is shown."""

    number: int
    time_s: float
    image: Image.Image


def frames(url: str, every: Every) -> Iterator[Frame]:
    """The frames of a video file that are wanted, upright. Memory holds one of them.

    Raises ImageError for a file that holds no video, ExtraError where OpenCV is not installed.
    """
    cv2 = _opencv()
    with _local(url) as path:
        video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        try:
            yield from _taken(cv2, video, url, every)
        finally:
            video.release()


def _taken(cv2: Any, video: Any, url: str, every: Every) -> Iterator[Frame]:
    pixels = video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if pixels > MAX_PIXELS:
        raise ImageError("image_too_large", f"{url} has frames of {pixels:.0f} pixels, the limit is {MAX_PIXELS}")
    number, wanted = 0, 0.0
    while video.grab():  # decodes; only what is taken is converted
        time_s = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        place = time_s if every.seconds else number
        if place >= wanted - _ROUNDING:
            there, pixels_bgr = video.retrieve()
            if there:
                yield Frame(number, round(time_s, 3), Image.fromarray(pixels_bgr[:, :, ::-1].copy()))
            while wanted <= place + _ROUNDING:
                wanted += every.step
        number += 1
    if number == 0:
        raise ImageError("video_unreadable", f"{url} holds no video that can be read")


def _opencv() -> Any:
    # FFmpeg tells of every odd packet on standard error; what cannot be read is told by us.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    try:
        import cv2
    except ImportError as error:
        raise ExtraError.of("opencv-python-headless", "video") from error
    return cv2


@contextmanager
def _local(url: str) -> Iterator[str]:
    """The path of a file that FFmpeg can open; one that lies elsewhere is fetched for the time of the block."""
    fs, path = url_to_fs(url)
    protocols = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    if "file" in protocols:
        if not os.path.isfile(path):
            raise ImageError("image_missing", f"no readable file at {url}")
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "video")
        try:
            fs.get_file(path, copy)
        except Exception as error:  # every store has errors of its own
            raise ImageError("image_missing", f"{url} cannot be fetched: {error}") from error
        yield copy
