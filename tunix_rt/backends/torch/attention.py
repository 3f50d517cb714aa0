"""Attention over packed rows. Holds no weights.

Legend: B rows, T positions of the queries, S of the keys, H query heads, K key and value heads, D head
width.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tunix_rt.backends.limits import LONGEST_WHOLE
from tunix_rt.backends.torch import varlen
from tunix_rt.backends.torch.blocks import attend_in_blocks
from tunix_rt.backends.torch.copies import on_device
from tunix_rt.batches.encoded import Int32
from tunix_rt.models.families.architecture import Architecture

RUN_COST = 1 << 20
"""Cost of one more call, in multiplications (0.1 ms forward and backward, measured on the CPU)."""


class Attend(Protocol):
    """How a layer's queries attend to keys: the only difference between training and generation."""

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`queries` [B, H, T, D], `keys` and `values` [B, K, T, D], rotated; returns [B, H, T, D]."""


class Packed:
    """Causal attention inside each segment of a row, in some layers limited to a window.

    Short rows are computed in whole, with a mask; long ones never: on a GPU by a kernel (`varlen`), elsewhere trace by
    trace, or in blocks of queries where there is a window or a cap.
    """

    def __init__(self, segments: Int32, architecture: Architecture, device: torch.device) -> None:
        """`segments` int32 [B, T], 0 for padding, which attends to padding, so that no softmax is empty."""
        length = segments.shape[1]
        self._architecture, self._segments, self._device = architecture, segments, device
        self._windows = [
            None if kind.window is None or kind.window >= length else kind.window for kind in architecture.layers
        ]
        self._is_long = length > LONGEST_WHOLE
        self._alone, self._runs = _causal_alone(segments), _runs(segments)
        saved = segments.size * length - int((self._runs**2).sum())
        width = architecture.num_heads * architecture.head_dim
        self._pays = device.type == "cpu" and saved * width > RUN_COST * len(self._runs)
        self._traces: varlen.Traces | None = None
        self._masks: dict[int | None, Tensor] = {}

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Scale (and cap) scores as the family does, with float32 softmax."""
        window, shape = self._windows[layer], self._architecture
        if varlen.takes(queries, shape):
            self._traces = self._traces or varlen.Traces.of(self._runs, self._device)
            return self._traces.attend(queries, keys, values, window, shape.attention_scale)
        group = queries.shape[1] // keys.shape[1]
        if group > 1:
            keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
        if window is None and shape.score_cap is None:
            if self._alone:
                return look(queries, keys, values, None, True, shape)
            if self.by_runs:
                return _by_runs(self._runs.tolist(), queries, keys, values, shape.attention_scale)
        elif self._is_long:
            masked = partial(_masked, shape)
            return attend_in_blocks(masked, queries, keys, values, self._segments, window)
        if window not in self._masks:
            self._masks[window] = _mask(on_device(self._segments, self._device), window)
        return look(queries, keys, values, self._masks[window], False, shape)

    @property
    def by_runs(self) -> bool:
        """Whether layers without window and cap are computed trace by trace."""
        return not self._alone and (self._pays or self._is_long)


def _masked(architecture: Architecture, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return look(queries, keys, values, mask, False, architecture)


def _mask(segments: Tensor, window: int | None) -> Tensor:
    """Segments int32 [B, T] → bool [B, 1, T, T]: True within a segment, not ahead, within the window."""
    length = segments.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    if window is not None:
        seen = seen.triu(1 - window)
    return ((segments[:, :, None] == segments[:, None, :]) & seen)[:, None]


def look(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool, architecture: Architecture
) -> Tensor:
    """Attention of queries [B, H, T, D] to keys and values [B, H, S, D] where `mask` allows (bool; None: everywhere).

    torch's own kernels do not support a score cap; with a cap, causal rows always have a mask.
    """
    scale, cap = architecture.attention_scale, architecture.score_cap
    if cap is None:
        return scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=causal, scale=scale)
    scores = cap * torch.tanh((queries.float() @ keys.float().transpose(2, 3)) * (scale / cap))
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    shares = (scores - scores.detach().amax(dim=-1, keepdim=True)).exp()
    read = shares.to(values.dtype).float() @ values.float()
    return (read / shares.sum(dim=-1, keepdim=True)).to(values.dtype)


def _by_runs(runs: list[int], queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Compute each run separately, so that no score between two traces is computed."""
    rows, heads, length, width = queries.shape
    parts = (
        torch.split(x.transpose(1, 2).reshape(1, rows * length, heads, width).transpose(1, 2), runs, dim=2)
        for x in (queries, keys, values)
    )
    read = [scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale) for q, k, v in zip(*parts, strict=True)]
    return torch.cat([x.transpose(1, 2) for x in read], dim=1).view(rows, length, heads, width).transpose(1, 2)


def _runs(segments: Int32) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Lengths of the runs of equal segments, row after row."""
    starts = np.diff(segments, axis=1, prepend=-1) != 0
    return np.diff(np.flatnonzero(starts), append=segments.size)


def _causal_alone(segments: Int32) -> bool:
    """Whether each row is one trace padded on the right: then the causal mask alone is enough."""
    return bool(segments.max(initial=0) <= 1 and (np.diff(segments, axis=1) <= 0).all())
