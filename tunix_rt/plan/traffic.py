"""What a device sends to others in one step, in bytes, by the theory of rings: independent of the network.

All-gather and reduce-scatter of n bytes among k devices send n (k - 1) / k each, an all-reduce twice that (Patarasuk
and Yuan 2009). Legend: A micro-batches, L rows of a device at once, T positions, D hidden width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunix_rt.backends import sizes
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.memory import FLOAT, MemoryQuery
from tunix_rt.config.choices import BACKENDS
from tunix_rt.models.families.names import Tensor
from tunix_rt.models.families.registry import tensors_of


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one device sends in one step."""

    all_gather: int
    """Weights, from their parts: twice in each micro-batch, for the forward and the backward pass."""
    reduce_scatter: int
    """Gradients of those, to their parts, once in each micro-batch, in float32."""
    all_reduce: int
    """Gradients, among devices that hold the same weights, once in each step, in float32."""
    tensor: int
    """Activations and their gradients, among devices that each multiply a part of every matrix."""

    @property
    def total(self) -> int:
        """Bytes of all kinds."""
        return self.all_gather + self.reduce_scatter + self.all_reduce + self.tensor


def traffic(query: MemoryQuery, fold: Fold, length: int) -> Traffic:
    """What a step sends whose rows are laid out by `fold`, of T positions."""
    mesh, trains = query.mesh, query.adapter is None
    tensors = tensors_of(query.architecture)
    weights = sum(_gathered(query, tensor) for tensor in tensors)
    gradients = sum(_gradient(query, tensor) for tensor in tensors) if trains else 0
    same = mesh.data if trains else mesh.num_row_ranks
    return Traffic(
        all_gather=_share(weights * fold.micro_batches, mesh.shard),
        reduce_scatter=_share(gradients * fold.micro_batches, mesh.shard),
        all_reduce=_share(2 * sizes.trained(query), same),
        tensor=_share(2 * _activations(query, fold, length), mesh.tensor),
    )


def _share(size: int, devices: int) -> int:
    return size * (devices - 1) // devices


def _gathered(query: MemoryQuery, tensor: Tensor) -> int:
    """Bytes in a micro-batch. What is outside the layers stays whole for the backward pass."""
    size = sizes.sent_size(query, tensor) // sizes.divided(query, tensor)
    return size * (_uses(query, tensor) if tensor.layer is None else 2)


def _gradient(query: MemoryQuery, tensor: Tensor) -> int:
    return math.prod(tensor.shape) * FLOAT // sizes.divided(query, tensor) * _uses(query, tensor)


def _uses(query: MemoryQuery, tensor: Tensor) -> int:
    """How often a micro-batch makes a tensor whole and scatters its gradients, the backward pass not counted."""
    tied = query.architecture.tie_embeddings and tensor.canonical_name == "embedding"
    return 2 if tied and BACKENDS[query.backend.name].gathers_tied_twice else 1


def _activations(query: MemoryQuery, fold: Fold, length: int) -> int:
    """Bytes that are summed along the axis `tensor`: what attention and feed-forward of each layer give, the gradients
    of their inputs, and the ends of the model (arXiv 1909.08053, section 3)."""
    times = (6 if query.backend.gradient_checkpointing else 4) * query.architecture.num_layers + 2
    width = query.architecture.hidden_size * sizes.compute_size(query)
    return times * fold.micro_batches * fold.local_rows * length * width
