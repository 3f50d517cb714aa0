"""Keys and values of the positions so far, of every row of a batch at a place of its own, and attention over them.

What a row that has left wrote stays until another takes its place: a prompt that begins alike copies it.
Legend: R rows, n those in use, H query heads, K key and value heads, S positions of the cache, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends.torch.attention import look
from tunix_rt.backends.torch.copies import on_device
from tunix_rt.models.families.architecture import Architecture

GROWTH = 1.25
"""By what the positions are multiplied where they do not suffice: growing copies all that is there."""
CALL = 1 << 20
"""Bytes of keys and values that are read in the time of one more call, on the CPU (60 us, measured)."""
BLOCK = 512
"""Queries that are masked at a time: what is held grows with T, not with T²."""
Lengths = np.ndarray[Any, np.dtype[np.int64]]


class Cache:
    """Memory for `num_rows` rows, grown where a row needs more positions."""

    def __init__(self, architecture: Architecture, num_rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self.architecture, self.device = architecture, device
        shape = (num_rows, architecture.num_kv_heads, 0, architecture.head_dim)
        self._layers = [
            tuple(torch.empty(shape, dtype=dtype, device=device) for _ in ("keys", "values"))
            for _ in architecture.layers
        ]
        self._length = 0

    def reserve(self, length: int) -> None:
        """Make room for `length` positions a row."""
        if length <= self._length:
            return
        before, self._length = self._length, max(length, int(self._length * GROWTH))
        for layer, both in enumerate(self._layers):
            self._layers[layer] = tuple(_longer(x, before, self._length) for x in both)

    def stored(self, layer: int) -> tuple[Tensor, ...]:
        """Keys and values of a layer, [R, K, S, D] each, to be written to."""
        return self._layers[layer]

    def copy(self, source: int, to: int, length: int) -> None:
        """Copy the first positions of a row to another."""
        for x in (x for both in self._layers for x in both):
            x[to, :, :length] = x[source, :, :length]

    def exchange(self, one: int, other: int, length: int) -> None:
        """Let two rows change places, up to `length` positions."""
        for x in (x for both in self._layers for x in both):
            kept = x[one, :, :length].clone()
            x[one, :, :length] = x[other, :, :length]
            x[other, :, :length] = kept


def _longer(x: Tensor, before: int, length: int) -> Tensor:
    rows, heads, _, width = x.shape
    found = _zeros(x, (rows, heads, length, width))  # what is masked must be a number: 0 * NaN is NaN
    found[:, :, :before] = x
    return found


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """On the CPU memory that is there once it is written to: torch would write the zeros."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, np.float32))
    return like.new_zeros(shape)


@dataclass(frozen=True, slots=True)
class Run:
    """Prompts in rows beside one another, of as many tokens each, after as many that are in the cache."""

    row: int
    """The first of the rows."""
    rows: int
    begin: int
    """The position of the first token that is read."""
    length: int

    @property
    def end(self) -> int:
        """The position after the last one."""
        return self.begin + self.length


def runs_of(rows: Sequence[tuple[int, int, int]]) -> list[Run]:
    """From each row's number, first and last position: as few runs as possible, in this order."""
    found: list[Run] = []
    for row, begin, end in rows:
        last = found[-1] if found else None
        if last is not None and (last.row + last.rows, last.begin, last.end) == (row, begin, end):
            found[-1] = Run(last.row, last.rows + 1, begin, end - begin)
        else:
            found.append(Run(row, 1, begin, end - begin))
    return found


