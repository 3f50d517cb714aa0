"""Matrices split over the axis `tensor`: a process has some of the heads, of the inner width and of the vocabulary.

The first matrix of a pair is split by what it makes, the second by what it takes, so that a pair needs one sum
(arXiv 1909.08053). A process is a decoder of the smaller architecture `local`; between `enter` and `leave` its numbers
are its own, outside of them they are the same on all processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding

from tunix_rt.backends.tensor_parallel import check_tensor
from tunix_rt.backends.torch.mesh import Axis
from tunix_rt.errors import DeviceError
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.names import Tensor as Named
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.parts import WHOLE, Part, Range, Shape


@dataclass(frozen=True, slots=True)
class TensorParallel:
    """The share of one process in a model."""

    axis: Axis
    whole: Architecture

    @classmethod
    def of(cls, axis: Axis, architecture: Architecture) -> TensorParallel | None:
        """None if the axis has one process. Raises DeviceError if the model does not divide, with the numbers."""
        if axis.size == 1:
            return None
        check_tensor(architecture, axis.size)
        experts = architecture.experts
        if experts is not None and experts.intermediate_size % axis.size:
            raise DeviceError(
                f"hardware.mesh.tensor={axis.size} does not divide the width {experts.intermediate_size} of this "
                "model's experts; take a divisor, or use these devices for data or shard"
            )
        if architecture.query_key_norm == "whole":
            raise DeviceError(
                f"hardware.mesh.tensor={axis.size}: {architecture.family} has a norm over the queries of all heads, "
                "which torch does not share out; use these devices for data or shard, or backend=jax"
            )
        return cls(axis, architecture)

    @property
    def local(self) -> Architecture:
        """What one process computes: an n-th of the heads, of the inner widths and of the vocabulary."""
        whole, size = self.whole, self.axis.size
        experts = whole.experts
        if experts is not None:
            shared = None if experts.shared_size is None else experts.shared_size // size
            experts = replace(experts, intermediate_size=experts.intermediate_size // size, shared_size=shared)
        return replace(
            whole,
            vocab_size=whole.vocab_size // size,
            num_heads=whole.num_heads // size,
            num_kv_heads=whole.num_kv_heads // size,
            intermediate_size=whole.intermediate_size if experts is not None else whole.intermediate_size // size,
            experts=experts,
        )

    @property
    def split(self) -> frozenset[str]:
        """The names of the tensors of which every process has another part."""
        return frozenset(tensor.name for tensor in tensors_of(self.whole) if _part(tensor, 0, self.axis.size) != WHOLE)

    def parts(self, rank: int) -> dict[str, Part]:
        """The part of each tensor that a process has, by name."""
        return {tensor.name: _part(tensor, rank, self.axis.size) for tensor in tensors_of(self.whole)}

    def joined(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The whole tensors, from those of all processes."""
        shapes = {tensor.name: tensor.shape for tensor in tensors_of(self.whole)}
        parts = [self.parts(rank) for rank in range(self.axis.size)]
        return {
            name: self._joined(weight, shapes[name], [of_rank[name] for of_rank in parts])
            for name, weight in weights.items()
        }

    def _joined(self, weight: Tensor, shape: Shape, parts: list[Part]) -> Tensor:
        if parts[0] == WHOLE:
            return weight
        found = weight.new_empty(shape)
        for part, own in zip(parts, self.axis.gather(weight.detach()), strict=True):
            for here, there in part.blocks(shape):
                found[there] = own[here]
        return found

    def enter(self, x: Tensor) -> Tensor:
        """`x` as it is; its gradient is summed over the processes, each of which does something else with it."""
        found: Tensor = _Enter.apply(x, self.axis)
        return found

    def leave(self, x: Tensor) -> Tensor:
        """`x` summed over the processes in float32; its gradient is the same for all of them."""
        found: Tensor = _Leave.apply(x, self.axis)
        return found

    def embedded(self, tokens: Tensor, table: Tensor) -> Tensor:
        """The embeddings of `tokens`, of which each is in one process's `table`."""
        rows, here = local_ids(tokens, len(table), self.axis)
        assert here is not None
        return self.leave(embedding(rows, table) * here[..., None])


def local_ids(ids: Tensor, count: int, axis: Axis) -> tuple[Tensor, Tensor | None]:
    """Rows of this process's `count` of the vocabulary, int64, and whether an id is among them (else the row is any).

    None: every id is, since there is one process.
    """
    if axis.size == 1:
        return ids, None
    rows = ids - axis.rank * count
    return rows.clamp(0, count - 1), (rows >= 0) & (rows < count)


def _part(tensor: Named, rank: int, size: int) -> Part:
    if tensor.split == "in":
        columns = (_share(0, tensor.matrix_shape[1], rank, size),)
        return Part(rows=columns) if tensor.transposed else Part(columns=columns)
    if tensor.split is None:
        return WHOLE
    ranges: list[Range] = []
    start = 0
    for piece in tensor.pieces:
        ranges.append(_share(start, piece[0], rank, size))
        start += piece[0]
    return Part(columns=tuple(ranges)) if tensor.transposed else Part(rows=tuple(ranges))


def _share(start: int, count: int, rank: int, size: int) -> Range:
    each = count // size
    return start + rank * each, start + (rank + 1) * each


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        ctx.axis = axis
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.axis.sum(grads[0].float().clone()).to(grads[0].dtype), None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, axis: Axis) -> Tensor:
        return axis.sum(x.float().clone())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
