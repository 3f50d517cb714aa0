"""A linear layer. On the CPU in float32 it is multiplied by oneDNN, which torch itself asks only in bfloat16.

torch's float32 products are MKL's. On an AMD CPU with AVX-512, oneDNN took 0.87 of their time with 3,408 rows, and with
a matrix in its own layout (`packed`) 0.3 of it with 8 rows and 0.65 with 64. Legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
SMALLEST = 1 << 22
"""Multiplications from which oneDNN pays in training, where each call packs the matrix anew."""
ROWS = 64
"""With how many rows a packed matrix is multiplied in the fastest layout; with any other number in a fast one."""


def linear(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` [..., I] times `matrix` [O, I], as it is or `packed`, plus `bias` [O] → [..., O]."""
    if matrix.is_mkldnn:
        return _onednn(x, matrix, bias)
    if packs(x) and matrix.dtype == torch.float32 and x.numel() * len(matrix) >= SMALLEST:
        # Flat, since a function of one's own must not return a view where somebody adds to it in place, as LoRA does.
        return _Linear.apply(x.flatten(0, -2), matrix, bias).view(*x.shape[:-1], -1)  # type: ignore[no-any-return]
    return functional.linear(x, matrix, bias)


def packs(x: Tensor) -> bool:
    """Whether products with `x` can be oneDNN's, and a matrix like it can be `packed`."""
    return HAS_ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32


def packed(matrix: Tensor) -> Tensor:
    """A copy of `matrix` float32 [O, I] in the layout of oneDNN, for `linear` only and without gradients."""
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), ROWS)
    return found


def _onednn(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, matrix, bias, "none", [], "")
    return found


class _Linear(torch.autograd.Function):
    """Of `x` [N, I], for oneDNN's product knows no gradients.

    That of the matrix is MKL's: oneDNN would turn both factors round.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, matrix)
        return _onednn(x, matrix, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix = ctx.saved_tensors
        slopes = grad_outputs[0]
        of_x = _onednn(slopes, matrix.t(), None) if ctx.needs_input_grad[0] else None
        of_matrix = slopes.t() @ x if ctx.needs_input_grad[1] else None
        return of_x, of_matrix, slopes.sum(0) if ctx.needs_input_grad[2] else None
