"""The products of one linear layer in training, to be timed (`backends.rates`)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tunix_rt.backends.torch.linear import linear
from tunix_rt.config.choices import Precision


def repeatable(platform: str, precision: Precision, rows: int, inputs: int, outputs: int) -> Callable[[], None]:
    """Multiplies [rows, inputs] by [outputs, inputs] forward and backward; returns when it is done."""
    device = torch.device("cuda" if platform == "gpu" else "cpu")
    x = torch.randn(rows, inputs, device=device, requires_grad=True)
    matrix = torch.randn(outputs, inputs, device=device, requires_grad=True)

    def lap() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            found = linear(x, matrix)
        torch.autograd.grad(found, (x, matrix), torch.ones_like(found))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    lap()
    return lap
