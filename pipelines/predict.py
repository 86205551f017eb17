"""predict: what a detector sees in pictures, as JSON and as drawn boxes."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmdet import files
from llmdet.draw import draw_boxes
from llmdet.errors import ImageError, MissingError, SettingError
from llmdet.images import open_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was found in one picture: boxes are xyxy pixels, best first."""

    image: str
    boxes: list[list[float]]
    scores: list[float]
    phrases: list[str]
    drawn: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class PredictOutcome:
    """All pictures, in the order given, and the JSON file that says the same."""

    images: list[Prediction]
    json: str
    seconds: float


def predict(
    images: Sequence[str], text: str, checkpoint: str, out: str, *, threshold: float = 0.3, top_k: int = 100
) -> PredictOutcome:
    """Find what `text` names ("dog . red cup .") in pictures or folders of pictures.

    Writes `<out>/<picture>.jpg` with the boxes drawn (under another name where that would replace a picture), and
    `<out>/predictions.json`. Runs in this process: a few pictures do not need a cluster. Raises SettingError for an
    empty text, MissingError when there is no picture.
    """
    from detector.predict import Detector
    from detector.text import split_names

    started = time.monotonic()
    names = tuple(split_names(text))
    if not names:
        raise SettingError('--text names nothing to look for; expected names such as "dog . red cup ."')
    pictures = list(_pictures(images))
    if not pictures:
        raise MissingError(f"no pictures in {', '.join(images)}")
    model = Detector.load(checkpoint)
    # Never over the pictures themselves, where `out` is their folder.
    drawn_names = {posixpath.basename(url) for url in pictures if posixpath.dirname(files.absolute(url)) == _bare(out)}
    found = []
    for url in pictures:
        try:
            picture = open_image(url, "applied")
        except ImageError as error:
            found.append(Prediction(url, [], [], [], error=str(error)))
            continue
        answer = model.detect([picture], names, top_k=top_k, threshold=threshold)[0]
        drawn = files.join(out, _free_name(url, drawn_names))
        files.write_bytes(
            drawn, _jpeg(draw_boxes(picture, np.asarray(answer.boxes), answer.phrases, list(answer.scores)))
        )
        found.append(Prediction(url, answer.boxes.tolist(), answer.scores.tolist(), list(answer.phrases), drawn))
    url = files.join(out, "predictions.json")
    files.write_json(url, {"text": text, "threshold": threshold, "images": found})
    return PredictOutcome(found, url, round(time.monotonic() - started, 3))


def _pictures(images: Sequence[str]) -> Iterator[str]:
    """Files as they are, folders as the pictures in them, sorted."""
    from fsspec.core import url_to_fs

    for url in images:
        fs, path = url_to_fs(url)
        if not fs.isdir(path):
            yield url
            continue
        for entry in sorted(fs.find(path)):
            if posixpath.splitext(entry)[1].lower() in SUFFIXES:
                yield fs.unstrip_protocol(entry) if "://" in url else entry


def _bare(folder: str) -> str:
    return files.absolute(folder).rstrip("/")


def _free_name(url: str, taken: set[str]) -> str:
    """`<stem>.jpg`, numbered where the name is taken: two folders may hold the same one."""
    stem = posixpath.splitext(posixpath.basename(url))[0]
    name, number = f"{stem}.jpg", 2
    while name in taken:
        name, number = f"{stem}-{number}.jpg", number + 1
    taken.add(name)
    return name


def _jpeg(picture: object) -> bytes:
    import io

    from PIL import Image

    assert isinstance(picture, Image.Image)
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=92)
    return sink.getvalue()
