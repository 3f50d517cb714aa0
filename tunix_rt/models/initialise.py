"""Fresh weights, written once as a model folder, so that every backend starts from the same numbers.

Each tensor has its own random stream, seeded by seed and name: the order and number of the others do not matter.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tunix_rt.config.model import FreshModel, ScratchModel
from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families import llama
from tunix_rt.models.families.architecture import Architecture, kind_of
from tunix_rt.models.families.names import Tensor
from tunix_rt.models.families.registry import read, tensor_shapes, tensors_of
from tunix_rt.models.folder import CONFIG, WEIGHTS, Float32, stream, write_generation_config, write_model
from tunix_rt.models.tensor_file import FileLayout

RESIDUAL = ("out", "down", "expert_down", "shared_down")
"""Canonical names of the matrices that write into the residual stream."""


def write_fresh(
    folder: Path,
    source: FreshModel | ScratchModel,
    vocab_size: int,
    seed: int,
    pad_id: int,
    end_id: int,
    weights: bool = True,
) -> None:
    """Write config.json, generation_config.json and (with `weights`) model.safetensors of an untrained model.

    Matrices are normal(0, `initializer_range`); with `scale_residual_init` those that write into the residual
    stream are divided by sqrt(2 * layers) (GPT-2, Radford et al. 2019, section 2.3); norms scale by one, biases
    are zero. Raises ModelError if a declared config.json is not of a supported model.
    """
    config, architecture = _declared(source, vocab_size, pad_id, end_id)
    tensors = tensors_of(architecture) if weights else ()
    drawn = {tensor.name: _draw(tensor, architecture, source, seed) for tensor in tensors}
    write_model(folder, config, drawn if weights else None)
    write_generation_config(folder, (end_id,), pad_id)


def _declared(
    source: FreshModel | ScratchModel, vocab_size: int, pad_id: int, end_id: int
) -> tuple[JsonObject, Architecture]:
    if isinstance(source, FreshModel):
        fields = asdict(source) | {"model_type": source.family, "vocab_size": vocab_size}
        architecture, spread = read(fields, "model.source"), source.initializer_range
        return llama.to_config(architecture, end_ids=(end_id,), pad_id=pad_id, initializer_range=spread), architecture
    declared = source.config.get("vocab_size", vocab_size)
    if not isinstance(declared, int) or declared < vocab_size:
        raise ModelError(f"model.source.config: vocab_size: {declared!r}, but the tokenizer has {vocab_size} tokens")
    ids = {"vocab_size": declared, "bos_token_id": None, "eos_token_id": end_id, "pad_token_id": pad_id}
    config = source.config | ids | {"dtype": "float32", "initializer_range": source.initializer_range}
    return config, read(config, "model.source.config")


def write_zero_weights(folder: Path, config: JsonObject) -> None:
    """Write config.json and a model.safetensors of zeros, float32, as a hole in a sparse file: to try a model's size.

    Raises ModelError if the config is not of a supported model.
    """
    write_model(folder, config, None)
    shapes = tensor_shapes(read(config, str(folder / CONFIG)))
    layout = FileLayout.of({name: ("float32", shape) for name, shape in shapes.items()})
    with (folder / WEIGHTS).open("wb") as file:
        file.write(layout.header)
        file.truncate(layout.size)


def _draw(tensor: Tensor, architecture: Architecture, source: FreshModel | ScratchModel, seed: int) -> Float32:
    kind = kind_of(tensor.canonical_name)
    if kind in ("norms", "biases"):
        return np.full(tensor.shape, 1 - architecture.norm_offset if kind == "norms" else 0, dtype=np.float32)
    scale = source.initializer_range
    if source.scale_residual_init and tensor.canonical_name in RESIDUAL:
        scale /= math.sqrt(2 * architecture.num_layers)
    return stream(seed, tensor.name).standard_normal(tensor.shape, dtype=np.float32) * np.float32(scale)
