"""Records to batches: photo, prompt and boxes as tensors, and what is to be said of them.

A sample is a function of the seed and its draw (epoch and row), so batches are the same whatever the number of reader
processes, and when a run that was stopped goes on.
"""

# B images   N boxes   T text tokens

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from detector import denoising, text
from detector.config import DataSettings, TrainSettings
from detector.criterion import Targets, pad_targets
from detector.denoising import Denoising
from detector.mirror import mirror
from detector.pixels import Pixels, pad_pixels
from detector.prompts import Prompts
from detector.records import RecordTable, names_by_source
from detector.samplers import Draw, StepSampler
from detector.words import Words, words_of
from llmdet import boxes as bx
from llmdet.errors import ImageError, LlmdetError, MissingError
from llmdet.files import safe_join
from llmdet.images import open_image
from llmdet.record import Box, Record, Region

log = logging.getLogger(__name__)

Note = tuple[str, str]  # what it is about, said once each; and one line for a person
UNTOLD = "no caption"  # a note about records that are not asked for where captions are off
PATIENCE = 64  # unusable photos in a row after which training stops
NOISED = 1000  # denoising queries that an image may have: what they cost grows with their square
STREAM = 2  # of the random numbers of a sample; denoising draws from the seed itself, the words from stream 1


@dataclass(frozen=True, slots=True)
class TrainData:
    """Where records (a folder of `part-*.parquet`) and photos (root name -> folder) are; paths or fsspec URLs."""

    records: str
    roots: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One record ready for the model: pixels (3, H, W), prompt tokens, boxes (N, 4) cxcywh in 0..1 and their tokens."""

    id: str
    pixels: NDArray[np.float32]
    ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    tokens: NDArray[np.bool_]
    seed: tuple[int, ...]
    words: Words
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step sees; `names` are the ids of its records, `words` what is to be said of each of them."""

    names: tuple[str, ...]
    pixel_values: Tensor
    pixel_mask: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    targets: Targets
    noise: Denoising | None
    words: tuple[Words, ...]
    notes: tuple[Note, ...] = ()

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            pixel_values=self.pixel_values.to(device, non_blocking=True),
            pixel_mask=self.pixel_mask.to(device, non_blocking=True),
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            targets=self.targets.to(device),
            noise=None if self.noise is None else self.noise.to(device),
        )


class GroundingDataset(Dataset[Sample]):
    """Samples by draw. A record whose photo cannot be used is named in a note; the next row takes its place."""

    def __init__(
        self,
        data: TrainData,
        tokenizer: PreTrainedTokenizerBase,
        pixels: Pixels,
        limit: int,
        seed: int,
        settings: DataSettings | None = None,
    ) -> None:
        self.table = RecordTable(data.records)
        self.roots = data.roots
        self.tokenizer, self.pixels, self.limit, self.seed = tokenizer, pixels, limit, seed
        self.settings = settings or DataSettings()
        names = names_by_source(self.table) if self.settings.negatives == "dynamic" else None
        self.prompts = Prompts(tokenizer, limit, names, self.settings.negative_names)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, draw: Draw) -> Sample:
        row = draw[1]
        notes: list[Note] = []
        for offset in range(min(PATIENCE, len(self))):
            record = self.table[(row + offset) % len(self)]
            try:
                sample = self.sample(record, (self.seed, *draw))
            except ImageError as error:
                notes.append((record.id, f"photo skipped in training: {record.id}: {error}"))
                continue
            return replace(sample, notes=(*notes, *sample.notes))
        raise MissingError(f"{len(notes)} photos in a row cannot be used; {notes[-1][1]}")

    def sample(self, record: Record, seed: tuple[int, ...]) -> Sample:
        """One record as arrays. Raises ImageError where its photo cannot be used."""
        rng = np.random.default_rng((*seed, STREAM))
        mirrored = mirror(record) if self.settings.flip and rng.random() < self.settings.flip else None
        sized = self._sized(rng)
        shown = self.prompts(mirrored or record, rng)
        image = open_image(self._address(record), record.orientation)
        pixels = sized(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image)
        encoded, boxes, region, chosen = targets_of(shown, self.tokenizer, self.limit)
        words = words_of(shown, chosen, self.settings.region_target, seed)
        cut = self.prompts.names is None and shown.text != (mirrored or record).text
        notes = tuple(_notes(record, len(boxes), cut))
        return Sample(record.id, pixels, encoded.ids, boxes, encoded.tokens[region], seed, words, notes)

    def _sized(self, rng: np.random.Generator) -> Pixels:
        """The pixel settings of one sample."""
        sides = self.settings.short_sides
        short = sides[int(rng.integers(len(sides)))] if sides else self.pixels.short_side
        return replace(self.pixels, short_side=short, long_side=self.settings.long_side or self.pixels.long_side)

    def _address(self, record: Record) -> str:
        if record.root not in self.roots:
            raise MissingError(f"record {record.id} has its photo under {record.root!r}; known: {sorted(self.roots)}")
        return safe_join(self.roots[record.root], record.image)


