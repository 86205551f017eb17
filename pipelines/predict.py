"""predict: what a detector sees in pictures and videos, as JSON, COCO, ODVG and drawn boxes.

A few pictures are looked at in this process; with `workers` the same work is done by Ray's actors.
"""

from __future__ import annotations

import io
import posixpath
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from llmdet import files
from llmdet.boxes import fault
from llmdet.draw import draw_boxes
from llmdet.errors import SettingError
from llmdet.pseudo import suppress
from llmdet.questions import Question, ask
from pipelines.parts import Progress, Row, Workers, run_parts
from pipelines.pictures import Picture, addresses, is_video, opened
from pipelines.predictions import Prediction, write_coco, write_odvg, write_predictions
from pipelines.videos import Every

if TYPE_CHECKING:
    from PIL import Image

    from detector.predict import Detections, Detector

Format = Literal["pictures", "coco", "odvg"]
_PICTURES_PER_ITEM = 32  # of Ray; a video is an item of its own
_GPU_BATCH = 8
_SEEN = 300  # boxes of a picture from which those that are shown are chosen, as evaluations have


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Which boxes are shown, and what is written beside `predictions.json`."""

    threshold: float | None = None  # lowest score; None: the checkpoint's own, else that of its family, else 0.3
    top_k: int | None = None  # most boxes of a picture; None: 100, of a referring expression 1
    nms_iou: float | None = None  # of two boxes of one phrase that overlap more the better stays; None: both stay
    formats: tuple[Format, ...] = ("pictures",)  # "coco" and "odvg" also save the frames of videos
    every: str = "1s"  # of a video: a frame each so many seconds ("0.5s") or frames ("30")
    names_per_prompt: int | None = None  # None: as many as fit
    protocol: Literal["llmdet", "mm_grounding_dino"] = "llmdet"  # of referring expressions: see docs/predict.md
    captions: bool = False  # what the checkpoint's caption heads say of a picture and of each box that is shown
    batch_size: int | None = None  # pictures; None: 8 on a GPU, else 1
    workers: int = 0  # actors of Ray; 0: this process

    def check(self) -> PredictSettings:
        """The settings themselves. Raises SettingError."""
        for name in ("threshold", "nms_iou"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SettingError(f"predict: {name} must be from 0 to 1; got {value}")
        for name, least in {"top_k": 1, "names_per_prompt": 1, "batch_size": 1, "workers": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"predict: {name} must be at least {least}; got {value}")
        if unknown := set(self.formats) - set(get_args(Format)):
            raise SettingError(f"predict: formats are {', '.join(get_args(Format))}; got {', '.join(sorted(unknown))}")
        Every.read(self.every)
        return self


@dataclass(frozen=True, slots=True)
class PredictOutcome:
    """All pictures, in the order given, and the files that say the same."""

    images: list[Prediction]
    json: str
    seconds: float
    threshold: float
    written: list[str]  # the other files, drawn pictures apart


def predict(
    images: Sequence[str],
    question: Question | str,
    checkpoint: str,
    out: str,
    settings: PredictSettings | None = None,
    *,
    gpu: bool = False,
    progress: Progress | None = None,
) -> PredictOutcome:
    """Find what a question names (a text is a list of names: "dog . red cup .") in pictures, folders, lists and videos.

    Writes `<out>/predictions.json`; drawn pictures are `<out>/<picture>.jpg`, of videos `<out>/<video>/<frame>.jpg`,
    and never replace a picture. Raises SettingError for an empty text, MissingError when there is no picture, or when
    captions are wanted of a checkpoint that has no caption heads.
    """
    from detector.thresholds import threshold_of

    started = time.monotonic()
    settings = (settings or PredictSettings()).check()
    question = ask(question) if isinstance(question, str) else question
    if settings.captions:
        from detector.captions.start import settings_of

        settings_of(checkpoint)  # before actors start and pictures are opened
    urls = addresses(images, without=out)
    threshold = settings.threshold
    if threshold is None:
        threshold = threshold_of(checkpoint, question.mode)
    work = _Look(checkpoint, gpu, question, settings, threshold, files.absolute(out))
    found = _in_actors(work, _named(urls, out), progress) if settings.workers else _here(work, urls, out, progress)
    written = write_coco(out, question, found) if "coco" in settings.formats else []
    written += write_odvg(out, question, found) if "odvg" in settings.formats else []
    url = write_predictions(out, question, found, checkpoint=checkpoint, threshold=threshold)
    return PredictOutcome(found, url, round(time.monotonic() - started, 3), threshold, written)


_Named = tuple[str, str]  # the address of a picture, and what its drawing is called


def _here(work: _Look, urls: Sequence[str], out: str, progress: Progress | None) -> list[Prediction]:
    found: list[Prediction] = []
    seen = 0
    work.model  # noqa: B018  a checkpoint that is none is told before pictures are opened
    for one in work.look(_named(urls, out)):
        found.append(one)
        # Of a video only its end counts.
        seen += one.frame is None
        if progress:
            progress(min(seen, len(urls)), len(urls))
    return found


def _in_actors(work: _Look, named: Sequence[_Named], progress: Progress | None) -> list[Prediction]:
    from pipelines.cluster import cluster

    reads = [place for place in (work.checkpoint,) if files.exists(place)]
    count = work.settings.workers
    pool = Workers(count=count, num_gpus=1, items=1) if work.gpu else Workers(count=count, items=1)
    with cluster(work.out, reads=reads):
        rows = run_parts(_items(named), work, progress=progress, pool=pool)
    rows.sort(key=lambda row: row["index"])
    return [Prediction(**one) for row in rows for one in row["found"]]


def _items(named: Sequence[_Named]) -> list[Row]:
    """Units of work: neighbouring pictures, and each video alone."""
    groups: list[list[_Named]] = []
    for one in named:
        last = groups[-1] if groups else None
        if last and len(last) < _PICTURES_PER_ITEM and not is_video(one[0]) and not is_video(last[0][0]):
            last.append(one)
        else:
            groups.append([one])
    return [{"index": index, "named": group} for index, group in enumerate(groups)]


@dataclass(frozen=True)
class _Look:
    """The work on some pictures: open, find, draw. The detector is loaded where this is first used."""

    checkpoint: str
    gpu: bool
    question: Question
    settings: PredictSettings
    threshold: float
    out: str

    def __call__(self, item: Row) -> Row:
        found = self.look([(url, name) for url, name in item["named"]])
        return {"index": item["index"], "found": [asdict(one) for one in found]}

    @cached_property
    def model(self) -> Detector:
        from detector.predict import Detector

        return Detector.load(self.checkpoint, "cuda" if self.gpu else "cpu", captions=self.settings.captions)

    @property
    def _batch(self) -> int:
        return self.settings.batch_size or (_GPU_BATCH if self.gpu else 1)

    @property
    def _top_k(self) -> int:
        return self.settings.top_k or (1 if self.question.mode == "referring" else 100)

    def look(self, named: Sequence[_Named]) -> Iterator[Prediction]:
        """What is found in each picture, in order; memory holds one batch."""
        every = Every.read(self.settings.every)
        pictures = ((picture, name) for url, name in named for picture in opened(url, every))
        while batch := list(islice(pictures, self._batch)):
            answers = iter(self._find([one.image for one, _ in batch if one.image is not None]))
            for picture, name in batch:
                if picture.image is None:
                    yield Prediction(picture.url, [], [], [], [], [], error=picture.error)
                else:
                    yield self._prediction(picture, picture.image, name, next(answers))

    def _find(self, images: list[Image.Image]) -> list[Detections]:
        from detector.looks import find

        if not images:
            return []
        return find(
            self.model,
            images,
            self.question,
            top_k=max(_SEEN, self._top_k),
            threshold=self.threshold,
            batch_size=self._batch,
            names_per_prompt=self.settings.names_per_prompt,
            protocol=self.settings.protocol,
            keep=self.settings.captions,
        )

    def _prediction(self, picture: Picture, image: Image.Image, name: str, found: Detections) -> Prediction:
        rows = self._kept(found, image.size)
        labels = [int(found.labels[row]) for row in rows]
        boxes = [found.boxes[row].tolist() for row in rows]
        scores = [float(found.scores[row]) for row in rows]
        phrases = [self.question.phrases[label] for label in labels]
        spans = [list(self.question.spans[label]) for label in labels]
        caption, said = self.model.say(found.take(np.array(rows, np.int64))) if self.settings.captions else ("", [])
        stem = name if picture.frame is None else f"{name}/{picture.frame:06d}"
        drawn = ""
        if "pictures" in self.settings.formats:
            drawn = files.join(self.out, f"{stem}.jpg")
            files.write_bytes(drawn, _jpeg(draw_boxes(image, np.array(boxes), phrases, scores)))
        file = picture.url
        if picture.frame is not None and {"coco", "odvg"} & set(self.settings.formats):
            file = files.join(self.out, "frames", f"{stem}.jpg")
            files.write_bytes(file, _jpeg(image))
        seen = Prediction(
            picture.url, boxes, scores, phrases, spans, labels, *image.size, picture.frame, picture.time_s, file, drawn
        )
        return replace(seen, caption=caption, captions=said)

    def _kept(self, found: Detections, size: tuple[int, int]) -> list[int]:
        """Numbers of the boxes that are shown: those with a pixel, of each phrase without what `nms_iou` takes away."""
        rows = [row for row in range(len(found.scores)) if fault(tuple(found.boxes[row]), *size) is None]
        if self.settings.nms_iou is None:
            return rows[: self._top_k]
        kept: set[int] = set()
        for label in {int(found.labels[row]) for row in rows}:
            mine = np.array([row for row in rows if found.labels[row] == label])
            kept |= set(mine[suppress(found.boxes[mine], found.scores[mine], self.settings.nms_iou)].tolist())
        return [row for row in rows if row in kept][: self._top_k]


def _named(urls: Sequence[str], out: str) -> list[_Named]:
    """Addresses with the names of their drawings, each name once: two folders may hold the same one.

    A drawing never lies over a picture, where `out` is the folder of the pictures.
    """
    place = files.absolute(out).rstrip("/")
    taken = {posixpath.basename(url) for url in urls if posixpath.dirname(files.absolute(url)) == place}
    named = []
    for url in urls:
        stem = posixpath.splitext(posixpath.basename(url.split("?", 1)[0] if "://" in url else url))[0] or "picture"
        name, number = stem, 2
        while f"{name}.jpg" in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(f"{name}.jpg")
        named.append((url, name))
    return named


def _jpeg(picture: Image.Image) -> bytes:
    sink = io.BytesIO()
    options: dict[str, Any] = {"quality": 92}
    picture.save(sink, "JPEG", **options)
    return sink.getvalue()
