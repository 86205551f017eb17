"""Which record comes when.

The order of an epoch is a function of (seed, epoch) and the records of a step a function of the step, so a run that
was stopped continues with the very batches it would have had, whatever the number of reader processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch.utils.data import Sampler

from detector.config import DataSettings, TrainSettings
from detector.records import RecordTable
from llmdet.errors import SettingError

Draw = tuple[int, ...]  # epoch, row, and which copy of it where the epoch has several and this is not the first


@dataclass(frozen=True, slots=True)
class Order:
    """The rows of each epoch in their order. Without weights and groups, each of `rows` once.

    A row of weight 2.5 comes twice or three times in an epoch, by chance. Where `upright` says which photos are higher
    than wide, every batch is of one kind, but for the last few rows of either kind, which share batches; an
    epoch is filled up to whole batches then, with rows of its beginning.
    """

    rows: int
    seed: int
    batch: int
    weights: NDArray[np.float64] | None = None  # of each row
    upright: NDArray[np.bool_] | None = None  # of each row

    @property
    def length(self) -> int:
        """Draws of an epoch."""
        drawn = (
            self.rows if self.weights is None else sum(_count(self.weights == w, w) for w in _different(self.weights))
        )
        return drawn if self.upright is None else math.ceil(drawn / self.batch) * self.batch

    @property
    def learned(self) -> list[int]:
        """The rows that come at all."""
        return list(range(self.rows)) if self.weights is None else np.flatnonzero(self.weights).tolist()

    def epoch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of an epoch and which copy each one is, (length,) both."""
        rng = np.random.default_rng((self.seed, number))
        if self.weights is None:
            rows = rng.permutation(self.rows)
            copies = np.zeros_like(rows)
        else:
            rows, copies = _weighted(self.weights, rng)
        if self.upright is not None:
            order = _grouped(self.upright[rows], self.batch, rng)
            rows, copies = rows[order], copies[order]
        return rows, copies


def order_of(table: RecordTable, settings: TrainSettings) -> Order:
    """The order of a table's rows under the settings.

    Raises SettingError for weights that cannot be meant, and where all rows are held out.
    """
    data = settings.data
    weights = _of_splits(table, data, _weights(table, data) if data.weights else None)
    upright = _upright(table) if data.group_by_aspect else None
    return Order(len(table), settings.seed, settings.batch_size, weights, upright)


@dataclass(frozen=True, slots=True)
class StepSampler(Sampler[list[Draw]]):
    """Rows for one process: the stream of all epochs, cut into steps, a step into processes, and their share into the
    `accumulate` batches that are computed one after another."""

    order: Order
    settings: TrainSettings
    first: int = 0  # step to start with
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[Draw]]:
        share, length = self.settings.batch_size // self.world, self.order.length
        rows = copies = np.zeros(0, dtype=np.int64)
        shown = -1
        for step in range(self.first, self.settings.steps):
            draws: list[Draw] = []
            for place in range(share):
                epoch, rest = divmod(step * self.settings.batch_size + self.rank * share + place, length)
                if epoch != shown:
                    (rows, copies), shown = self.order.epoch(epoch), epoch
                copy = int(copies[rest])
                draws.append((epoch, int(rows[rest]), *([copy] if copy else [])))
            size = share // self.settings.accumulate
            yield from (draws[start : start + size] for start in range(0, share, size))

    def __len__(self) -> int:
        return max(0, self.settings.steps - self.first) * self.settings.accumulate


def _weighted(weights: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows, each as often as its weight says, and which copy each one is; shuffled."""
    rows, copies = [], []
    for weight in _different(weights):
        own = np.flatnonzero(weights == weight)
        whole, count = int(weight), _count(weights == weight, weight)
        rows += [np.tile(own, whole), rng.choice(own, count - whole * len(own), replace=False)]
        copies.append(np.arange(count) // len(own))
    order = rng.permutation(sum(map(len, copies)))
    return np.concatenate(rows)[order], np.concatenate(copies)[order]


def _different(weights: NDArray[np.float64]) -> list[float]:
    return [float(weight) for weight in np.unique(weights) if weight]


def _count(own: NDArray[np.bool_], weight: float) -> int:
    """How often the rows of one weight come in an epoch, together."""
    return round(weight * int(own.sum()))


def _grouped(upright: NDArray[np.bool_], batch: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of draws, arranged so that batches are of one kind as far as that goes; batches in random order."""
    kinds = [np.flatnonzero(upright), np.flatnonzero(~upright)]
    whole = [places[: len(places) // batch * batch] for places in kinds]
    rest = np.sort(np.concatenate([places[len(pure) :] for places, pure in zip(kinds, whole, strict=True)]))
    order = np.concatenate([*whole, rest])
    filled = np.concatenate([order, np.resize(order, -len(order) % batch)])
    return rng.permutation(filled.reshape(-1, batch), axis=0).reshape(-1)


def _weights(table: RecordTable, data: DataSettings) -> NDArray[np.float64]:
    wrong = {name: weight for name, weight in data.weights.items() if not (math.isfinite(weight) and weight >= 0)}
    if wrong:
        raise SettingError(f"data.weights must be numbers from 0 on; got {wrong}")
    sources = pa.concat_tables([rows.select(["source"]) for rows in table.columns("source")])["source"]
    known = sources.unique().to_pylist()
    unknown = sorted(set(data.weights) - set(known))
    if unknown:
        raise SettingError(f"data.weights names sources that are not there: {unknown}; there are {sorted(known)}")
    numbers = sources.combine_chunks().dictionary_encode()
    by_source = np.array([data.weights.get(name, 1.0) for name in numbers.dictionary.to_pylist()], dtype=np.float64)
    weights = by_source[numbers.indices.to_numpy()]
    if not Order(len(weights), 0, 1, weights).length:
        raise SettingError(f"data.weights {data.weights} leave nothing to train on; there are {sorted(known)}")
    return weights


def _of_splits(
    table: RecordTable, data: DataSettings, weights: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """The weights, and 0 for rows of splits that are held out. None where every row counts the same."""
    if not data.splits:
        return weights
    column = pa.concat_tables([rows.select(["split"]) for rows in table.columns("split")])["split"]
    learned = pc.is_in(column, pa.array(data.splits, column.type)).to_numpy()
    if learned.all():
        return weights
    kept = learned * (1.0 if weights is None else weights)
    if not Order(len(kept), 0, 1, kept).length:
        there = sorted(column.unique().to_pylist())
        raise SettingError(f"data.splits {list(data.splits)} leave nothing to train on; the records are of {there}")
    return kept


def _upright(table: RecordTable) -> NDArray[np.bool_]:
    sizes = pa.concat_tables([rows.select(["width", "height"]) for rows in table.columns("width", "height")])
    return np.asarray(sizes["width"].to_numpy() < sizes["height"].to_numpy())
