"""One training step: log-probabilities of targets, accumulation over micro-batches, clipping, update.

The order matters: sums are accumulated as sums and divided once, by the batch's divisor; the norm is that of the
quotient's gradient; non-finite values are found before the update and suppress it. Nothing here
waits for the device. Legend: A micro-batches, B rows, T positions, N targets, E hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunix_rt.backends import objective
from tunix_rt.backends.limits import LOGITS_AT_ONCE
from tunix_rt.backends.torch.adapter import Lora
from tunix_rt.backends.torch.attention import Packed
from tunix_rt.backends.torch.copies import on_device
from tunix_rt.backends.torch.decoder import Decoder, hidden_states
from tunix_rt.backends.torch.mesh import ALONE, Axis, Mesh
from tunix_rt.backends.torch.optimizer import Optimizer
from tunix_rt.backends.torch.products import DTYPES, add_product, matmul, rounded
from tunix_rt.backends.torch.reduction import totals
from tunix_rt.backends.torch.sharding import HEAD
from tunix_rt.backends.torch.tensor_parallel import local_ids
from tunix_rt.batches.batch import Batch
from tunix_rt.config.choices import Precision


def train_step(
    model: Decoder,
    optimizer: Optimizer,
    batch: Batch,
    rate: float,
    clip_norm: float | None,
    adapters: Sequence[Lora | None],
) -> dict[str, Tensor]:
    """The whole step of one process: `accumulate` and `update`."""
    loss_sum = accumulate(model, batch, adapters)
    return update(model, optimizer, loss_sum, batch.divisor, rate, clip_norm)


def update(
    model: Decoder,
    optimizer: Optimizer,
    loss_sum: Tensor,
    divisor_of_loss: float,
    rate: float,
    clip_norm: float | None,
    mesh: Mesh = ALONE,
) -> dict[str, Tensor]:
    """Update the trained tensors and the optimizer in place from the gradients of all processes, each of which has its
    `loss_sum`; see `Backend.train_step`.
    """
    gradients = {name: weight.grad for name, weight in model.trained.items() if weight.grad is not None}
    split = frozenset() if model.tensor is None else model.tensor.split
    loss_sum, norm = totals(mesh, model.trains_parts, split, loss_sum, gradients)
    divisor = torch.full((), divisor_of_loss, device=model.device)
    grad_norm = norm / divisor
    finite = torch.isfinite(loss_sum) & torch.isfinite(grad_norm)
    excess = torch.ones_like(grad_norm) if clip_norm is None else (grad_norm / clip_norm).clamp(min=1.0)
    optimizer.update(model.trained, gradients, rate, scale=divisor * excess, skip=(~finite).float())
    return {"loss_sum": loss_sum, "grad_norm": grad_norm, "finite": finite}


def accumulate(model: Decoder, batch: Batch, adapters: Sequence[Lora | None]) -> Tensor:
    """The loss sum over the rows of this process; its gradients are left in `weight.grad`.

    `adapters`: the model's adapter for each micro-batch.
    """
    for weight in model.trained.values():
        weight.grad = None
    loss_sum = torch.zeros((), device=model.device)
    for index, adapter in enumerate(adapters):
        seen = model if adapter is model.adapter else replace(model, adapter=adapter)
        where, logprobs = micro_batch(seen, batch, index)
        weights = on_device(batch.weights[index].reshape(-1)[where], model.device)
        loss = objective.weighted_loss(logprobs, weights)
        loss.backward()
        loss_sum = loss_sum + loss.detach()
    return loss_sum


@torch.inference_mode()
def logprobs(model: Decoder, batch: Batch) -> Tensor:
    """float32 [A, B, T]: log-probability of each target, 0 where its weight is 0."""
    out = torch.zeros(batch.tokens.shape, device=model.device)
    for index in range(len(batch.tokens)):
        where, values = micro_batch(model, batch, index)
        out[index].view(-1)[on_device(where, model.device)] = values
    return out


def micro_batch(model: Decoder, batch: Batch, index: int) -> tuple[Any, Tensor]:
    """Returns, for micro-batch `index`, flat positions int64 [N] of its targets and their log-probabilities [N]."""
    tokens, positions = (on_device(part[index], model.device, torch.int64) for part in (batch.tokens, batch.positions))
    attend = Packed(batch.segments[index], model.architecture, model.device)
    where = np.flatnonzero(batch.weights[index])
    chosen, targets = (
        on_device(x, model.device, torch.int64) for x in (where, batch.targets[index].reshape(-1)[where])
    )
    hidden = hidden_states(model, tokens, positions, attend, chosen)
    vocabulary = ALONE.tensor if model.tensor is None else model.tensor.axis
    with model.gathered(HEAD) as whole:
        cap, precision = model.architecture.logit_cap, model.precision
        return where, target_logprobs(model.enter(hidden), whole.head, targets, cap, precision, vocabulary)


def target_logprobs(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    cap: float | None = None,
    precision: Precision = "float32",
    vocabulary: Axis = ALONE.tensor,
) -> Tensor:
    """Log-probabilities float32 [N] of `targets` int64 [N] from `hidden` [N, E] and the output matrix [V, E].

    Both are rounded to `precision`; logits are their float32 sums, at most LOGITS_AT_ONCE at once. `vocabulary`: the
    processes each of which has V rows of a larger matrix.
    """
    found: Tensor = _TargetLogprobs.apply(hidden.float(), head, targets, cap, DTYPES[precision], vocabulary)
    return found


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(logits / cap), in place (arXiv 2408.00118); without a cap, the logits themselves."""
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


