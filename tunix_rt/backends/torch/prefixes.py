"""What the rows of a cache hold, by token: which of them begins as a prompt does. On the host; no tensors.

Legend: R rows, S positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tunix_rt.backends.torch.cache import GROWTH
from tunix_rt.batches.encoded import Int32

LEAST = 16
"""Tokens in common that are worth a copy and a pass of their own, unless they are all but the last one."""
Int64 = np.ndarray[Any, np.dtype[np.int64]]


class Prefixes:
    """Tokens of each row, and how many of its positions are in the cache."""

    def __init__(self, num_rows: int) -> None:
        self._tokens = np.zeros((num_rows, 0), np.int64)
        self.lengths: Int64 = np.zeros(num_rows, np.int64)
        self._promised: Int64 = np.zeros(num_rows, np.int64)
        """Positions of rows that are about to be read; 0: none."""
        self._left: Int64 = np.zeros(num_rows, np.int64)
        """When the row was left; 0: it was never used."""
        self._clock = 0

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens a row."""
        before = self._tokens.shape[1]
        if length > before:
            missing = max(length, int(before * GROWTH)) - before
            self._tokens = np.pad(self._tokens, ((0, 0), (0, missing)))

    def find(self, prompt: Int32) -> tuple[int, int] | None:
        """The row with most of what `prompt` begins with, and how much of it (0: too little); None: wait for another.

        The last token is never part of it, since what follows it is to be known.
        """
        limit = len(prompt) - 1
        if limit == 0:
            return 0, 0
        worth = min(LEAST, limit)
        rows = np.flatnonzero((self._tokens[:, :worth] == prompt[:worth]).all(axis=1))
        if not len(rows):
            return 0, 0
        same = self._tokens[rows, :limit] == prompt[:limit]
        common = np.where(same.all(axis=1), limit, same.argmin(axis=1))
        held, promised = np.minimum(common, self.lengths[rows]), np.minimum(common, self._promised[rows])
        row, length, later = int(rows[held.argmax()]), int(held.max()), int(promised.max())
        if later >= length + worth:
            return None
        return row, length if length >= worth else 0

    def begin(self, row: int, prompt: Int32) -> None:
        """The row is about to be read, and holds nothing else from now on."""
        self._tokens[row, : len(prompt)] = prompt
        self.lengths[row], self._promised[row] = 0, len(prompt)

    def end(self) -> None:
        """Every row that was begun will have been read when the next prompt is looked for."""
        self.lengths = np.maximum(self.lengths, self._promised)
        self._promised[:] = 0

    def extend(self, tokens: Int64) -> None:
        """One more token for each of the first rows."""
        rows = np.arange(len(tokens))
        self._tokens[rows, self.lengths[rows]] = tokens
        self.lengths[rows] += 1

    def left(self, row: int) -> None:
        """The row's request has ended."""
        self._clock += 1
        self._left[row] = self._clock

    def oldest(self, begin: int) -> int:
        """Of the rows from `begin` on the one that was left first."""
        return begin + int(self._left[begin:].argmin())

    def exchange(self, one: int, other: int) -> None:
        """Let two rows change places."""
        for x in (self._tokens, self.lengths, self._left):
            x[[one, other]] = x[[other, one]]
