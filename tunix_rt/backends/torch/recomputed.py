"""Gradient checkpointing (arXiv 1604.06174): a layer is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tunix_rt.backends import heap

TIDY_EVERY = 5
"""With gradient checkpointing on the CPU: return free memory to the system every so many layers.
SmolLM2-135M with LoRA, 4 rows of 448 tokens: 1.8 to 2.0 GB if never, 1.3 every five layers (12 % more time), 1.2 after
each (40 %)."""


class ComputedAgain(torch.autograd.Function):
    """A layer of which only the input is kept: its gradients come from a second forward pass.

    Own code because `torch.utils.checkpoint` imports torch's compiler, 5 CPU-seconds at each start. No random numbers
    are drawn in a layer (dropout is a function of keys), so both passes are identical.
    """

    @staticmethod
    def forward(ctx: Any, compute: Callable[[Tensor], Tensor], tidy: bool, x: Tensor, *trained: Tensor) -> Tensor:
        ctx.compute, ctx.tidy, kind = compute, tidy, x.device.type
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        ctx.precision = partial(torch.autocast, kind, dtype=dtype, enabled=enabled, cache_enabled=False)
        ctx.save_for_backward(x, *trained)
        with ctx.precision():
            return compute(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.tidy:
            heap.give_back()
        x, *trained = ctx.saved_tensors
        x = x.detach().requires_grad_(ctx.needs_input_grad[2])
        with torch.enable_grad(), ctx.precision():
            # A scalar with the same gradients: where some are given, torch imports sympy, 2 CPU-seconds.
            product = (ctx.compute(x) * grad_outputs[0]).sum()
        wanted = [tensor for tensor in (x, *trained) if tensor.requires_grad]
        found = iter(torch.autograd.grad(product, wanted))
        return None, None, *(next(found) if tensor.requires_grad else None for tensor in (x, *trained))
