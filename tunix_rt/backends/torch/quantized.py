"""Products with quantised matrices: a matrix is dequantised for one product, and again in the backward pass.

So at most one whole matrix is in memory. What the codes mean: see `models/quantize.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from tunix_rt.backends.torch.gather import filled
from tunix_rt.backends.torch.mesh import ALONE, Axis
from tunix_rt.models.quantize import NF4_PAIRS, Quantized, codes_shape


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
    def of(cls, matrix: Quantized, device: torch.device, axis: Axis = ALONE.shard) -> QuantizedMatrix:
        """Copy a matrix to the device, or what this process holds of its codes and scales."""
        arrays = (torch.from_numpy(array) for array in (matrix.codes, matrix.scales))
        num_rows = codes_shape("int8" if matrix.codes.dtype == np.int8 else "nf4", matrix.shape)[0]
        codes, scales = (filled(array, num_rows, axis).to(device, copy=True) for array in arrays)
        return cls(codes, scales, torch.tensor(NF4_PAIRS, device=device), matrix.shape)

    @property
    def num_rows(self) -> int:
        """Rows of the codes of the whole matrix, if this holds a part of them."""
        return codes_shape("int8" if self.codes.dtype == torch.int8 else "nf4", self.shape)[0]

    def dequantized(self) -> Tensor:
        """Its values, float32 [out, in]."""
        if self.codes.dtype == torch.int8:
            return self.codes.float().mul_(self.scales[:, None])
        levels = self.pairs.index_select(0, self.codes.flatten().int())
        values = levels.view(len(self.codes), -1).mul_(self.scales[:, None])
        return values.flatten()[: math.prod(self.shape)].view(self.shape)


def product(x: Tensor, matrix: QuantizedMatrix, bias: Tensor | None) -> Tensor:
    """`x` [..., in] times the matrix, plus `bias` [out], which is frozen too → [..., out]."""
    return _Product.apply(x, matrix, matrix.codes, matrix.scales, bias)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    """Keeps the codes for the backward pass; autograd would keep every dequantised matrix."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrix: QuantizedMatrix, codes: Tensor, scales: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.pairs, ctx.shape = matrix.pairs, matrix.shape
        ctx.save_for_backward(codes, scales)
        return linear(x, matrix.dequantized(), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (codes, scales) = grad_outputs, ctx.saved_tensors
        matrix = QuantizedMatrix(codes, scales, ctx.pairs, ctx.shape).dequantized()
        return grad @ matrix.to(grad.dtype), None, None, None, None
