"""Attention over the keys and values of the positions so far, in generation.

Legend: B rows, P prompts, T positions of the queries, H query heads, K key and value heads, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunix_rt.backends.torch.attention import Packed, look
from tunix_rt.batches.encoded import Int32
from tunix_rt.models.families.architecture import Architecture


class Cache:
    """Keys and values of the positions so far, in memory allocated once. Rows are padded on the left,
    so that all of them write to the same column.
    """

    def __init__(self, segments: Int32, architecture: Architecture, capacity: int, owners: Tensor) -> None:
        """`segments` int32 [P, T] of the left-padded prompts; `capacity`: columns of the full cache.

        `owners` int64 [B]: the prompt of each row of the cache.
        """
        self._architecture = architecture
        self._segments = segments
        self._owners = owners
        self._starts = (segments == 0).sum(axis=1)
        self._capacity = capacity
        self._stored: list[tuple[Tensor, Tensor] | None] = [None] * architecture.num_layers
        self._packed: Packed | None = None
        self._mask: Tensor | None = None
        self._length = 0

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The first call of a layer takes the prompts, each later one a single position."""
        stored = self._stored[layer]
        if stored is None:
            return self._prefill(layer, queries, keys, values)
        if layer == 0:
            self._length += 1
        end = self._length
        for whole, new in zip(stored, (keys, values), strict=True):
            whole[:, :, end - 1 : end] = new
        rows, heads, _, width = queries.shape
        grouped = queries.view(rows, keys.shape[1], -1, width)
        window = self._architecture.layers[layer].window
        begin = 0 if window is None else max(0, end - window)
        mask = None if self._mask is None else self._mask[..., begin:end]
        past_keys, past_values = (x[:, :, begin:end] for x in stored)
        out = look(grouped, past_keys, past_values, mask, False, self._architecture)
        return out.reshape(rows, heads, 1, width)

    def _prefill(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if self._packed is None:
            self._packed = Packed(self._segments, self._architecture, keys.device)
            self._length = keys.shape[2]
            if self._starts.any():
                columns = torch.arange(self._capacity, device=keys.device)
                starts = torch.from_numpy(self._starts).to(keys.device)
                self._mask = (columns >= starts[self._owners][:, None])[:, None, None, :]
        self._stored[layer] = (self._reserve(keys, self._owners), self._reserve(values, self._owners))
        return self._packed(layer, queries, keys, values)

    def _reserve(self, filled: Tensor, rows: Tensor) -> Tensor:
        """The cache of `rows` (int64 indices) of `filled` [B, K, T, D]."""
        _, heads, length, width = filled.shape
        whole = filled.new_empty(len(rows), heads, self._capacity, width)
        whole[:, :, :length] = filled[rows]
        return whole

    def keep(self, rows: Tensor) -> None:
        """Drop all rows except `rows` (int64 indices)."""
        for layer, stored in enumerate(self._stored):
            if stored is not None:
                keys, values = (self._reserve(x[:, :, : self._length], rows) for x in stored)
                self._stored[layer] = (keys, values)
        if self._mask is not None:
            self._mask = self._mask[rows]
