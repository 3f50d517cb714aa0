"""The devices of a job as a mesh, and which part of each tensor of a decoder lies on which of them.

Along `data` and `shard` every device runs its own program on its own rows (`jax.shard_map`). Tensors are cut along
`shard`, and made whole one layer at a time by an all-gather, whose transpose is the reduce-scatter of the gradients
(ZeRO-3, arXiv 1910.02054). Along `tensor` the compiler divides the products of a row, as the tensors' placement
suggests (columns, then rows: Megatron-LM, arXiv 1909.08053). Adapters, norms and biases are small and replicated.
Legend: L layers, S devices along `shard`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tunix_rt.backends.jax.host_parts import before, filled, joined
from tunix_rt.backends.jax.shapes import tensor_shapes
from tunix_rt.backends.mesh import MeshShape
from tunix_rt.config.choices import BACKENDS, Quantization
from tunix_rt.errors import DeviceError
from tunix_rt.models.families.architecture import EXPERT, Architecture, Shape
from tunix_rt.models.families.names import SPLITS
from tunix_rt.models.parts import Range, nth_rows

ROW_AXES = ("data", "shard")
"""The axes along which devices have different rows."""
EVERYWHERE = P()  # type: ignore[no-untyped-call]
"""The same on every device."""
ROWS = P(None, ROW_AXES)  # type: ignore[no-untyped-call]
"""Arrays [A, D, ...]: micro-batches, devices with different rows."""


def build(devices: Sequence[jax.Device], shape: MeshShape) -> Mesh:
    """The devices along the three axes, which the compiler may use as it likes (jax's default since 0.9 is not).

    Raises DeviceError if the devices of one group along `tensor` belong to several processes.
    """
    sizes = (shape.data, shape.shard, shape.tensor)
    mesh = jax.make_mesh(sizes, (*ROW_AXES, "tensor"), axis_types=(AxisType.Auto,) * 3, devices=devices)
    for group in mesh.devices.reshape(-1, shape.tensor):
        if len({device.process_index for device in group}) > 1:
            raise DeviceError(
                f"hardware.mesh.tensor={shape.tensor}: these devices would be of several processes; "
                f"one has {len(jax.local_devices())}"
            )
    return mesh


@dataclass(frozen=True)
class DeviceMesh:
    """A decoder on a mesh. A tree of its tensors is any pytree whose last keys are their names (`shapes.tensor_shapes`)
    or an adapter's; below a key `layers` each has a first axis L."""

    mesh: Mesh
    architecture: Architecture
    quantize: Quantization | None

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each tensor that is not an adapter's, without L."""
        return tensor_shapes(self.architecture, self.quantize)

    @property
    def num_shards(self) -> int:
        """S."""
        return int(self.mesh.shape["shard"])

    @property
    def num_row_ranks(self) -> int:
        """Number of devices with different rows."""
        return int(self.mesh.shape["data"]) * self.num_shards

    def shard_axis(self, name: str) -> int | None:
        """The axis of a tensor (without L) that is cut along `shard`; None: it is replicated."""
        shape = self.shapes.get(name, ())
        if self.num_shards == 1 or len(shape) < (1 if name.endswith("_scales") else 2):
            return None
        return 1 if self.tensor_axis(name) == 0 else 0

    def tensor_axis(self, name: str) -> int | None:
        """The axis of a tensor (without L) that is cut along `tensor`; None: it is replicated, as biases and, unlike
        under torch, experts are."""
        if self.mesh.shape["tensor"] == 1 or (name in EXPERT and not BACKENDS["jax"].splits_experts):
            return None
        split = SPLITS.get(name)
        return None if split is None else ("out", "in").index(split)

    def specs(self, tree: Any, tensor: bool = False, shard: bool = True) -> Any:
        """The `PartitionSpec` of each array of a tree, along `shard`, `tensor`, or both."""

        def spec(path: Any, _: Any) -> P:
            name = _name(path)
            cuts = (
                ("shard", self.shard_axis(name) if shard else None),
                ("tensor", self.tensor_axis(name) if tensor else None),
            )
            along = {axis + _stacked(path): called for called, axis in cuts if axis is not None}
            return P(*map(along.get, range(max(along, default=-1) + 1)))  # type: ignore[no-untyped-call]

        return jax.tree_util.tree_map_with_path(spec, tree)

    def shardings(self, tree: Any, shard: bool = True) -> Any:
        """Where each array of a tree lies; without `shard`, after it has been gathered."""
        return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), self.specs(tree, True, shard))

    @cached_property
    def local_shards(self) -> tuple[int, ...]:
        """The numbers along `shard` of this process's devices."""
        return tuple(sorted({shard for _, shard, _ in self._local}))

    @cached_property
    def written_shards(self) -> tuple[int, ...]:
        """The same of those whose parts this process saves: other groups along `data` hold the same."""
        return tuple(sorted({shard for data, shard, _ in self._local if data == 0}))

    @cached_property
    def _local(self) -> list[tuple[int, ...]]:
        devices: Any = self.mesh.devices
        return [place for place in np.ndindex(devices.shape) if devices[place].process_index == jax.process_index()]

    def held(self, name: str, shards: Sequence[int]) -> tuple[Range, ...]:
        """The ranges of a tensor's cut axis that the devices with these numbers along `shard` hold."""
        axis = self.shard_axis(name)
        if axis is None:
            return ()
        return tuple(nth_rows(self.shapes[name][axis], shard, self.num_shards) for shard in shards)

    def place(self, tree: Any) -> Any:
        """Host arrays of a tree → arrays on the mesh, cut axes filled up with zeros to a multiple of S.

        Of a tensor that is cut, the host has what its devices need (`held` of `local_shards`), one after the other. A
        device gets its own part, never the whole.
        """

        def one(path: Any, array: Any, sharding: NamedSharding) -> jax.Array:
            axis, array = self._cut(path), np.asarray(array)
            if axis is None:
                return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
            held, each = self.held(_name(path), self.local_shards), self._share(path)

            def part(index: Any) -> Any:
                own = slice(before(held, index[axis].start), before(held, index[axis].stop))
                found = array[(*index[:axis], own, *index[axis + 1 :])]
                return filled(found, axis, each)

            shape = (*array.shape[:axis], each * self.num_shards, *array.shape[axis + 1 :])
            return jax.make_array_from_callback(shape, sharding, part)

        return jax.tree_util.tree_map_with_path(one, tree, self.shardings(tree))

    def fetched(self, tree: Any) -> Any:
        """Host copies of what this process saves of a tree, `held` of `written_shards`; of what is not cut, the whole.

        Nothing is sent between processes.
        """

        def one(path: Any, array: jax.Array) -> Any:
            axis = self._cut(path)
            if axis is None:
                return joined(array, None, self.written_shards, 0)
            found = joined(array, axis, self.written_shards, self._share(path))
            size = sum(stop - start for start, stop in self.held(_name(path), self.written_shards))
            return found[(slice(None),) * axis + (slice(size),)]

        return jax.tree_util.tree_map_with_path(one, tree)

    def _share(self, path: Any) -> int:
        """How much of a cut axis each device along `shard` has, filling included."""
        axis = self.shard_axis(_name(path))
        assert axis is not None
        return -(-self.shapes[_name(path)][axis] // self.num_shards)

    def settled(self, tree: Any) -> Any:
        """Within a compiled program: results where `place` would put them; what is no part of a decoder, everywhere."""
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))  # type: ignore[no-untyped-call]

    def put_rows(self, tree: Any) -> Any:
        """Host arrays [A, D, ...] → the rows of each device on it."""
        sharding = NamedSharding(self.mesh, ROWS)
        return jax.tree.map(lambda one: jax.make_array_from_callback(one.shape, sharding, one.__getitem__), tree)

    def whole(self, name: str, part: jax.Array) -> jax.Array:
        """Within `spread`: a tensor (without L) from the parts of all devices along `shard`."""
        axis = self.shard_axis(name)
        if axis is None:
            return part
        gathered = jax.lax.all_gather(part, "shard", axis=axis, tiled=True)
        return jax.lax.slice_in_dim(gathered, 0, self.shapes[name][axis], axis=axis)

    @property
    def gather(self) -> Callable[[str, jax.Array], jax.Array] | None:
        """`whole`; None if every device has whole tensors."""
        return None if self.num_shards == 1 else self.whole

    def gathered(self, tree: Any) -> Any:
        """Outside of `spread`: every tensor whole on every device (divided along `tensor` only), without filling."""
        if self.num_shards == 1:
            return tree
        return jax.jit(self.without_filling, out_shardings=self.shardings(tree, shard=False))(tree)

    def without_filling(self, tree: Any) -> Any:
        """A tree of whole arrays, of numpy or jax, without the zeros that `place` added."""

        def one(path: Any, array: Any) -> Any:
            axis = self._cut(path)
            if axis is None:
                return array
            size = self.shapes[_name(path)][axis - _stacked(path)]
            return array[(slice(None),) * axis + (slice(size),)]

        return jax.tree_util.tree_map_with_path(one, tree)

    def summed(self, gradients: Any) -> Any:
        """Within `spread`: gradients of each device's rows → of all rows. Those of cut tensors were summed along
        `shard` when their gather was transposed."""
        return jax.tree_util.tree_map_with_path(
            lambda path, one: self.total(one, *(ROW_AXES if self._cut(path) is None else ("data",))), gradients
        )

    def total(self, x: jax.Array, *axes: str) -> jax.Array:
        """Within `spread`: the sum of `x` of all devices along axes of the mesh."""
        along = tuple(axis for axis in axes if self.mesh.shape[axis] > 1)
        found: jax.Array = jax.lax.psum(x, along) if along else x  # type: ignore[no-untyped-call]
        return found

    def norm(self, gradients: Any) -> jax.Array:
        """Within `spread`: the global norm of summed gradients."""
        cut, replicated = jnp.zeros(()), jnp.zeros(())
        for path, one in jax.tree_util.tree_leaves_with_path(gradients):
            if self._cut(path) is None:
                replicated += jnp.sum(jnp.square(one))
            else:
                cut += jnp.sum(jnp.square(one))
        return jnp.sqrt(self.total(cut, "shard") + replicated)

    def spread(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        """`function` on every device's part; replicated results are the caller's promise (`check_vma` false).

        Only an axis `tensor` of several devices is left to the compiler: a TPU's kernels want no axis of that kind.
        """
        manual = ROW_AXES if self.mesh.shape["tensor"] > 1 else self.mesh.axis_names
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            axis_names=frozenset(manual),
            check_vma=False,
        )

    def groups(self) -> Iterator[tuple[int, Mesh]]:
        """Each group of this process's devices that answers prompts by itself: its row rank, and its devices along
        `tensor`."""
        for rank, devices in enumerate(self.mesh.devices.reshape(self.num_row_ranks, -1)):
            if devices[0].process_index == jax.process_index():
                yield rank, Mesh(devices, ("tensor",), axis_types=(AxisType.Auto,))

    def on_group(self, tree: Any, group: Mesh) -> Any:
        """Gathered tensors as arrays of one group, without a copy."""

        def one(array: jax.Array, spec: P) -> jax.Array:
            parts = {shard.device: shard.data for shard in array.addressable_shards}
            if group.size == 1:
                return cast(jax.Array, parts[group.devices[0]])
            mine = [parts[device] for device in group.devices]
            return jax.make_array_from_single_device_arrays(array.shape, NamedSharding(group, spec), mine)

        return jax.tree.map(one, tree, self.specs(tree, tensor=True, shard=False))

    def _cut(self, path: Any) -> int | None:
        """The axis of an array of a tree that is cut along `shard`."""
        axis = self.shard_axis(_name(path))
        return None if axis is None else axis + _stacked(path)


def _name(path: Any) -> str:
    return str(getattr(path[-1], "key", "")) if path else ""


def _stacked(path: Any) -> bool:
    return any(getattr(step, "key", None) == "layers" for step in path)
