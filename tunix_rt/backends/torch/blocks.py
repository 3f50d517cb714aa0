"""Masked attention of long rows, a block of queries at a time: memory grows with T, not with T².

For layers with a window and scores with a cap, which no kernel of the CPU has. Only the keys that a block can see are
read. Legend: B rows, T positions, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends.torch.copies import on_device
from tunix_rt.batches.encoded import Int32

BLOCK = 512
"""Queries at a time: fewer are slower (calls), more take memory [H, BLOCK, T]."""
Look = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Queries [1, H, T, D], keys and values [1, H, S, D], mask bool [T, S] → [1, H, T, D]."""


def attend_in_blocks(
    look: Look, queries: Tensor, keys: Tensor, values: Tensor, segments: Int32, window: int | None
) -> Tensor:
    """Causal attention of [B, H, T, D] within segments int32 [B, T] and the window; only inputs are kept."""
    rows = []
    for row, own in enumerate(segments):
        starts = np.maximum.accumulate(np.where(np.diff(own, prepend=-1) != 0, np.arange(len(own)), 0))
        found = []
        for begin in range(0, len(own), BLOCK):
            end = min(begin + BLOCK, len(own))
            first = int(starts[begin]) if window is None else max(int(starts[begin]), begin + 1 - window)
            compute = partial(_block, look, starts, begin, end, first, window)
            parts = queries[row : row + 1, :, begin:end], *(x[row : row + 1, :, first:end] for x in (keys, values))
            found.append(_ComputedAgain.apply(compute, *parts))
        rows.append(torch.cat(found, dim=2))
    return torch.cat(rows)


def _block(
    look: Look,
    starts: np.ndarray[Any, Any],
    begin: int,
    end: int,
    first: int,
    window: int | None,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """The queries from `begin` to `end` see keys from `first` on: of their own trace (see `starts`), not ahead."""
    here = np.arange(begin, end)
    least = starts[begin:end] if window is None else np.maximum(starts[begin:end], here + 1 - window)
    low, high = (on_device(x, queries.device)[:, None] for x in (least, here))
    places = torch.arange(first, end, device=queries.device)
    return look(queries, keys, values, (places >= low) & (places <= high))


class _ComputedAgain(torch.autograd.Function):
    """A function whose gradients come from a second forward pass, so that nothing between is kept."""

    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Tensor], *given: Tensor) -> Tensor:
        ctx.compute = compute
        ctx.save_for_backward(*given)
        return compute(*given)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        given = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            made = ctx.compute(*given)
        return None, *torch.autograd.grad(made, given, grad_outputs)
