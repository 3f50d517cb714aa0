"""The optimizer's state beside the weights of a checkpoint, the same for every backend.

    optimizer.safetensors    `<kept>.<name>` for each trained tensor, `count` int64

What is kept of a tensor the optimizer says (`backends/optimizers`): of AdamW `m` and `v`, float32 and shaped as the
weight. Large ones are in several files with an index, as weights are (`shards`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tunix_rt.errors import CheckpointError, ModelError
from tunix_rt.models.folder import check_same, shard_files
from tunix_rt.models.parts import Array, Part, PartOf, Shape, whole
from tunix_rt.models.shards import is_of
from tunix_rt.models.tensor_file import Specs, dtype_of, opened

OPTIMIZER = "optimizer"
"""The stem of the files' names."""
COUNT = "count"
Kept = Mapping[str, Mapping[str, tuple[str, Shape]]]
"""What an optimizer keeps: name of a kind (such as `m`) → name of a weight → dtype and shape."""


@dataclass(frozen=True, slots=True)
class Moments:
    """What an optimizer kept, by its kind and then by weight name, and the number of updates."""

    kept: dict[str, dict[str, Array]]
    count: int

    def tensors(self) -> dict[str, Array]:
        """By their names in the file."""
        named = {f"{kind}.{name}": array for kind, arrays in self.kept.items() for name, array in arrays.items()}
        return named | {COUNT: np.array(self.count, np.int64)}


def is_moments(name: str) -> bool:
    """Whether a file of this name holds moments, or is their index."""
    return is_of(OPTIMIZER, name)


def moment_specs(kept: Kept) -> Specs:
    """The tensors of the file, in their order."""
    return {f"{kind}.{name}": spec for kind, specs in kept.items() for name, spec in specs.items()} | {
        COUNT: ("int64", ())
    }


def parts_of_moments(part_of: PartOf, shapes: Mapping[str, Shape]) -> PartOf:
    """The part of a tensor of the file: what is shaped as its weight is held as that is (`part_of`), all else whole.

    `shapes`: those of the weights.
    """

    def part(name: str, shape: Shape) -> Part:
        weight = name.partition(".")[2]
        return part_of(weight, shape) if shapes.get(weight) == shape else Part()

    return part


def read_moments(folder: Path, kept: Kept, part_of: PartOf = whole) -> Moments:
    """What any backend saved of an optimizer that keeps this; `part_of`: which part of each tensor of the file.

    Raises CheckpointError if a file is missing, damaged, of another model, or of another optimizer.
    """
    try:
        files = shard_files(folder, OPTIMIZER)
        return _read(folder, files, kept, part_of)
    except (OSError, ModelError) as error:
        where = folder / f"{OPTIMIZER}.safetensors"
        raise CheckpointError(f"{where}: cannot be read ({error}); take another checkpoint") from None


def _read(folder: Path, files: tuple[Path, ...], kept: Kept, part_of: PartOf) -> Moments:
    expected, there = moment_specs(kept), _specs(files)
    _check_optimizer(folder, expected, there)
    title, shapes = f"{folder}: the optimizer state does not fit the model:", _shapes(expected)
    check_same(title, _shapes(there), shapes, error=CheckpointError)
    found: dict[str, dict[str, Array]] = {kind: {} for kind in kept}
    count = 0
    for path in files:
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                if name == COUNT:
                    count = int(file.get_tensor(name))
                    continue
                dtype, shape = expected[name]
                kind, _, weight = name.partition(".")
                found[kind][weight] = part_of(name, shape).read(file.get_slice(name), np.dtype(dtype))
    return Moments({kind: {name: found[kind][name] for name in specs} for kind, specs in kept.items()}, count)


def _check_optimizer(folder: Path, expected: Specs, there: Specs) -> None:
    """Raises CheckpointError if the same weights were trained, but something else is kept of them."""
    if _weights(there) == _weights(expected) and _kinds(there) != _kinds(expected):
        raise CheckpointError(
            f"{folder}: this state is of another optimizer: of its tensors it keeps {_summary(there)}, where the one "
            f"declared keeps {_summary(expected)}; go on with the optimizer that it was trained with"
        )


def _weights(specs: Specs) -> set[str]:
    return {name.partition(".")[2] for name in specs}


def _kinds(specs: Specs) -> dict[str, str]:
    return {name: dtype for name, (dtype, _) in specs.items()}


def _summary(specs: Specs) -> str:
    kinds = [name.partition(".")[0] for name in specs if name != COUNT]
    return ", ".join(f"{kind} of {kinds.count(kind)}" for kind in sorted(set(kinds))) or "nothing"


def _shapes(specs: Specs) -> dict[str, Shape]:
    return {name: shape for name, (_, shape) in specs.items()}


def _specs(files: tuple[Path, ...]) -> Specs:
    found: dict[str, tuple[str, Shape]] = {}
    for path in files:
        with opened(path) as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_slice(name)
                found[name] = dtype_of(tensor), tuple(tensor.get_shape())
    return found
