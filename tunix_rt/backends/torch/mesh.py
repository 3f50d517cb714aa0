"""The processes of one job along the axes of its mesh: one process per device, gloo on the CPU and NCCL on CUDA.

An axis of one process communicates with nobody. Every process calls the same functions in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tunix_rt.backends.mesh import MeshShape
from tunix_rt.backends.processes.world import World

BUCKET = 1 << 24
"""Most elements that are summed at once: small tensors travel together, and their copies stay small."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The processes along one axis, this one among them."""

    rank: int = 0
    """Place of this process."""
    size: int = 1
    group: Any = None
    """torch's process group."""

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over the processes, in place; all of them get the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def max(self, tensor: Tensor) -> Tensor:
        """The largest of the processes' values, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.group)
        return tensor

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Each of the tensors, of one dtype, summed over the processes in place."""
        if self.size > 1:
            for bucket in _buckets(tensors):
                flat = self.sum(torch.cat([tensor.reshape(-1) for tensor in bucket]))
                for tensor, values in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
                    tensor.copy_(values.view_as(tensor))

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, alike in shape, stacked: [size, *shape]."""
        found = tensor.new_empty(self.size, *tensor.shape)
        if self.size == 1:
            return found.copy_(tensor[None])
        dist.all_gather_into_tensor(found.view(-1), tensor.reshape(-1), group=self.group)
        return found

    def scatter_sum(self, tensor: Tensor) -> Tensor:
        """`tensor` [size, n] summed over the processes, of which each gets its row [n]."""
        found = tensor.new_empty(tensor.shape[1])
        dist.reduce_scatter_tensor(found, tensor.view(-1), group=self.group)
        return found


@dataclass(frozen=True, slots=True)
class Mesh:
    """The axes on which this process is."""

    data: Axis = Axis()
    """Processes that hold the same part of the weights, and take different rows."""
    shard: Axis = Axis()
    """Processes that hold different parts of each tensor, and take different rows."""
    tensor: Axis = Axis()
    """Processes that compute the same rows, each with its columns of the matrices."""
    rows: Axis = Axis()
    """Processes among which the rows of a batch are split: data and shard."""
    everyone: Axis = Axis()

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.everyone.size == 1


ALONE = Mesh()


@cache
def join(world: World, shape: MeshShape, device: torch.device) -> Mesh:
    """Meet the other processes and form the groups of the mesh; alone, there is nothing to do."""
    if world.size == 1:
        return ALONE
    _meet(world, device)
    grid = np.arange(world.size).reshape(shape.data, shape.shard, shape.tensor)
    known: dict[tuple[int, ...], Any] = {tuple(range(world.size)): dist.group.WORLD}

    def axis(sets: Iterable[Any]) -> Axis:
        return _axis(world.rank, [tuple(ranks.tolist()) for ranks in sets], known)

    return Mesh(
        data=axis(np.moveaxis(grid, 0, -1).reshape(-1, shape.data)),
        shard=axis(np.moveaxis(grid, 1, -1).reshape(-1, shape.shard)),
        tensor=axis(grid.reshape(-1, shape.tensor)),
        rows=axis(grid.reshape(-1, shape.tensor).T),
        everyone=axis(grid.reshape(1, -1)),
    )


_met: World | None = None
"""Where this process has met others; a job that has lost a process meets elsewhere, with new ones."""


def leave() -> None:
    """Leave the job's other processes, if this one has met them; later ones are met anew."""
    global _met
    if dist.is_initialized():
        dist.destroy_process_group()
    _met = None
    join.cache_clear()


def _meet(world: World, device: torch.device) -> None:
    global _met
    if _met == world:
        return
    leave()
    _met = world
    store = dist.TCPStore(world.address, world.port, world.size, is_master=world.rank == 0)  # type: ignore[attr-defined]
    # Tensors on the host go by gloo in either case: a decision must not wait for the device.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend,
        store=store,
        rank=world.rank,
        world_size=world.size,
        device_id=device if device.type == "cuda" else None,
    )


def _axis(rank: int, sets: list[tuple[int, ...]], known: dict[tuple[int, ...], Any]) -> Axis:
    """The set in which this process is; torch wants every process to form every group, in one order."""
    for ranks in sets:
        if len(ranks) > 1 and ranks not in known:
            known[ranks] = dist.new_group(list(ranks))
    mine = next(ranks for ranks in sets if rank in ranks)
    return Axis(mine.index(rank), len(mine), known.get(mine))


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in order, as many together as are at most BUCKET elements."""
    found: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if tensor.numel() > room:
            found.append([])
            room = BUCKET
        found[-1].append(tensor)
        room -= tensor.numel()
    return found
