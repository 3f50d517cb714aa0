"""A GGUF file → a model folder: weights dequantised in numpy, the tokenizer rebuilt from the metadata.

In: a file of one of `gguf_families.FAMILIES`. Out: the folder that `transformers` would have exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunix_rt.errors import MissingExtra, ModelError
from tunix_rt.hints import install
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import read
from tunix_rt.models.folder import Weights, write_generation_config, write_model
from tunix_rt.models.gguf_config import ROPE_FACTORS, config_of
from tunix_rt.models.gguf_families import ARCHITECTURES
from tunix_rt.models.gguf_keys import check_keys
from tunix_rt.models.gguf_layout import layout
from tunix_rt.models.gguf_tokenizer import Metadata, write_gguf_tokenizer

if TYPE_CHECKING:
    from gguf import GGUFReader

VERSION = 2
"""Version of the conversion; increased when the same file would give a different folder."""


def convert(file: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (float32), the tokenizer and generation_config.json into `folder`.

    Raises ModelError if the file is damaged, of another family, or holds what the model would not compute;
    MissingExtra if the package `gguf` is not installed.
    """
    reader = _open(file)
    metadata = Metadata(file, reader.fields)
    check_keys(file, metadata.fields, metadata.optional, metadata.required("general.architecture", ARCHITECTURES))
    config = config_of(metadata, reader)
    architecture = read(config, str(file))
    special = _special_ids(metadata)
    stop_ids = tuple(dict.fromkeys(special[key] for key in ("eos", "eot", "eom") if key in special))
    pad_id = special["padding"]
    ids = {"bos_token_id": special.get("bos"), "eos_token_id": list(stop_ids), "pad_token_id": pad_id}
    write_model(folder, config | ids, _weights(reader, architecture, file))
    write_generation_config(folder, stop_ids, pad_id)
    write_gguf_tokenizer(metadata, special, architecture.max_positions, folder)


def _open(file: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise MissingExtra(f"reading a GGUF file needs the package gguf: {install('gguf')}") from None
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{file}: damaged or not a GGUF file ({error}); fetch it again") from None


def _weights(reader: GGUFReader, architecture: Architecture, file: Path) -> Weights:
    from gguf.quants import dequantize

    stored = {tensor.name: tensor for tensor in layout(architecture)}
    weights: Weights = {}
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        if (place := stored.pop(tensor.name, None)) is None:
            raise ModelError(
                f"{file}: tensor {tensor.name} is not one that the family {architecture.family} computes with"
            )
        try:
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ModelError(f"{file}: {tensor.name}: the package gguf does not dequantise {kind}") from None
        if values.shape != place.shape:
            raise ModelError(f"{file}: {tensor.name}: {list(values.shape)}, expected {list(place.shape)}")
        weights |= place.from_file(values)
    if missing := sorted(tensor.name for place in stored.values() for tensor in place.tensors):
        raise ModelError(f"{file}: missing tensors for {', '.join(missing[:10])}")
    return weights


def _special_ids(metadata: Metadata) -> dict[str, int]:
    """Ids of `eos`, of `padding` (default: `eos`) and, if declared, of `bos`, `eot`, `eom` and `unknown`."""
    count = len(metadata.required("tokenizer.ggml.tokens"))
    ids = {}
    for name in ("eos", "bos", "eot", "eom", "unknown", "padding"):
        key = f"tokenizer.ggml.{name}_token_id"
        value = metadata.required(key) if name == "eos" else metadata.optional(key)
        if value is not None and value >= count:
            raise ModelError(f"{metadata.file}: {key}: {value}, but there are {count} tokens")
        if value is not None:
            ids[name] = int(value)
    return {"padding": ids["eos"]} | ids
