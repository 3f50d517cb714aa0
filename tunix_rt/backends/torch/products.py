"""Products of matrices in a precision, whose sums stay float32.

`torch.matmul` of two bfloat16 tensors rounds its result to bfloat16: too coarse for logits and scores, where a step is
3e-2 from 4 on. A product of two bfloat16 numbers is exact in float32, so the two ways of `matmul` give the same
numbers, up to the order of the sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tunix_rt.backends.torch.linear import linear
from tunix_rt.config.choices import Precision

DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` rounded to `dtype`, as `matmul` takes it: on the CPU, whose kernels cannot keep the sums, in float32."""
    x = x.to(dtype)
    return x.float() if x.device.type == "cpu" else x


def matmul(x: Tensor, matrix: Tensor) -> Tensor:
    """`x` [N, I] times `matrix` [O, I], as `rounded` returns them (or `packed`) → float32 [N, O]. In bfloat16 without
    gradients.
    """
    return linear(x, matrix) if x.dtype == torch.float32 else torch.mm(x, matrix.T, out_dtype=torch.float32)


def add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """Add `a` [N, K] times `b` [K, M], slopes in their precision, to `to` float32 [N, M].

    In bfloat16 the CPU rounds the product first, as autocast does: four times faster, and a logit is not at stake.
    """
    if a.dtype == torch.float32:
        to.addmm_(a, b)
    else:
        to += a @ b if a.device.type == "cpu" else matmul(a, b.T)
