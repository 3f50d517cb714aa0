"""The batch that every backend takes, and the order of batches as a pure function of (seed, step)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from tunix_rt.batches.encoded import EncodedDataset, Int32
from tunix_rt.batches.pack import Float64, Int64, Rows, pack, repack
from tunix_rt.errors import DataError
from tunix_rt.models.folder import Float32


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays [R, T]: R rows of one update, on all devices together, T positions. Targets are shifted per trace.

    A backend folds them into micro-batches (`backends/fold.py`).
    """

    tokens: Int32
    """0 in padding."""
    targets: Int32
    """The next token of the same trace; 0 in padding."""
    positions: Int32
    """Restart at 0 with each trace."""
    segments: Int32
    """1, 2, … per trace in a row; 0 is padding. Attention never crosses segments."""
    weights: Float32
    """0 if the position is not a target; negative where it is to become less likely."""
    divisor: float
    """The loss is the sum of -weight * log-probability over all targets, divided by this number (> 0)."""

    def __post_init__(self) -> None:
        if not 0 < self.divisor < math.inf:
            raise ValueError(f"the divisor of a batch is {self.divisor}: it must be positive and finite")

    def with_arrays(self, change: Callable[[Any], Any]) -> Batch:
        """The batch with each of its arrays changed."""
        arrays = {name: change(getattr(self, name)) for name in self.__slots__ if name != "divisor"}
        return replace(self, **arrays)

    @classmethod
    def supervised(cls, tokens: Int32, targets: Int32, positions: Int32, segments: Int32, weights: Float32) -> Batch:
        """A batch whose loss is the mean over its targets, by weight (none negative); 0 if there is no target."""
        return cls(tokens, targets, positions, segments, weights, float(weights.sum(dtype=np.float64)) or 1.0)


class Examples(Protocol):
    """Sequences as numbers."""

    @property
    def lengths(self) -> Int64:
        """int64 [n]: positions that each takes in a row."""

    def example(self, index: int) -> tuple[Int32, Int32, Float32]:
        """(tokens, targets, weights) of one, each as long as that."""


def values_at(values: np.ndarray[Any, Any], places: Int64) -> Float64:
    """Of values [R, T] those at flat places int64 [N]."""
    return values.reshape(-1)[places].astype(np.float64)


def weighted_at(batch: Batch, places: Int64, weights: Float64) -> Batch:
    """`batch` with weights [N] at flat places and 0 elsewhere, to be summed without division; those of one place are
    added."""
    flat = np.bincount(places, weights, batch.tokens.size).astype(np.float32)
    return replace(batch, weights=flat.reshape(batch.tokens.shape), divisor=1.0)


def assemble(dataset: Examples, rows: Rows, shape: tuple[int, int]) -> Batch:
    """Fill arrays of `shape` [R, T] with `rows` of trace indices. If there are fewer than R, the last ones stay empty
    (segments 0).
    """
    tokens, targets, positions, segments = (np.zeros(shape, dtype=np.int32) for _ in range(4))
    weights = np.zeros(shape, dtype=np.float32)
    for place, row in enumerate(rows):
        start = 0
        for segment, index in enumerate(row, start=1):
            end = start + int(dataset.lengths[index])
            span = (place, slice(start, end))
            tokens[span], targets[span], weights[span] = dataset.example(index)
            positions[span] = np.arange(end - start)
            segments[span] = segment
            start = end
    return Batch.supervised(tokens, targets, positions, segments, weights)


class BatchOrder:
    """Every batch of a training run, computed from (seed, step) alone: resuming replays nothing.

    The traces are packed once, and repacked into as many rows for each later epoch. In each epoch traces of equal
    length swap places and the rows are shuffled, from random streams of (seed, epoch): every trace comes exactly
    once per epoch. Each step takes the next rows of the endless sequence, across epochs too; after
    `num_epochs` rows are empty.
    """

    def __init__(
        self,
        dataset: EncodedDataset,
        row_length: int,
        packing: bool,
        rows: int,
        seed: int,
        num_epochs: float | None,
    ) -> None:
        """`rows`: of a step. Raises DataError if there is no trace, ConfigError if one is longer than a row."""
        if len(dataset) == 0:
            raise DataError("there is no trace to train on: the training split is empty")
        self._dataset, self._packing, self._seed = dataset, packing, seed
        self._row_length, self._size = row_length, rows
        self._first = pack(dataset.lengths, row_length, packing)
        self.num_rows = len(self._first)
        """Number of rows in one epoch."""
        # 1e-9: 0.1 * 30 rows are 3 rows, not 4 by floating-point rounding.
        self._end = None if num_epochs is None else math.ceil(num_epochs * self.num_rows - 1e-9)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    @property
    def steps_per_epoch(self) -> float:
        """Number of steps in which each trace comes once."""
        return self.num_rows / self._size

    @property
    def num_steps(self) -> int | None:
        """Number of steps until `num_epochs` are over, the last perhaps with empty rows; None if endless."""
        return None if self._end is None else math.ceil(self._end / self._size)

    def batch_at(self, step: int) -> Batch:
        """The batch of step 0, 1, …"""
        return assemble(self._dataset, self._rows_at(step), (self._size, self._row_length))

    def ids_at(self, step: int) -> list[str]:
        """Ids of the traces in that batch, row by row."""
        return [self._dataset.ids[index] for row in self._rows_at(step) for index in row]

    def _rows_at(self, step: int) -> list[list[int]]:
        last = (step + 1) * self._size
        places = range(step * self._size, last if self._end is None else min(last, self._end))
        return [self._epoch(place // self.num_rows)[place % self.num_rows] for place in places]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        lengths, pattern = self._dataset.lengths, self._first
        if epoch > 0 and self._packing:
            pattern = repack(pattern, lengths, self._row_length, np.random.default_rng([self._seed, epoch, 1]))
        generator = np.random.default_rng([self._seed, epoch])
        keys = generator.random(len(lengths))
        filled = np.empty(len(lengths), dtype=np.int64)
        filled[np.argsort(lengths[np.concatenate(pattern)], kind="stable")] = np.lexsort((keys, lengths))
        rows = [part.tolist() for part in np.split(filled, np.cumsum([len(row) for row in pattern])[:-1])]
        return [rows[place] for place in generator.permutation(self.num_rows)]


def sequential_batches(dataset: EncodedDataset, row_length: int, packing: bool, rows: int) -> Iterator[Batch]:
    """Every trace once, in batches [rows, row_length], always in the same order; the last may have empty rows."""
    packed = pack(dataset.lengths, row_length, packing)
    for first in range(0, len(packed), rows):
        yield assemble(dataset, packed[first : first + rows], (rows, row_length))
