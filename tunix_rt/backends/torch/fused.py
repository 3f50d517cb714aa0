"""Parts of a layer whose gradients are written by hand: autograd would pass over memory twice as often and keep more.

Legend: B rows, T positions, H heads, D head width, E the last axis.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""Cosine, and sine with its first half negated, float32 [B, T, 1, D]."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x` float32 [..., E] over the root of its mean square, times `weight` [E] (arXiv 1910.07467)."""
    return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return]


class _RmsNorm(torch.autograd.Function):
    """Keeps its input and one number for each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        found: Tensor = (x * inverse).mul_(weight)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        width = x.shape[-1]
        products = (grad * x).reshape(-1, width)
        grad_weight = products.t() @ inverse.reshape(-1) if ctx.needs_input_grad[1] else None
        along = (products @ weight).view(inverse.shape).mul_(inverse.pow(3)).div_(-width)
        return (grad * weight).mul_(inverse).addcmul_(x, along), grad_weight, None


def rotation(positions: Tensor, frequencies: Tensor, factor: float) -> Rotation:
    """Of the rotary angles at `positions` [B, T]; `frequencies`: radians per position, float32 [D/2]."""
    angles = positions[..., None, None].float() * frequencies
    cos, sin = angles.cos() * factor, angles.sin() * factor
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on [B, T, H, D] (arXiv 2104.09864), with halves paired as in transformers → float32."""
    return _Rotate.apply(x, cos, sin)  # type: ignore[no-any-return]


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the opposite rotation: nothing of `x` is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _rotated(x.float(), cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, sin, -1).to(ctx.dtype), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    half = x.shape[-1] // 2
    first, second = slice(half), slice(half, None)
    found = x * cos
    for here, there in ((first, second), (second, first)):
        found[..., here].addcmul_(x[..., there], sin[..., here], value=sign)
    return found