class Reading:
    """How prompts behind one another, without padding, attend to themselves and to what the cache has before them."""

    def __init__(self, cache: Cache, runs: list[Run]) -> None:
        self._cache, self._runs = cache, runs
        self._sizes = [run.rows * run.length for run in runs]

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`queries` [1, H, N, D], `keys` and `values` [1, K, N, D] of all tokens that are read; writes these two."""
        stored = self._cache.stored(layer)
        parts = (torch.split(x[0], self._sizes, dim=1) for x in (queries, keys, values))
        read = [self._run(layer, stored, run, *part) for run, *part in zip(self._runs, *parts, strict=True)]
        return torch.cat(read, dim=1)[None]

    def _run(
        self, layer: int, stored: tuple[Tensor, ...], run: Run, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        shape = self._cache.architecture
        queries, keys, values = (
            x.view(len(x), run.rows, run.length, -1).transpose(0, 1) for x in (queries, keys, values)
        )
        for whole, new in zip(stored, (keys, values), strict=True):
            whole[run.row : run.row + run.rows, :, run.begin : run.end] = new
        window, group = shape.layers[layer].window, shape.num_heads // shape.num_kv_heads
        if run.begin == 0 and shape.score_cap is None and (window is None or window >= run.length):
            found = look(queries, _repeated(keys, group), _repeated(values, group), None, True, shape)
        else:
            blocks = range(run.begin, run.end, BLOCK)
            found = torch.cat([self._block(stored, run, queries, window, first) for first in blocks], dim=2)
        return found.transpose(0, 1).flatten(1, 2)

    def _block(self, stored: tuple[Tensor, ...], run: Run, queries: Tensor, window: int | None, first: int) -> Tensor:
        """At most BLOCK queries from position `first` on: they see their row's positions, not ahead, in the window."""
        shape, last = self._cache.architecture, min(first + BLOCK, run.end)
        begin = 0 if window is None else max(0, first + 1 - window)
        places = torch.arange(begin, last, device=queries.device)
        here = torch.arange(first, last, device=queries.device)[:, None]
        seen = places <= here if window is None else (places <= here) & (places > here - window)
        keys, values = (x[run.row : run.row + run.rows, :, begin:last] for x in stored)
        group = shape.num_heads // shape.num_kv_heads
        asked = queries[:, :, first - run.begin : last - run.begin]
        return look(asked, _repeated(keys, group), _repeated(values, group), seen, False, shape)


def _repeated(x: Tensor, group: int) -> Tensor:
    """[R, K, T, D] → [R, H, T, D]: each head for all queries of its group."""
    return x if group == 1 else x.repeat_interleave(group, dim=1)


_View = tuple[slice, slice, Tensor | None]
"""Rows, the positions that any of them sees, and, if they differ, which of these each one sees."""


class Decoding:
    """How one new position of each of the rows 0 … n - 1 attends to its own row, up to that position."""

    def __init__(self, cache: Cache, positions: Lengths) -> None:
        """`positions` [n], of the new tokens: rows of like lengths should be beside one another."""
        self._cache, self._positions = cache, positions
        _, heads, length, _ = cache.stored(0)[0].shape
        places = np.arange(len(positions) * heads).reshape(-1, heads) * length + positions[:, None]
        self._places = on_device(places.reshape(-1), cache.device)
        self._views: dict[int | None, list[_View]] = {}

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`queries` [n, H, 1, D], `keys` and `values` [n, K, 1, D]; writes these two."""
        stored, shape = self._cache.stored(layer), self._cache.architecture
        rows, heads, _, width = queries.shape
        for whole, new in zip(stored, (keys, values), strict=True):
            whole.view(-1, width).index_copy_(0, self._places, new.reshape(-1, width))
        grouped = queries.reshape(rows, keys.shape[1], -1, width)
        window = shape.layers[layer].window
        if window not in self._views:
            self._views[window] = list(self._seen(window))
        found = [
            look(grouped[part], stored[0][part, :, read], stored[1][part, :, read], mask, False, shape)
            for part, read, mask in self._views[window]
        ]
        return (found[0] if len(found) == 1 else torch.cat(found)).reshape(rows, heads, 1, width)

    def _seen(self, window: int | None) -> Iterator[_View]:
        ends = self._positions + 1
        starts = np.zeros_like(ends) if window is None else np.maximum(ends - window, 0)
        for part in self._parts(ends - starts):
            read = slice(int(starts[part].min()), int(ends[part].max()))
            places = np.arange(read.start, read.stop)
            seen = (places >= starts[part][:, None]) & (places < ends[part][:, None])
            yield part, read, None if seen.all() else self._mask(on_device(seen, self._cache.device)[:, None, None])

    def _parts(self, lengths: Lengths) -> list[slice]:
        """Rows that attend together: where reading more in vain would take longer than a call, another begins."""
        if self._cache.device.type != "cpu":
            return [slice(0, len(lengths))]
        keys = self._cache.stored(0)[0]
        least = CALL // (2 * keys.shape[1] * keys.shape[3] * keys.element_size())
        starts, longest = [0], 0
        for row, length in enumerate(lengths.tolist()):
            in_vain = max(0, length - longest) * (row - starts[-1]) + max(0, longest - length)
            if in_vain > least:
                starts.append(row)
                longest = 0
            longest = max(longest, length)
        return [slice(*ends) for ends in pairwise([*starts, len(lengths)])]

    def _mask(self, seen: Tensor) -> Tensor:
        """As torch's kernel on the CPU takes it: it would turn bool into float32 in every layer."""
        if self._cache.device.type != "cpu" or self._cache.architecture.score_cap is not None:
            return seen
        return torch.zeros(seen.shape).masked_fill_(~seen, -torch.inf)
