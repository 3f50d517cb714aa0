"""Sums over processes, once per update: gradients, the loss and the norm, so that all of them decide alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tunix_rt.backends.torch.mesh import Mesh


def totals(
    mesh: Mesh, parts: bool, split: frozenset[str], loss_sum: Tensor, gradients: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The loss sum and the norm of the gradients over all processes, float32 scalars; gradients are summed in place.

    `parts`: gradients are of parts, summed over the axis `shard` already. `split`: those of which processes along
    `tensor` have different ones. The norm counts each gradient once.
    """
    axis = mesh.data if parts else mesh.rows
    axis.sum_all(list(gradients.values()))
    # In the order of names: a restored mapping has another order, which would change the sum.
    names = [name for name in sorted(gradients) if axis.rank == 0 and (mesh.tensor.rank == 0 or name in split)]
    norm = torch.nn.utils.get_total_norm([gradients[name] for name in names])
    if mesh.is_alone:
        return loss_sum, norm
    counted = loss_sum.double() if mesh.tensor.rank == 0 else loss_sum.new_zeros((), dtype=torch.float64)
    loss, square = mesh.everyone.sum(torch.stack((counted, norm.to(counted.device).double() ** 2)))
    return loss.float(), square.sqrt().float()
