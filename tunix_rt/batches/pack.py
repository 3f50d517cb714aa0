"""Lengths → rows: which traces share a row, and how long a row should be. Handles numbers only."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tunix_rt.errors import ConfigError

Int64 = np.ndarray[Any, np.dtype[np.int64]]
Float64 = np.ndarray[Any, np.dtype[np.float64]]
Lengths = Sequence[int] | Int64
Rows = Sequence[Sequence[int]]

MULTIPLE = 8
"""Row lengths are multiples of this, for vector units."""
CANDIDATES = 32
SAMPLE = 2000
LOOKS = 300
"""Most lengths tried to fill a row exactly: usually a few are enough, this bounds the time otherwise."""
NOISES = (1.0, 0.3, 0.1)
"""Noise in the order in which `repack` tries lengths; it uses the first that needs no more rows than there are."""
EXCHANGES = 50
"""Rounds in `repack` in which each row may exchange items with another."""


def pack(lengths: Lengths, row_length: int, packing: bool) -> list[list[int]]:
    """Distribute items over rows of `row_length` positions; returns the indices in each row.

    Takes the better of two heuristics: rows filled exactly one after the other, and best-fit decreasing.
    Without `packing`, one item per row. Deterministic. Raises ConfigError if an item does not fit into a row.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    longest = int(sizes.max(initial=0))
    if longest > row_length:
        raise ConfigError(
            f"training.row_length: {row_length}, but the longest trace takes {longest} positions; "
            "raise it (null chooses it), or lower dataset.max_length with dataset.on_overlong"
        )
    if not packing:
        return [[index] for index in range(len(sizes))]
    return min(_filled(sizes, row_length), _best_fit(sizes, row_length), key=len)


def repack(rows: Rows, lengths: Lengths, row_length: int, generator: np.random.Generator) -> list[list[int]]:
    """Combine the same items differently, as far as they fit, in as many rows; random by `generator`.

    Rows are filled again, with lengths tried in a noisy order (less noise if that needs too many rows); then items
    of different length swap places if both rows have space.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    tried = (_filled(sizes, row_length, generator.standard_normal, noise) for noise in NOISES)
    found = next((found for found in tried if len(found) <= len(rows)), [list(row) for row in rows])
    while len(found) < len(rows):
        found.append([max(found, key=len).pop()])
    _exchange(found, sizes, row_length, generator)
    return found


def _exchange(rows: list[list[int]], sizes: Int64, row_length: int, generator: np.random.Generator) -> None:
    """Swap random items of random pairs of rows if they fit."""
    size: list[int] = sizes.tolist()
    space = [row_length - sum([size[item] for item in row]) for row in rows]
    for _ in range(EXCHANGES):
        places = generator.permutation(len(rows)).tolist()
        # Two long lists: thousands of short ones would set off Python's collector, which looks at all of a framework.
        ones, others = generator.random((len(rows), 2)).T.tolist()
        for left, right, one, other in zip(places, places[1:], ones, others, strict=False):
            mine, theirs = rows[left], rows[right]
            at, to = int(one * len(mine)), int(other * len(theirs))
            longer = size[mine[at]] - size[theirs[to]]
            if -space[left] <= longer <= space[right]:
                mine[at], theirs[to] = theirs[to], mine[at]
                space[left] += longer
                space[right] -= longer


def _filled(
    sizes: Int64, row_length: int, draw: Callable[[int], Float64] = np.zeros, noise: float = 0.0
) -> list[list[int]]:
    """Each row: the longest item left, then those that fill the rest best (the minimum bin slack heuristic,
    Gupta & Ho 1999, Production Planning & Control 10(6)), the longer ones tried first.

    In that order each length is scaled by 1 + `noise` * what `draw` returns.
    """
    left: dict[int, deque[int]] = {}  # length → items of it, lengths descending
    for index in np.argsort(-sizes, kind="stable").tolist():
        left.setdefault(int(sizes[index]), deque()).append(index)
    descending = np.array(list(left), dtype=np.int64)
    order = descending[np.argsort(-descending * (1 + noise * draw(len(descending))), kind="stable")]
    tried = {size: left[size] for size in order.tolist()}
    rows = []
    while left:
        longest = next(iter(left))
        row = []
        for size in (longest, *_best_sum(tried, longest, row_length - longest)):
            row.append(left[size].popleft())
            if not left[size]:
                del left[size], tried[size]
        rows.append(row)
    return rows


def _best_sum(left: dict[int, deque[int]], longest: int, space: int) -> list[int]:
    """Lengths, the first of `left` first, whose sum comes closest to `space` from below.

    Subset sums are bits of one integer: bit s of `sums` is set when s can be reached. The longest item,
    which opens the row, is still in `left`, so one fewer of its length is available.
    """
    sums, full = 1, 1 << space
    added: list[tuple[int, int]] = []  # (length, the sums without it)
    for size, items in left.items():
        for _ in range(min(len(items) - (size == longest), space // size)):
            grown = (sums | sums << size) & (2 * full - 1)
            if grown == sums:
                break
            added.append((size, sums))
            sums = grown
        if sums & full or len(added) > LOOKS:
            break
    rest = sums.bit_length() - 1
    chosen = []
    for size, before in reversed(added):
        if not before >> rest & 1:
            chosen.append(size)
            rest -= size
    return chosen


def _best_fit(sizes: Int64, row_length: int) -> list[list[int]]:
    """The longest item first, each into the fullest row that still takes it (Johnson et al. 1974,
    doi 10.1137/0203025: never more than 11/9 of the optimum and a few rows).
    """
    rows: list[list[int]] = []
    by_space: dict[int, list[int]] = {}  # space left → rows with exactly that much
    spaces: list[int] = []  # its keys, sorted
    for index in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[index])
        place = bisect_left(spaces, size)
        if place == len(spaces):
            row, space = len(rows), row_length
            rows.append([])
        else:
            space = spaces[place]
            row = by_space[space].pop()
            if not by_space[space]:
                del by_space[space], spaces[place]
        rows[row].append(index)
        if space - size not in by_space:
            insort(spaces, space - size)
        by_space.setdefault(space - size, []).append(row)
    return rows


def round_up(length: int) -> int:
    """The next row length that is a multiple of `MULTIPLE`."""
    return -(-length // MULTIPLE) * MULTIPLE


def choose_row_length(lengths: Lengths, hidden_size: int) -> int:
    """The row length, a multiple of 8 from the longest item to four times that, with the lowest expected cost.

    Cost = rows * T * (1 + T / (1.6 * hidden_size)): the matrices cost the same for every position; attention
    grows with T, and with it what a packed row spends on positions of other traces (fitted to CPU timings
    of masked dense attention at width 64, rows of 69 to 552). For a large set a sample is used.
    """
    ordered = np.sort(np.asarray(lengths, dtype=np.int64))
    sample = ordered[np.linspace(0, len(ordered) - 1, min(len(ordered), SAMPLE)).astype(np.int64)]
    shortest = round_up(int(ordered[-1])) // MULTIPLE
    candidates = np.unique(np.linspace(shortest, 4 * shortest, CANDIDATES).astype(np.int64)) * MULTIPLE

    def cost(row_length: int) -> float:
        return len(_best_fit(sample, row_length)) * row_length * (1 + row_length / (1.6 * hidden_size))

    return int(min(candidates.tolist(), key=cost))


def few(size: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, …: powers of two and the numbers halfway between them."""
    power = 1 << (max(size, 1) - 1).bit_length()
    return power * 3 // 4 if power > 2 and size <= power * 3 // 4 else power