class _TargetLogprobs(torch.autograd.Function):
    """Written by hand: autograd would keep two more arrays [N, V], and all chunks of the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        cap: float | None,
        dtype: torch.dtype,
        vocabulary: Axis,
    ) -> Tensor:
        chosen, log_sums = [], []
        logits: Any = None
        seen, matrix = rounded(hidden, dtype), rounded(head, dtype)
        for rows, wanted in _chunks(seen, matrix, targets):
            del logits  # before the next chunk: two are never in memory
            logits = capped(matmul(rows, matrix), cap)
            rows_of, here = local_ids(wanted, len(head), vocabulary)
            found = logits.gather(-1, rows_of[:, None])[:, 0]
            chosen.append(found if here is None else found * here)
            largest = vocabulary.max(logits.amax(-1, keepdim=True))
            sums = vocabulary.sum(logits.sub_(largest).exp_().sum(-1, keepdim=True))
            log_sums.append((sums.log() + largest)[:, 0])
        # With one chunk, the backward pass uses its exponentials; with several (or a cap), it recomputes each.
        only = (logits, sums) if len(chosen) == 1 and cap is None else (None, None)
        ctx.cap, ctx.dtype, ctx.vocabulary = cap, dtype, vocabulary
        log_sum = torch.cat(log_sums)
        ctx.save_for_backward(hidden, head, targets, log_sum, *only)
        return vocabulary.sum(torch.cat(chosen)) - log_sum

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets, log_sum, exponentials, sums = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden)
        grad_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        again = None if exponentials is not None else rounded(head, ctx.dtype)
        hidden, head = hidden.to(ctx.dtype), head.to(ctx.dtype)
        start = 0
        logits = slope = grad_logits = None
        for rows, wanted in _chunks(hidden, head, targets):
            del logits, slope, grad_logits
            part = slice(start, start := start + len(rows))
            grad = grad_outputs[0][part, None]
            if again is not None:
                logits = capped(matmul(rounded(rows, ctx.dtype), again), ctx.cap)
                slope = None if ctx.cap is None else 1 - (logits / ctx.cap) ** 2
                grad_logits = logits.sub_(log_sum[part, None]).exp_().mul_(-grad)
            else:
                logits, slope, grad_logits = None, None, exponentials.mul_(-grad / sums)
            rows_of, here = local_ids(wanted, len(head), ctx.vocabulary)
            grad_logits.scatter_add_(-1, rows_of[:, None], grad if here is None else grad * here[:, None])
            if slope is not None:
                grad_logits.mul_(slope)
            grad_logits = grad_logits.to(ctx.dtype)
            add_product(grad_hidden[part], grad_logits, head)
            if grad_head is not None:
                add_product(grad_head, grad_logits.T, rows)
        return grad_hidden, grad_head, None, None, None, None


def _chunks(hidden: Tensor, head: Tensor, targets: Tensor) -> Any:
    size = max(1, LOGITS_AT_ONCE // len(head))
    return zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
