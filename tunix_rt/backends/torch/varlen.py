"""Attention of packed rows on a GPU by a kernel that reads all traces behind one another and holds no scores.

FlashAttention 2 (arXiv 2307.08691), as torch 2.10 and later has it in `torch.nn.attention.varlen`. Not chosen: flex
attention, which has no gradients on the CPU (so no test here could compare them) and needs a compiler where it runs;
cuDNN, whose gradients are not the same at every run.
Legend: N traces, B rows, T positions, H query heads, K key and value heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends.torch.copies import on_device
from tunix_rt.models.families.architecture import Architecture

WIDEST_HEAD = 256
"""The kernel's limit; widths must also be multiples of 8."""


def takes(queries: Tensor, architecture: Architecture) -> bool:
    """Whether the kernel can: bfloat16 on an NVIDIA GPU from Ampere on, heads that fit, scores without a cap."""
    if queries.device.type != "cuda" or queries.dtype != torch.bfloat16 or torch.version.hip is not None:
        return False
    fits = architecture.head_dim % 8 == 0 and architecture.head_dim <= WIDEST_HEAD and architecture.score_cap is None
    return fits and torch.cuda.get_device_capability(queries.device) >= (8, 0)


def kernel(
    queries: Tensor, keys: Tensor, values: Tensor, traces: Traces, window_size: tuple[int, int], scale: float
) -> Tensor:
    """torch's kernel, of all rows' positions behind one another. Imported where it is used: 5 CPU-seconds."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.varlen import varlen_attn

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        found = varlen_attn(
            queries,
            keys,
            values,
            traces.ends,
            traces.ends,
            traces.longest,
            traces.longest,
            scale=scale,
            window_size=window_size,
            enable_gqa=queries.shape[1] != keys.shape[1],
        )
    assert isinstance(found, Tensor)
    return found


@dataclass(frozen=True, slots=True)
class Traces:
    """Where the traces of a batch's rows begin and end, one behind another."""

    ends: Tensor
    """int32 [N + 1] on the device, from 0 to B * T; padding counts as a trace."""
    longest: int

    @classmethod
    def of(cls, runs: np.ndarray[Any, np.dtype[np.int64]], device: torch.device) -> Traces:
        """From the lengths of the traces, row after row."""
        ends = np.concatenate([[0], np.cumsum(runs)]).astype(np.int32)
        return cls(on_device(ends, device), int(runs.max()))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, window: int | None, scale: float) -> Tensor:
        """Causal attention within each trace: `queries` [B, H, T, D], `keys` and `values` [B, K, T, D] → [B, H, T, D].

        The kernel's window counts the positions before a query, ours the query too.
        """
        rows, heads, length, width = queries.shape
        packed = [x.transpose(1, 2).reshape(rows * length, -1, width) for x in (queries, keys, values)]
        before = -1 if window is None else window - 1
        found = kernel(packed[0], packed[1], packed[2], self, (before, 0), scale)
        return found.view(rows, length, heads, width).transpose(1, 2)
