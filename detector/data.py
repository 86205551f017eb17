"""Records to batches: which record comes when, its photo and prompt as tensors.

The order is a function of (seed, epoch) and a step's records a function of the step, so a run that was stopped
continues with the very batches it would have had.
"""

# B images   N boxes   T text tokens

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from detector import denoising, text
from detector.config import DataSettings, TrainSettings
from detector.criterion import Targets, pad_targets
from detector.denoising import Denoising
from detector.pixels import Pixels, pad_pixels
from detector.words import Words, words_of
from llmdet import boxes as bx
from llmdet.errors import ImageError, MissingError
from llmdet.files import safe_join
from llmdet.images import open_image
from llmdet.record import Box, Record, Region, from_batch
from llmdet.workspace import Table

log = logging.getLogger(__name__)

Draw = tuple[int, int]  # epoch, row
PATIENCE = 64  # unusable photos in a row after which training stops
DECODED_ROWS = 20_000  # of a table up to this size, records are kept decoded: reading one alone takes a millisecond


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


class RecordTable:
    """Records of a folder of parquet parts (those of its manifest, where it has one).

    Those of a large folder stay in Arrow and are decoded one at a time. Raises MissingError where there are none.
    """

    def __init__(self, folder: str) -> None:
        table = Table(folder.rstrip("/"))
        manifest = table.manifest()
        # A merge that was killed leaves parts beside those of the manifest.
        names = [part.name for part in manifest.parts] if manifest else table.listing()
        tables = [table.read(name) for name in names]
        self.batches: list[pa.RecordBatch] = [batch for table in tables for batch in table.to_batches() if len(batch)]
        self.ends = np.cumsum([len(batch) for batch in self.batches], dtype=np.int64)
        if not self.batches:
            raise MissingError(f"training needs records in {folder}/part-*.parquet; none are there. Run merge first.")
        small = int(self.ends[-1]) <= DECODED_ROWS
        self.decoded = [record for batch in self.batches for record in from_batch(batch)] if small else None

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int) -> Record:
        if self.decoded is not None:
            return self.decoded[row]
        part = int(np.searchsorted(self.ends, row, side="right"))
        start = int(self.ends[part - 1]) if part else 0
        return from_batch(self.batches[part].slice(row - start, 1))[0]


class GroundingDataset(Dataset[Sample]):
    """Samples by (epoch, row). A record whose photo cannot be used is named in a warning; the next row takes its place.

    Negatives drawn anew for each epoch would be added to a record's text in `sample`, before the prompt is built.
    """

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
        self.warned: set[str] = set()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, draw: Draw) -> Sample:
        epoch, row = draw
        reasons: list[str] = []
        for offset in range(min(PATIENCE, len(self))):
            record = self.table[(row + offset) % len(self)]
            try:
                return self.sample(record, (self.seed, epoch, row))
            except ImageError as error:
                reasons.append(f"{record.id}: {error}")
                self._warn(f"photo skipped in training: {record.id}: {error}")
        raise MissingError(f"{len(reasons)} photos in a row cannot be used, the last one {reasons[-1]}")

    def sample(self, record: Record, seed: tuple[int, ...]) -> Sample:
        """One record as arrays. Raises ImageError where its photo cannot be used."""
        pixels = self.pixels(open_image(self._address(record), record.orientation))
        encoded, boxes, region, chosen = targets_of(record, self.tokenizer, self.limit)
        if encoded.lost:
            lost = [" / ".join(record.regions[number].phrases) for number in encoded.lost]
            self._warn(f"{record.id}: phrases beyond the limit of {self.limit} tokens take no part: {lost}")
        words = words_of(record, chosen, self.settings.region_target, seed)
        return Sample(record.id, pixels, encoded.ids, boxes, encoded.tokens[region], seed, words)

    def _address(self, record: Record) -> str:
        if record.root not in self.roots:
            raise MissingError(f"record {record.id} has its photo under {record.root!r}; known: {sorted(self.roots)}")
        return safe_join(self.roots[record.root], record.image)

    def _warn(self, message: str) -> None:
        if message not in self.warned:
            self.warned.add(message)
            log.warning(message)


def targets_of(
    record: Record, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[text.Encoded, NDArray[np.float32], NDArray[np.int64], list[tuple[Region, Box]]]:
    """Prompt, usable boxes (N, 4) cxcywh in 0..1, the number of each one's region, (N,), and region and box themselves.

    Boxes are clipped to the image. Crowds, and boxes of phrases that the token limit cut off together with their text,
    are left out: what the prompt does not name is not asked for.
    """
    encoded = text.encode(tokenizer, text.from_text(record.text, [region.spans for region in record.regions]), limit)
    pairs = [
        (box, number)
        for number, region in enumerate(record.regions)
        for box in region.boxes
        if number not in encoded.lost and not box.crowd and bx.fault(box.xyxy, record.width, record.height) is None
    ]
    corners = np.array([box.xyxy for box, _ in pairs], dtype=np.float64).reshape(-1, 4)
    xyxy = bx.clip(corners, record.width, record.height)
    size = np.array([record.width, record.height], dtype=np.float64)
    boxes = np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2 / size, (xyxy[:, 2:] - xyxy[:, :2]) / size], axis=1)
    chosen = [(record.regions[number], box) for box, number in pairs]
    return encoded, boxes.astype(np.float32), np.array([number for _, number in pairs], dtype=np.int64), chosen


@dataclass(frozen=True, slots=True)
class StepSampler(Sampler[list[Draw]]):
    """Rows of each step for one process: the stream of all epochs, cut into steps, each step cut into processes."""

    rows: int
    settings: TrainSettings
    first: int = 0  # step to start with
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[Draw]]:
        share = self.settings.batch_size // self.world
        order, shown = np.zeros(0, dtype=np.int64), -1
        for step in range(self.first, self.settings.steps):
            draws = []
            for place in range(share):
                position = step * self.settings.batch_size + self.rank * share + place
                epoch, rest = divmod(position, self.rows)
                if epoch != shown:
                    order, shown = epoch_order(self.rows, self.settings.seed, epoch), epoch
                draws.append((epoch, int(order[rest])))
            yield draws

    def __len__(self) -> int:
        return max(0, self.settings.steps - self.first)


def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of rows in an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(rows)


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
        noise = denoising.build(boxes, [s.seed for s in samples], self.queries, self.settings.denoising)
        names, words = tuple(sample.id for sample in samples), tuple(sample.words for sample in samples)
        return Batch(names, pixel_values, pixel_mask, input_ids, attention_mask, targets, noise, words)


def pad_ids(ids: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, (B, T) both; 0 is padding."""
    width = max(len(row) for row in ids)
    padded = np.zeros((len(ids), width), dtype=np.int64)
    mask = np.zeros((len(ids), width), dtype=np.int64)
    for number, row in enumerate(ids):
        padded[number, : len(row)], mask[number, : len(row)] = row, 1
    return torch.from_numpy(padded), torch.from_numpy(mask)


def loader(dataset: GroundingDataset, sampler: StepSampler, queries: int, readers: int) -> DataLoader[Batch]:
    """Batches in the order of the sampler; `readers` processes open photos ahead of time."""
    collate = Collate(sampler.settings, queries)
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=readers,
    )
