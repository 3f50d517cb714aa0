"""Prompts and what was sampled → rows: arrays [R, T] of few shapes, and where each sampled token is in them.

Legend: R rows, T positions, N sampled tokens of all sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tunix_rt.batches.batch import Batch, values_at, weighted_at
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.pack import Float64, Int64, few, pack, round_up
from tunix_rt.objectives.interface import Bool


@dataclass(frozen=True, slots=True)
class RowShape:
    """What stays the same in all batches of a training."""

    length: int
    """T."""
    packing: bool
    """Several sequences may share a row."""


def row_length(longest_prompt: int, max_new_tokens: int, max_positions: int) -> int:
    """The row length in which any prompt and its longest answer fit."""
    return round_up(min(longest_prompt + max_new_tokens, max_positions) - 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """Sequences in rows."""

    batch: Batch
    """All weights are 0."""
    places: Int64
    """int64 [N]: where each sampled token is a target, in the flat arrays; sequence after sequence. The tokens of equal
    sequences have one place."""

    def weighted(self, weights: Float64) -> Batch:
        """The batch with the weights of the sampled tokens, [N]; those of one place are added. Prompts have none."""
        return weighted_at(self.batch, self.places, weights)

    def mask(self) -> Batch:
        """The batch with weight 1 at each sampled token: to ask for their log-probabilities."""
        flat = np.zeros(self.batch.tokens.size, np.float32)
        flat[self.places] = 1
        return replace(self.batch, weights=flat.reshape(self.batch.tokens.shape))

    def first_rows(self, count: int) -> tuple[Layout, Bool]:
        """The first rows alone, as far as there are so many, and which sampled tokens are in them [N]."""
        whole = self.batch
        shown: Bool = self.places < whole.tokens[:count].size
        return Layout(whole.with_arrays(lambda array: array[:count]), self.places[shown]), shown

    def of_sampled(self, values: np.ndarray[Any, Any]) -> Float64:
        """The values of sampled tokens [N] among those of all positions [R, T]."""
        return values_at(values, self.places)


def lay_out(prompts: Sequence[Int32], sampled: Sequence[Int32], shape: RowShape) -> Layout:
    """Put each prompt with what was sampled after it (int32 [n] each, n ≥ 1) into rows.

    Equal answers to one prompt are put there once: the sum of their losses is the loss with the sum of their weights.
    The surer a model is, the more of its answers are equal.
    """
    pairs = list(zip(prompts, sampled, strict=True))
    first: dict[tuple[bytes, bytes], int] = {}
    same_as = [first.setdefault((prompt.tobytes(), ids.tobytes()), index) for index, (prompt, ids) in enumerate(pairs)]
    distinct = list(first.values())
    lengths = [len(prompt) + len(ids) - 1 for prompt, ids in pairs]
    packed = pack([lengths[index] for index in distinct], shape.length, shape.packing)
    rows = [[distinct[place] for place in row] for row in packed]
    arrays = (few(len(rows)), shape.length)
    filled = np.zeros((4, *arrays), np.int32)
    tokens, targets, positions, segments = filled.reshape(4, -1)
    places = [np.zeros(0, np.int64)] * len(prompts)
    for number, row in enumerate(rows):
        start = number * shape.length
        for segment, index in enumerate(row, start=1):
            sequence, end = np.concatenate([prompts[index], sampled[index]]), start + lengths[index]
            tokens[start:end], targets[start:end] = sequence[:-1], sequence[1:]
            positions[start:end], segments[start:end] = np.arange(lengths[index]), segment
            places[index] = np.arange(start + len(prompts[index]) - 1, end)
            start = end
    batch = Batch(filled[0], filled[1], filled[2], filled[3], np.zeros(arrays, np.float32), divisor=1.0)
    return Layout(batch, np.concatenate([np.zeros(0, np.int64), *(places[index] for index in same_as)]))
