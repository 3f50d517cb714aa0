"""Tensors of which each process holds a part of the rows: gathered where they are used, their gradients scattered.

A part is rows [rank * c, (rank + 1) * c) of the first axis, c = ceil(rows / processes), filled up with zeros, whose
gradient is zero (ZeRO stage 3, arXiv 1910.02054; the whole as a function of the part, arXiv 2411.00284).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from tunix_rt.backends.torch.mesh import Axis
from tunix_rt.models.parts import WHOLE, Part, PartOf, Range, Shape, nth_rows


@dataclass(frozen=True, slots=True)
class Share:
    """What this process holds of a tensor."""

    rows: Tensor
    """[c, ...]."""
    num_rows: int
    """Of the whole tensor."""
    dtype: torch.dtype
    """Of the whole tensor where it is used; its gradients are summed in float32."""

    @property
    def num_bytes(self) -> int:
        """Bytes that it sends."""
        return self.rows.numel() * self.dtype.itemsize


def sharded(parts: Mapping[str, Part], axis: Axis) -> PartOf:
    """Which part of each tensor a process holds: of that in `parts`, by name, or else of the whole one, its rows."""

    def part_of(name: str, shape: Shape) -> Part:
        part = parts.get(name, WHOLE)
        first, last = nth_rows(part.shape(shape)[0], axis.rank, axis.size)
        return replace(part, rows=tuple(_between(part.rows or ((0, shape[0]),), first, last)))

    return part_of


def all_rows(part: Tensor, num_rows: int, axis: Axis) -> Tensor:
    """The whole tensor, of `num_rows` rows, of which each process has a part."""
    return part if axis.size == 1 else axis.gather(part).flatten(0, 1)[:num_rows]


def own_rows(whole: Tensor, axis: Axis) -> Tensor:
    """The part of a whole tensor that this process has, filled up."""
    if axis.size == 1:
        return whole
    return filled(whole[slice(*nth_rows(len(whole), axis.rank, axis.size))], len(whole), axis)


def _between(ranges: Sequence[Range], first: int, last: int) -> Iterator[Range]:
    """Of rows laid end to end those from number `first` up to, but not including, `last`; one empty range if none."""
    taken = 0
    for start, stop in ranges:
        begin, end = max(first - taken, 0), min(last - taken, stop - start)
        if begin < end:
            yield start + begin, start + end
        taken += stop - start
    if first >= last:
        yield 0, 0


def filled(part: Tensor, num_rows: int, axis: Axis) -> Tensor:
    """The rows that a process has of `num_rows`, filled up with zeros to [c, ...]."""
    return _filled(part, -(-num_rows // axis.size))


def _filled(tensor: Tensor, num_rows: int) -> Tensor:
    missing = num_rows - len(tensor)
    return pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, missing)) if missing else tensor


class Gathering:
    """Parts on their way to every process, all in one message, whatever their dtypes."""

    def __init__(self, axis: Axis, parts: Sequence[Share]) -> None:
        self.axis, self.parts = axis, parts
        with torch.no_grad():
            # Kept until it has arrived: a GPU sends while the host is further on.
            self._sent = torch.cat([part.rows.to(part.dtype).reshape(-1).view(torch.uint8) for part in parts])
            self._found = self._sent.new_empty(axis.size, len(self._sent))
        self._work: Any = dist.all_gather_into_tensor(self._found.view(-1), self._sent, axis.group, async_op=True)

    def wait(self) -> tuple[Tensor, ...]:
        """The whole tensors."""
        self._work.wait()
        pieces = torch.split(self._found, [part.num_bytes for part in self.parts], dim=1)
        del self._found, self._sent
        return tuple(self._whole(part, piece) for part, piece in zip(self.parts, pieces, strict=True))

    def _whole(self, part: Share, piece: Tensor) -> Tensor:
        flat = piece.reshape(-1).view(part.dtype)
        return flat.view(self.axis.size * len(part.rows), *part.rows.shape[1:])[: part.num_rows]


def whole(gathering: Gathering) -> tuple[Tensor, ...]:
    """The whole tensors of parts that are being gathered.

    In the backward pass each process gets the gradient of its part, float32, summed over the processes.
    """
    found: tuple[Tensor, ...] = _Whole.apply(gathering, *(part.rows for part in gathering.parts))
    return found


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gathering: Gathering, *rows: Tensor) -> tuple[Tensor, ...]:
        ctx.axis, ctx.shapes = gathering.axis, [part.shape for part in rows]
        return gathering.wait()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sizes = [math.prod(shape) for shape in ctx.shapes]
        summed = torch.split(ctx.axis.scatter_sum(_stacked(grads, ctx.shapes, ctx.axis.size)), sizes)
        return None, *(part.view(shape) for part, shape in zip(summed, ctx.shapes, strict=True))


def _stacked(grads: Sequence[Tensor], shapes: Sequence[Shape], count: int) -> Tensor:
    """What each of `count` processes is to get of the gradients, float32 [count, n]. A single one is not copied."""
    rows = [
        _filled(grad, count * shape[0]).reshape(count, -1).float() for grad, shape in zip(grads, shapes, strict=True)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