def _notes(record: Record, used: int, cut: bool) -> Iterator[Note]:
    """What a person should know of a record of which `used` boxes became targets, and whose text may have been cut."""
    if not record.captions:
        yield UNTOLD, f"{record.id} and maybe others have no image caption: they take no part in that loss"
    count = sum(map(_usable(record), (box for region in record.regions for box in region.boxes)))
    if not count:
        yield "no box", f"{record.id} and maybe others have no box: they teach what is absent only"
    if used < count:
        yield (
            record.id,
            f"{record.id}: {count - used} of {count} boxes are left out of a sample (others of the next): the text is "
            "longer than the model reads, so a sample has some of its phrases",
        )
    elif cut:
        yield record.id, f"{record.id}: the text is longer than the model reads, so a sample has some of its sentences"


def _usable(record: Record) -> Callable[[Box], bool]:
    return lambda box: not box.crowd and bx.fault(box.xyxy, record.width, record.height) is None


def targets_of(
    record: Record, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[text.Encoded, NDArray[np.float32], NDArray[np.int64], list[tuple[Region, Box]]]:
    """Prompt, usable boxes (N, 4) cxcywh in 0..1, the number of each one's region, (N,), and region and box themselves.

    Boxes are clipped to the image. Crowds, and boxes of phrases that the token limit cut off together with their text,
    are left out: what the prompt does not name is not asked for.
    """
    encoded = text.encode(tokenizer, text.from_text(record.text, [region.spans for region in record.regions]), limit)
    usable = _usable(record)
    pairs = [
        (box, number)
        for number, region in enumerate(record.regions)
        for box in region.boxes
        if number not in encoded.lost and usable(box)
    ]
    corners = np.array([box.xyxy for box, _ in pairs], dtype=np.float64).reshape(-1, 4)
    xyxy = bx.clip(corners, record.width, record.height)
    size = np.array([record.width, record.height], dtype=np.float64)
    boxes = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2 / size, (xyxy[:, 2:] - xyxy[:, :2]) / size], axis=1)
    chosen = [(record.regions[number], box) for box, number in pairs]
    return encoded, boxes.astype(np.float32), np.array([number for _, number in pairs], dtype=np.int64), chosen


@dataclass(frozen=True, slots=True)
class Collate:
    """Samples to a batch; `queries` is the number of ordinary queries of the model."""

    settings: TrainSettings
    queries: int

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        pixel_values, pixel_mask = pad_pixels([sample.pixels for sample in samples])
        input_ids, attention_mask = pad_ids([sample.ids for sample in samples])
        boxes = [sample.boxes for sample in samples]
        targets = pad_targets(boxes, [sample.tokens for sample in samples], input_ids.shape[1])
        most = NOISED // max(2 * self.settings.denoising.groups, 1)  # boxes, of which each group has two copies
        noisy = [some[: min(most, self.queries)] for some in boxes]
        noise = denoising.build(noisy, [s.seed for s in samples], self.queries, self.settings.denoising)
        names, words = tuple(sample.id for sample in samples), tuple(sample.words for sample in samples)
        notes = tuple(note for sample in samples for note in self._notes(sample))
        return Batch(names, pixel_values, pixel_mask, input_ids, attention_mask, targets, noise, words, notes)

    def _notes(self, sample: Sample) -> Iterator[Note]:
        yield from (note for note in sample.notes if self.settings.captions or note[0] != UNTOLD)
        if len(sample.boxes) > self.queries:
            yield (
                f"{sample.id} queries",
                f"{sample.id} has {len(sample.boxes)} boxes, more than the {self.queries} queries of the model",
            )


def pad_ids(ids: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, (B, T) both; 0 is padding."""
    width = max(len(row) for row in ids)
    padded = np.zeros((len(ids), width), dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for number, row in enumerate(ids):
        padded[number, : len(row)], mask[number, : len(row)] = row, 1
    return torch.from_numpy(padded), torch.from_numpy(mask)


class Batches:
    """Batches in the order of a sampler. What is to be known of their records is logged, each thing once."""

    def __init__(self, source: DataLoader[Batch]) -> None:
        self.source = source
        self.said: set[str] = set()

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._read():
            for about, line in batch.notes:
                if about not in self.said:
                    self.said.add(about)
                    log.warning(line)
            yield batch

    def _read(self) -> Iterator[Batch]:
        """The batches. Of an error in a reader its own line is raised, without the pages that torch puts before it."""
        try:
            yield from self.source
        except LlmdetError as error:
            line = str(error).strip().splitlines()[-1]
            raise type(error)(line.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")) from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise LlmdetError(
                f"a process that opens photos has died ({str(error).splitlines()[0]}); is there enough memory, and "
                "room in /dev/shm? settings.readers: 0 does without such processes"
            ) from error


def loader(dataset: GroundingDataset, sampler: StepSampler, queries: int, readers: int) -> Batches:
    """Batches in the order of the sampler; `readers` processes open photos ahead of time."""
    return Batches(
        DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=Collate(sampler.settings, queries),
            num_workers=readers,
        )
    )
