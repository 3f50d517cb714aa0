"""Fewer rows at once where the memory of a device is short: the same update in more micro-batches. Framework-free.

Sums are over all rows, so the loss differs by rounding only. A backend passes what may be repeated: what raises
OutOfMemory before it has changed anything (weights, moments, donated buffers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from tunix_rt.backends.fold import Fold
from tunix_rt.errors import OutOfMemory

T = TypeVar("T")


class HasRows(Protocol):
    """What is used of a backend."""

    rows_at_once: int | None
    may_shrink: bool
    """Whether it may lower `rows_at_once` by itself: `hardware.local_batch_size` is `auto`."""


def shrinking(
    backend: HasRows,
    num_rows: int,
    attempt: Callable[[Fold], T],
    num_row_ranks: int = 1,
    any_failed: Callable[[bool], bool] = bool,
) -> T:
    """`attempt` of `num_rows` rows, and again with half as many at once as long as memory is short.

    `any_failed`: whether an attempt failed on any process, from whether it did on this one. Every process asks once
    after each attempt, so that all of them decide alike; within an attempt none may wait for another (where it does,
    since weights are sharded, `may_shrink` is false). Raises OutOfMemory if one row is too much, or if it may not
    shrink.
    """
    while True:
        fold = Fold.of(num_rows, backend.rows_at_once, num_row_ranks)
        if not backend.may_shrink:
            return attempt(fold)
        found, full = _attempted(attempt, fold)
        if not any_failed(full is not None):
            return found[0]
        if fold.local_rows == 1:
            raise OutOfMemory(full or "the memory of another device is full with a single row")
        found.clear()
        backend.rows_at_once = fold.local_rows // 2


def _attempted(attempt: Callable[[Fold], T], fold: Fold) -> tuple[list[T], str | None]:
    """What it returns, in a list; or the message of its error, without the frames that still hold its tensors."""
    try:
        return [attempt(fold)], None
    except OutOfMemory as error:
        return [], str(error)


def fewer_rows(fold: Fold, length: int) -> str:
    """The setting to lower, and to what: `hardware.local_batch_size to 4 (now 8 rows of 512 tokens at once)`."""
    now = f"now {fold.local_rows} rows of {length} tokens at once"
    return f"hardware.local_batch_size to {max(1, fold.local_rows // 2)} ({now})"
