"""Pairs of a chosen and a rejected completion as numbers, and the order of their batches, a function of (seed, step).

Sequence 2i is the chosen completion of pair i, 2i + 1 the rejected one. Legend: R rows, T positions, N trained tokens,
S sequences (two for each pair).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from tunix_rt.batches.batch import Batch, assemble, values_at, weighted_at
from tunix_rt.batches.encoded import REJECTED, EncodedDataset, Int32
from tunix_rt.batches.pack import Float64, Int64, few, pack
from tunix_rt.errors import DataError
from tunix_rt.models.folder import Float32


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """The pairs of one split as numbers, read from disk as needed."""

    ids: tuple[str, ...]
    """Trace ids, one for each pair."""
    lengths: Int64
    """int64 [S]: positions that each sequence takes in a row."""
    _both: tuple[EncodedDataset, EncodedDataset]

    @classmethod
    def open(cls, folder: Path) -> EncodedPairs:
        """Memory-map what `prepare` wrote of a split. Raises DataError if it is missing, truncated or has no losers."""
        chosen, rejected = EncodedDataset.open(folder), EncodedDataset.open(folder / REJECTED)
        if chosen.ids != rejected.ids:
            raise DataError(f"{folder}: not the same pairs as in {REJECTED}/; delete it to prepare it again")
        return cls(chosen.ids, np.stack([chosen.lengths, rejected.lengths], axis=1).reshape(-1), (chosen, rejected))

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.ids)

    def example(self, index: int) -> tuple[Int32, Int32, Float32]:
        """(tokens, targets, weights), each [N - 1], of a sequence: a position's target is the next token."""
        return self._both[index % 2].example(index // 2)


@dataclass(frozen=True, slots=True)
class PairBatch:
    """A batch, and where its sequences are in it."""

    batch: Batch
    """Its weights are a mask: 1 where a token is trained."""
    pairs: tuple[int, ...]
    """Numbers of the pairs in the dataset; sequences 2i and 2i + 1 of the batch are those of the i-th of them."""
    places: Int64
    """int64 [N]: flat positions of the trained tokens in [R, T], sequence by sequence."""
    sequence: Int64
    """int64 [N]: the sequence of each, not decreasing."""

    @property
    def indices(self) -> list[int]:
        """Number in the dataset of each of the S sequences."""
        return [2 * pair + member for pair in self.pairs for member in range(2)]

    @property
    def counts(self) -> Int64:
        """int64 [S]: number of trained tokens of each sequence."""
        return np.bincount(self.sequence, minlength=2 * len(self.pairs))

    def taken(self, values: Float32) -> Float64:
        """The values [R, T] of the trained tokens: [N]."""
        return values_at(values, self.places)

    def weighted(self, weights: Float64) -> Batch:
        """The batch whose trained tokens have these weights [N], to be summed without division."""
        return weighted_at(self.batch, self.places, weights)


def pair_batch(dataset: EncodedPairs, pairs: Sequence[int], row_length: int, packing: bool) -> PairBatch:
    """The sequences of `pairs`, packed into rows: as many as they need, rounded up to one of few numbers.

    Raises ConfigError if one is longer than a row.
    """
    indices = [2 * pair + member for pair in pairs for member in range(2)]
    packed = pack(dataset.lengths[indices], row_length, packing)
    shape = (few(len(packed)), row_length)
    batch = assemble(dataset, [[indices[one] for one in row] for row in packed], shape)
    mask = (batch.weights > 0).astype(np.float32)
    flat, found = mask.reshape(-1), [np.zeros(0, np.int64)] * len(indices)
    for place, row in enumerate(packed):
        start = place * row_length
        for one in row:
            end = start + int(dataset.lengths[indices[one]])
            found[one] = start + np.flatnonzero(flat[start:end])
            start = end
    sequence = np.repeat(np.arange(len(indices)), [len(part) for part in found])
    return PairBatch(replace(batch, weights=mask), tuple(pairs), np.concatenate(found), sequence)


class PairOrder:
    """Every batch of a training run on pairs, computed from (seed, step) alone.

    Each epoch has every pair once, in an order drawn from (seed, epoch). Each step takes the next `pairs_per_step` of
    the endless sequence, across epochs too; after `num_epochs` there are fewer. Both members are in the same step.
    """

    def __init__(
        self,
        dataset: EncodedPairs,
        row_length: int,
        packing: bool,
        pairs_per_step: int,
        seed: int,
        num_epochs: float | None,
    ) -> None:
        """Raises DataError if there is no pair, ConfigError if a completion is longer than a row."""
        if len(dataset) == 0:
            raise DataError("there is no pair to train on: the training split is empty")
        pack(dataset.lengths[[int(np.argmax(dataset.lengths))]], row_length, packing)
        self.dataset, self._seed, self._size = dataset, seed, pairs_per_step
        self._row_length, self._packing = row_length, packing
        # 1e-9: 0.1 * 30 pairs are 3 pairs, not 4 by floating-point rounding.
        self._end = None if num_epochs is None else math.ceil(num_epochs * len(dataset) - 1e-9)
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    @property
    def steps_per_epoch(self) -> float:
        """Number of steps in which each pair comes once."""
        return len(self.dataset) / self._size

    @property
    def num_steps(self) -> int | None:
        """Number of steps until `num_epochs` are over; None if endless."""
        return None if self._end is None else math.ceil(self._end / self._size)

    def batch_at(self, step: int) -> PairBatch:
        """The batch of step 0, 1, …"""
        return pair_batch(self.dataset, self._pairs_at(step), self._row_length, self._packing)

    def ids_at(self, step: int) -> list[str]:
        """Ids of the traces in that batch."""
        return [self.dataset.ids[pair] for pair in self._pairs_at(step)]

    def _pairs_at(self, step: int) -> list[int]:
        last, count = (step + 1) * self._size, len(self.dataset)
        places = range(step * self._size, last if self._end is None else min(last, self._end))
        return [int(self._epoch(place // count)[place % count]) for place in places]

    def _shuffled(self, epoch: int) -> Int64:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self.dataset))


def sequential_pairs(dataset: EncodedPairs, row_length: int, packing: bool, together: int) -> Iterator[PairBatch]:
    """Every pair once, some of them together, always in the same order."""
    for first in range(0, len(dataset), together):
        pairs = range(first, min(first + together, len(dataset)))
        yield pair_batch(dataset, pairs, row_length, packing)
