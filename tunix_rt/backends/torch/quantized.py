"""Products with quantised matrices: a matrix is dequantised for one product, and again in the backward pass.

So at most one whole matrix is in memory. What the codes mean: see `models/quantize.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from tunix_rt.models.quantize import NF4_PAIRS, Quantized


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A frozen matrix [out, in] on the device."""

    codes: Tensor
    """int8 [out, in], or uint8 [blocks, 32]."""
    scales: Tensor
    """float32, of each row of `codes`."""
    pairs: Tensor
    """The two levels of each byte of nf4, float32 [256, 2]."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, matrix: Quantized, device: torch.device) -> QuantizedMatrix:
        """Copy a matrix to the device."""
        arrays = (matrix.codes, matrix.scales, NF4_PAIRS)
        codes, scales, pairs = (torch.tensor(array, device=device) for array in arrays)
        return cls(codes, scales, pairs, matrix.shape)

    def dequantized(self) -> Tensor:
        """Its values, float32 [out, in]."""
        if self.codes.dtype == torch.int8:
            return self.codes.float().mul_(self.scales[:, None])
        levels = self.pairs.index_select(0, self.codes.flatten().int())
        values = levels.view(len(self.codes), -1).mul_(self.scales[:, None])
        return values.flatten()[: math.prod(self.shape)].view(self.shape)


def product(x: Tensor, matrix: QuantizedMatrix, bias: Tensor | None) -> Tensor:
    """`x` [..., in] times the matrix, plus `bias` [out], which is frozen too → [..., out]."""
    return _Product.apply(x, matrix, bias)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """Keeps the codes for the backward pass; autograd would keep every dequantised matrix."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: QuantizedMatrix, bias: Tensor | None) -> Tensor:
        ctx.matrix = matrix
        return linear(x, matrix.dequantized(), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        return grad @ ctx.matrix.dequantized().to(grad.dtype), None, None
