"""A model folder whose weights are all zero and take no disk space: to try a model's size without its weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tunix_rt.files import JsonObject, write_json
from tunix_rt.models.families.registry import read, tensor_shapes
from tunix_rt.models.folder import CONFIG, WEIGHTS


def write_zero_weights(folder: Path, config: JsonObject) -> None:
    """Write config.json and a model.safetensors of zeros, float32, as a hole in a sparse file.

    Layout: 8 bytes with the length of the header, the header as JSON, the data
    (huggingface.co/docs/safetensors). Raises ModelError if the config is not of a supported model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)
    header, end = {}, 0
    for name, shape in tensor_shapes(read(config, str(folder / CONFIG))).items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
