"""Detection over many images with Ray actors; what evaluate, quickstart and later stages share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llmdet import files
from llmdet.errors import ImageError
from llmdet.record import Orientation
from pipelines.cluster import ray_data, workers
from pipelines.parts import Packed, Progress, Row, collect

if TYPE_CHECKING:
    from PIL import Image

IMAGES_PER_TASK = 32


@dataclass(frozen=True, slots=True)
class Query:
    """One image, what to look for in it, and with which checkpoint."""

    checkpoint: str
    image: str  # address
    names: tuple[str, ...]
    key: Any = None  # comes back with the answer
    orientation: Orientation = "stored"
    size: tuple[int, int] | None = None  # width and height as annotated: the orientation that gives them is taken
    top_k: int = 300  # (box, name) pairs kept
    names_per_prompt: int | None = None  # None: as many as fit

    @property
    def shared(self) -> tuple[object, ...]:
        """What queries of one batch have in common."""
        return self.checkpoint, self.names, self.top_k, self.names_per_prompt


@dataclass(frozen=True, slots=True)
class Found:
    """What a detector found for a query; boxes are xyxy pixels, best first."""

    key: Any
    boxes: list[list[float]]
    scores: list[float]
    labels: list[int]
    error: str = ""  # why the image could not be used


def detect(
    queries: Sequence[Query],
    *,
    threshold: float = 0.0,
    gpu: bool = False,
    progress: Progress | None = None,
) -> list[Found]:
    """Answers to all queries, in their order. Needs a running Ray (`pipelines.cluster`)."""
    groups = _groups(queries)
    if not groups:
        return []
    rows = [{"item": _packed(number, group)} for number, group in enumerate(groups)]
    actors = min(workers(), len(groups))
    data = ray_data()
    dataset = data.from_items(rows, override_num_blocks=len(rows)).map(
        _Actor,
        fn_constructor_args=(threshold,),
        compute=data.ActorPoolStrategy(size=actors),
        num_gpus=1 if gpu else None,
    )
    answers = sorted(collect(dataset, len(groups), progress), key=lambda row: row["number"])
    return [Found(**found) for answer in answers for found in answer["found"]]


def _groups(queries: Sequence[Query]) -> list[list[Query]]:
    """Neighbouring queries that can share prompts and a batch."""
    groups: list[list[Query]] = []
    for query in queries:
        last = groups[-1] if groups else None
        if last and len(last) < IMAGES_PER_TASK and last[0].shared == query.shared:
            last.append(query)
        else:
            groups.append([query])
    return groups


def _packed(number: int, group: list[Query]) -> bytes:
    import orjson

    return orjson.dumps({"number": number, "queries": [asdict(query) for query in group]})


class _Actor:
    """Holds the detectors that it was asked for."""

    def __init__(self, threshold: float) -> None:
        # Ray gives a worker with one CPU one thread (OMP_NUM_THREADS), so actors do not fight for cores.
        self._threshold = threshold
        self._detectors: dict[str, Any] = {}
        self._packed = Packed(self._answer, unpack=True)

    def __call__(self, row: Row) -> Row:
        return self._packed(row)

    def _answer(self, item: Row) -> Row:
        from detector.predict import Detector

        queries = [Query(**query) for query in item["queries"]]
        folder = queries[0].checkpoint
        if folder not in self._detectors:
            self._detectors[folder] = Detector.load(folder)
        images, usable, found = [], [], {}
        for number, query in enumerate(queries):
            try:
                images.append(_opened(query))
                usable.append(number)
            except ImageError as error:
                found[number] = Found(query.key, [], [], [], str(error))
        options = {"top_k": queries[0].top_k, "names_per_prompt": queries[0].names_per_prompt}
        model = self._detectors[folder]
        answers = model.detect(images, tuple(queries[0].names), threshold=self._threshold, **options) if images else []
        for number, answer in zip(usable, answers, strict=True):
            key = queries[number].key
            found[number] = Found(key, answer.boxes.tolist(), answer.scores.tolist(), answer.labels.tolist())
        return {"number": item["number"], "found": [asdict(found[number]) for number in range(len(queries))]}


def _opened(query: Query) -> Image.Image:
    """The photo in the orientation that has the annotated size. Raises ImageError, size_mismatch where none has it."""
    from llmdet.images import open_image, open_sized

    if query.size is None:
        return open_image(query.image, query.orientation)
    width, height = query.size
    return open_sized(query.image, (width, height), query.orientation)


def image_url(folder: str, name: str) -> str:
    """The address of an annotated photo. Raises ImageError for a name that leaves the folder."""
    return files.safe_join(files.absolute(folder), name)
