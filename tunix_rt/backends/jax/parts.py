"""Which part of each tensor in files a process reads and writes, from where its devices are on the mesh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunix_rt.backends.jax.host_parts import before
from tunix_rt.backends.jax.mesh import DeviceMesh
from tunix_rt.backends.jax.weights import WeightMapping, placed
from tunix_rt.models.families.registry import names_of
from tunix_rt.models.folder import Weights
from tunix_rt.models.parts import WHOLE, Part, PartOf, Range, Shape
from tunix_rt.models.quantize import codes_shape


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor in files lies in a tensor of the decoder."""

    own: str
    """The latter's name."""
    first: int
    stop: int
    """Its rows there."""
    transposed: bool


def part_of(mesh: DeviceMesh, shards: Sequence[int]) -> PartOf:
    """What the devices with these numbers along `shard` hold together."""
    places = dict(_places(mesh))
    embedding = places[names_of(mesh.architecture).whole["embedding"]]  # a tied head may be in the files beside it

    def part(name: str, shape: Shape) -> Part:
        place = places.get(name, embedding)
        axis, held = mesh.shard_axis(place.own), mesh.held(place.own, shards)
        if axis is None:
            return WHOLE
        if axis == 0:
            held = within(held, place.first, place.stop)
        return Part(columns=held) if (axis == 1) != place.transposed else Part(rows=held)

    return part


def written(mesh: DeviceMesh, params: Mapping[str, Any], leads: bool) -> Weights:
    """What this process saves of host arrays (`DeviceMesh.fetched`), by names in files.

    That is its parts of what is cut, and if it `leads`, also what every process has.
    """
    shards, names = mesh.written_shards, WeightMapping(mesh.architecture)

    def place(own: str, row: int) -> int:
        return before(mesh.held(own, shards), row) if mesh.shard_axis(own) == 0 else row

    own = {name: one.own for name, one in _places(mesh)}
    found = names.to_files(params, place)
    return {name: one for name, one in found.items() if leads or (mesh.shard_axis(own[name]) is not None and one.size)}


def within(ranges: tuple[Range, ...], first: int, stop: int) -> tuple[Range, ...]:
    """What lies in both, counted from `first`."""
    met = ((max(start, first), min(end, stop)) for start, end in ranges)
    return tuple((start - first, end - first) for start, end in met if start < end)


def _places(mesh: DeviceMesh) -> Iterator[tuple[str, Place]]:
    taken: dict[tuple[str, int | None], int] = {}
    for tensor, _, rows in placed(mesh.architecture):
        own = tensor.canonical_name
        if own in mesh.shapes:
            yield tensor.name, Place(own, rows.start, rows.stop, tensor.transposed)
            continue
        assert mesh.quantize is not None
        first = taken.get((own, tensor.layer), 0)
        stop = first + codes_shape(mesh.quantize, tensor.matrix_shape)[0]
        taken[own, tensor.layer] = stop
        yield tensor.name, Place(f"{own}_codes", first, stop, False)
