"""Tensors in one safetensors file or, from a declared size on, in several with an index, as `transformers` has them.

    model.safetensors                       or  model-00001-of-00002.safetensors, …, model.safetensors.index.json

Which tensor is in which file is decided by `huggingface_hub`, for tensors in the order of a forward pass. One process
writes whole tensors, hashed on their way; several write parts of them (`parts`), which are hashed afterwards.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.files import JsonObject, write_json
from tunix_rt.models.parts import Array, PartOf
from tunix_rt.models.tensor_file import UNFINISHED, Specs, finish_parts, size_of, specs_of, write_parts, write_weights

MAX_SHARD_SIZE = 5_000_000_000
"""Bytes of tensors in a file, unless declared: as in `huggingface_hub`."""
INDEX = ".safetensors.index.json"
"""What follows the stem in the name of an index."""
SHARD = re.compile(r"(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
"""What follows the stem in the names of these files."""


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """Which file holds which tensor."""

    stem: str
    files: Mapping[str, Specs]
    """Name of a file → its tensors."""
    index: JsonObject | None
    """What the index says; None: there is one file, and no index."""

    @classmethod
    def of(cls, stem: str, specs: Specs, max_shard_size: int = MAX_SHARD_SIZE) -> ShardLayout:
        """The layout for tensors in this order. One that is larger than `max_shard_size` bytes has its own file."""
        from huggingface_hub import split_state_dict_into_shards_factory

        split = split_state_dict_into_shards_factory(
            dict(specs),
            get_storage_size=size_of,
            filename_pattern=f"{stem}{{suffix}}.safetensors",
            max_shard_size=max_shard_size,
        )
        files = {file: {name: specs[name] for name in names} for file, names in split.filename_to_tensors.items()}
        if not split.is_sharded:
            return cls(stem, files, None)
        numbers = {"total_parameters": sum(math.prod(shape) for _, shape in specs.values())}
        places = dict(sorted(split.tensor_to_filename.items()))
        return cls(stem, files, {"metadata": numbers | split.metadata, "weight_map": places})

    def write_index(self, folder: Path) -> dict[str, str]:
        """Write the index, if there is one; returns its hex SHA-256 by name."""
        if self.index is None:
            return {}
        name = f"{self.stem}{INDEX}"
        return {name: write_json(folder / name, self.index)}


def is_of(stem: str, name: str) -> bool:
    """Whether a file of this name is one of those that hold the tensors of `stem`."""
    return name.startswith(stem) and SHARD.fullmatch(name, len(stem)) is not None


def write_tensors(
    folder: Path, stem: str, tensors: Mapping[str, Array], max_shard_size: int = MAX_SHARD_SIZE
) -> dict[str, str]:
    """Write whole tensors, file by file, and remove what an earlier layout left; returns hex SHA-256 by file name."""
    layout = ShardLayout.of(stem, specs_of(tensors), max_shard_size)
    written = {
        file: write_weights(folder / file, {name: tensors[name] for name in specs})
        for file, specs in layout.files.items()
    }
    written |= layout.write_index(folder)
    for left in folder.iterdir():
        if is_of(stem, left.name) and left.name not in written:
            left.unlink()
    return written


def write_tensor_parts(
    folder: Path, layout: ShardLayout, tensors: Mapping[str, Array], part_of: PartOf, first: bool
) -> dict[str, str]:
    """Write this process's parts (`part_of`) of those `tensors` that it has; the `first` process also what is around
    them. Processes may do so at the same time, each part by one of them; then one calls `finish`.

    Returns hex SHA-256 by name of what is complete by that (the index), and the number of bytes that were written of
    each file that is not.
    """
    written: dict[str, str] = {}
    for file, specs in layout.files.items():
        parts = [(name, part_of(name, specs[name][1]), tensors[name]) for name in specs if name in tensors]
        if first or parts:
            written[f"{file}{UNFINISHED}"] = str(write_parts(folder / file, specs, parts, header=first))
    return written | layout.write_index(folder) if first else written


def finish(folder: Path, written: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Complete the files that several processes wrote into a folder (`written`: what `write_tensor_parts` returned to
    each), after all of them have ended, and remove what an earlier layout left.

    Returns the hex SHA-256 of each file by its name. Raises ModelError if something of one was not written.
    """
    hashes, sizes = dict[str, str](), Counter[Path]()
    for name, value in (item for of_process in written for item in of_process.items()):
        if name.endswith(UNFINISHED):
            sizes[folder / name] += int(value)
        else:
            hashes[name] = value
    with ThreadPoolExecutor() as threads:
        finished = dict(threads.map(finish_parts, sizes.keys(), sizes.values()))
    stems = {SHARD.sub("", name) for name in finished}
    complete = hashes | finished
    for left in folder.iterdir():
        if left.name not in complete and any(is_of(stem, left.name.removesuffix(UNFINISHED)) for stem in stems):
            left.unlink()
    return complete
