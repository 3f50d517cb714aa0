"""Sums over processes, once per update: gradients, the loss and the norm, so that all of them decide alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tunix_rt.backends.torch.mesh import Mesh


def totals(mesh: Mesh, parts: bool, loss_sum: Tensor, gradients: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss sum and the norm of the gradients over all processes, float32 scalars; gradients are summed in place.

    `parts`: gradients are of parts, summed over the axis `shard` already; else every process has all tensors.
    """
    (mesh.data if parts else mesh.rows).sum_all(list(gradients.values()))
    # In the order of names: a restored mapping has another order, which would change the sum.
    norm = torch.nn.utils.get_total_norm([gradients[name] for name in sorted(gradients)])
    if mesh.is_alone:
        return loss_sum, norm
    squares = norm.double() ** 2 if parts and mesh.data.rank == 0 else torch.zeros_like(norm, dtype=torch.float64)
    loss, square = mesh.rows.sum(torch.stack((loss_sum.double(), squares)))
    return loss.float(), square.sqrt().float() if parts else norm
