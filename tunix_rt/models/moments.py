"""The optimizer's state beside the weights of a checkpoint, the same for every backend.

    optimizer.safetensors    `m.<name>` and `v.<name>` float32 for each trained tensor, `count` int64

Large ones are in several files with an index, as weights are (`shards`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunix_rt.errors import CheckpointError, ModelError
from tunix_rt.models.folder import check_same, shard_files
from tunix_rt.models.parts import Array, Float32, Part, PartOf, Shape, whole
from tunix_rt.models.shards import is_of
from tunix_rt.models.tensor_file import Specs, opened, readable

OPTIMIZER = "optimizer"
"""The stem of the files' names."""
COUNT = "count"


@dataclass(frozen=True, slots=True)
class Moments:
    """The optimizer's moments by weight name, float32, and the number of updates."""

    first: dict[str, Float32]
    second: dict[str, Float32]
    count: int

    def tensors(self) -> dict[str, Array]:
        """By their names in the file."""
        named: dict[str, Array] = {f"m.{name}": tensor for name, tensor in self.first.items()}
        named |= {f"v.{name}": tensor for name, tensor in self.second.items()}
        return named | {COUNT: np.array(self.count, np.int64)}


def is_moments(name: str) -> bool:
    """Whether a file of this name holds moments, or is their index."""
    return is_of(OPTIMIZER, name)


def moment_specs(shapes: Mapping[str, Shape]) -> Specs:
    """The tensors of the moments of tensors of these shapes, in their order."""
    return {f"{kind}.{name}": ("float32", shape) for kind in "mv" for name, shape in shapes.items()} | {
        COUNT: ("int64", ())
    }


def parts_of_moments(part_of: PartOf) -> PartOf:
    """The part of a tensor of the file: that of the weight whose moment it is."""
    return lambda name, shape: part_of(name.partition(".")[2], shape) if name != COUNT else Part()


def read_moments(folder: Path, shapes: Mapping[str, Shape], part_of: PartOf = whole) -> Moments:
    """The moments of tensors of these shapes, as any backend saved them; `part_of`: which part of each.

    Raises CheckpointError if a file is missing, damaged, or of another model.
    """
    try:
        files = shard_files(folder, OPTIMIZER)
        return _read(folder, files, shapes, parts_of_moments(part_of))
    except (OSError, ModelError) as error:
        where = folder / f"{OPTIMIZER}.safetensors"
        raise CheckpointError(f"{where}: cannot be read ({error}); take another checkpoint") from None


def _read(folder: Path, files: tuple[Path, ...], shapes: Mapping[str, Shape], part_of: PartOf) -> Moments:
    expected = {name: shape for name, (_, shape) in moment_specs(shapes).items()}
    title = f"{folder}: the optimizer state does not fit the model:"
    check_same(title, _shapes(files), expected, error=CheckpointError)
    found: dict[str, Float32] = {}
    count = 0
    for path in files:
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                if name == COUNT:
                    count = int(file.get_tensor(name))
                else:
                    tensor = readable(path, name, file.get_slice(name))
                    found[name] = part_of(name, expected[name]).read(tensor)
    first, second = ({name: found[f"{kind}.{name}"] for name in shapes} for kind in "mv")
    return Moments(first, second, count)


def _shapes(files: tuple[Path, ...]) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for path in files:
        with opened(path) as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found
