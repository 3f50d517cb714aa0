"""A model folder whose weights are all zero and take no disk space: to try a model's size without its weights."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.files import JsonObject, write_json
from tunix_rt.models.families.registry import read, tensor_shapes
from tunix_rt.models.folder import CONFIG, WEIGHTS
from tunix_rt.models.tensor_file import header


def write_zero_weights(folder: Path, config: JsonObject) -> None:
    """Write config.json and a model.safetensors of zeros, float32, as a hole in a sparse file.

    Raises ModelError if the config is not of a supported model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)
    shapes = tensor_shapes(read(config, str(folder / CONFIG)))
    start, size = header({name: ("float32", shape) for name, shape in shapes.items()})
    with (folder / WEIGHTS).open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size)
