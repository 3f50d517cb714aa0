"""A feed-forward of which each token passes through few of many experts: rows sorted by expert, one product for each.

Legend: N tokens, k experts of each, E experts, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

from tunix_rt.models.families.architecture import Experts


def route(x: Tensor, router: Tensor, experts: Experts) -> tuple[Tensor, Tensor]:
    """Tokens float32 [N, D], router [E, D] → each token's experts int64 [N, k], and their weights float32 [N, k].

    In float32, whatever the precision. Of equal experts the first is taken.
    """
    with torch.autocast(x.device.type, enabled=False):
        ranked = linear(x, router).softmax(-1).sort(dim=-1, descending=True, stable=True)
    weights, chosen = (part[:, : experts.per_token] for part in ranked)
    return chosen, weights / weights.sum(-1, keepdim=True) if experts.normalised else weights


def counts_of(chosen: Tensor, experts: Experts, even: bool) -> list[int]:
    """How many tokens each expert gets, which waits for the device; `even`: all as many, as far as possible."""
    if not even:
        found: list[int] = chosen.flatten().bincount(minlength=experts.count).tolist()
        return found
    each, more = divmod(chosen.numel(), experts.count)
    return [each + (number < more) for number in range(experts.count)]


def mixed(
    x: Tensor, chosen: Tensor, weights: Tensor, counts: list[int], expert: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """The weighted sum of what each token's experts make of it: `x` [N, D] → float32 [N, D].

    `expert`: number and rows → rows. Without tokens it is skipped, except in training, where its gradient is 0.
    If there is no token at all, every expert is called.
    """
    order = chosen.flatten().sort(stable=True).indices
    # One copy of a row per expert: its gradients are then summed in a fixed order, on a GPU too.
    rows = x[:, None].expand(-1, chosen.shape[1], -1).reshape(-1, x.shape[1])[order]
    shares = enumerate(torch.split(rows, counts))
    every = torch.is_grad_enabled() or not len(x)
    made = [expert(number, share) for number, share in shares if len(share) or every]
    parts = torch.cat(made)[order.argsort()].view(*chosen.shape, x.shape[1])
    return (parts.float() * weights[..., None]).sum(1)
