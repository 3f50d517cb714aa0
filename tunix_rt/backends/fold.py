"""The rows of an update → micro-batches of devices. The mathematics does not know of it: sums are over all rows.

Row r = (a * D + d) * L + l is row l of micro-batch a on device d. Legend: R rows, A micro-batches, D devices with
different rows, L rows of a device at once, T positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunix_rt.batches.batch import Batch

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Fold:
    """How R rows are laid out. The last rows are empty where A * D * L is more than R."""

    num_rows: int
    micro_batches: int
    num_row_ranks: int
    local_rows: int

    @classmethod
    def of(cls, num_rows: int, rows_at_once: int | None, num_row_ranks: int = 1) -> Fold:
        """As few micro-batches as possible, all of the same size, with at most `rows_at_once` rows of a device."""
        each = -(-num_rows // num_row_ranks)
        micro_batches = 1 if rows_at_once is None else -(-each // rows_at_once)
        return cls(num_rows, micro_batches, num_row_ranks, -(-each // micro_batches))

    @property
    def empty_rows(self) -> int:
        """Rows that are computed for nothing."""
        return self.micro_batches * self.num_row_ranks * self.local_rows - self.num_rows

    def every(self, values: Array) -> Array:
        """[R, …] → [A, D, L, …], with zeros in the empty rows."""
        if self.empty_rows:
            values = np.concatenate([values, np.zeros((self.empty_rows, *values.shape[1:]), values.dtype)])
        return values.reshape(self.micro_batches, self.num_row_ranks, self.local_rows, *values.shape[1:])

    def local(self, batch: Batch, row_rank: int = 0) -> Batch:
        """The batch of one device: arrays [A, L, T]; the divisor stays that of the whole."""
        return batch.with_arrays(lambda array: self.every(array)[:, row_rank])

    def rows(self, row_rank: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 [A, L]: the number in the whole batch of each row of a device; of empty ones those that follow."""
        total = self.num_rows + self.empty_rows
        shape = (self.micro_batches, self.num_row_ranks, self.local_rows)
        return np.arange(total, dtype=np.int64).reshape(shape)[:, row_rank]
