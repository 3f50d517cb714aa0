"""A GGUF file → a model folder: weights dequantised in numpy, the tokenizer rebuilt from the metadata.

In: a file of one of `FAMILIES`. Out: the folder that `transformers` would have exported.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunix_rt.errors import MissingExtra, ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.fields import PRETRAINED
from tunix_rt.models.families.registry import read, tensor_shapes
from tunix_rt.models.folder import Float32, Weights, write_generation_config, write_model
from tunix_rt.models.gguf_keys import check_keys
from tunix_rt.models.gguf_tokenizer import Metadata, write_gguf_tokenizer

if TYPE_CHECKING:
    from gguf import GGUFReader

VERSION = 2
"""Version of the conversion; increased when the same file would give a different folder."""
ROPE_FACTORS = "rope_freqs.weight"
"""What each rotary frequency is divided by: how llama.cpp stores the scaling of Llama 3.1 and later."""


@dataclass(frozen=True, slots=True)
class _Family:
    """A family of models in GGUF, named as in config.json."""

    transformers: str
    """`architectures` in config.json."""
    permuted: bool = False
    """Queries and keys have rotary pairs as neighbours."""


FAMILIES = {
    "llama": _Family("LlamaForCausalLM", permuted=True),
    "qwen2": _Family("Qwen2ForCausalLM"),
    "qwen3": _Family("Qwen3ForCausalLM"),
}


def convert(file: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (float32), the tokenizer and generation_config.json into `folder`.

    Raises ModelError if the file is damaged, of another family, or holds what the model would not compute;
    MissingExtra if the package `gguf` is not installed.
    """
    reader = _open(file)
    metadata = Metadata(file, reader.fields)
    check_keys(file, metadata.fields, metadata.optional, metadata.required("general.architecture", tuple(FAMILIES)))
    config = _config(metadata, reader)
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
        raise MissingExtra("reading a GGUF file needs the package gguf: uv sync --extra gguf") from None
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{file}: damaged or not a GGUF file ({error}); fetch it again") from None


def _config(metadata: Metadata, reader: GGUFReader) -> JsonObject:
    """The config.json equivalent to the metadata."""
    family = metadata.required("general.architecture", tuple(FAMILIES))
    get, required = (partial(read, prefix=f"{family}.") for read in (metadata.optional, metadata.required))
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise ModelError(f"{metadata.file}: token_embd.weight: missing")
    heads, hidden = required("attention.head_count"), required("embedding_length")
    rope, epsilon = _rope(metadata, reader, family), required("attention.layer_norm_rms_epsilon")
    return {
        "architectures": [FAMILIES[family].transformers],
        "model_type": family,
        "dtype": "float32",
        "vocab_size": shapes["token_embd.weight"][1],
        "hidden_size": hidden,
        "intermediate_size": required("feed_forward_length"),
        "num_hidden_layers": required("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv") or heads,
        "head_dim": _head_dim(metadata, family) or hidden // heads,
        "max_position_embeddings": required("context_length"),
        # Both names: a version older than transformers 5 would silently use a base of 10000.
        "rope_theta": rope["rope_theta"],
        "rope_parameters": rope,
        "rms_norm_eps": float(str(np.float32(epsilon))),  # 1e-05, not its float32 neighbour 9.99999975e-06
        "tie_word_embeddings": "output.weight" not in shapes,
    }


def _rope(metadata: Metadata, reader: GGUFReader, family: str) -> JsonObject:
    """The rotary parameters. Factors are the `longrope` of transformers, with one list for every length.

    As in llama.cpp (src/llama-model.cpp, load_hparams), the kind is `linear` where none is named, the factor may have
    its older key, and 0 is no scaling.
    """
    get = partial(metadata.optional, prefix=f"{family}.rope.")
    base = {"rope_theta": get("freq_base") or 10000.0}
    factor = get("scale_linear") if get("scaling.factor") is None else get("scaling.factor")
    kind = get("scaling.type") or "linear"
    kind = "none" if kind == "linear" and not factor else kind
    factors = next((tensor.data for tensor in reader.tensors if tensor.name == ROPE_FACTORS), None)
    if factors is None:
        scaling = {"factor": factor, PRETRAINED: get("scaling.original_context_length")}
        scaling = {} if kind == "none" else {key: value for key, value in scaling.items() if value}
        return {"rope_type": "default" if kind == "none" else kind} | base | scaling
    if kind != "none":
        raise ModelError(f"{metadata.file}: {family}.rope.scaling.type {kind!r} beside {ROPE_FACTORS} is not supported")
    listed = np.asarray(factors, np.float32).reshape(-1).tolist()
    lengths = {"factor": 1.0, PRETRAINED: metadata.required("context_length", prefix=f"{family}.")}
    return {"rope_type": "longrope", "short_factor": listed, "long_factor": listed} | base | lengths


def _head_dim(metadata: Metadata, family: str) -> Any:
    """The width of a head, all of which must rotate; None if it is not said."""
    keys = f"{family}.attention.key_length", f"{family}.rope.dimension_count"
    width, rotated = map(metadata.optional, keys)
    if None not in (width, rotated) and width != rotated:
        raise ModelError(f"{metadata.file}: {keys[1]}: {rotated} of {width} is not supported, only all of a head")
    return width or rotated


def _weights(reader: GGUFReader, architecture: Architecture, file: Path) -> Weights:
    from gguf import MODEL_ARCH, get_tensor_name_map
    from gguf.quants import dequantize

    family, expected = architecture.family, tensor_shapes(architecture)
    called = get_tensor_name_map(MODEL_ARCH[family.upper()], architecture.num_layers)
    names = {called.get_name(name, (".weight", ".bias")): name for name in expected}
    weights: Weights = {}
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        if (name := names.get(tensor.name)) is None:
            raise ModelError(f"{file}: tensor {tensor.name} is not one that the family {family} computes with")
        try:
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ModelError(f"{file}: {tensor.name}: the package gguf does not dequantise {kind}") from None
        if FAMILIES[family].permuted and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = architecture.num_heads if name.endswith("q_proj.weight") else architecture.num_kv_heads
            values = _unpermute(values, heads)
        if values.shape != expected[name]:
            raise ModelError(f"{file}: {tensor.name}: {list(values.shape)}, expected {list(expected[name])}")
        weights[name] = values
    if missing := expected.keys() - weights.keys():
        raise ModelError(f"{file}: missing tensors for {', '.join(sorted(missing)[:10])}")
    return weights


def _unpermute(values: Float32, heads: int) -> Float32:
    """Undo the pairing of rotary dimensions (llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute).

    In GGUF (0, d/2), (1, d/2 + 1) … are neighbours; in a Hugging Face folder the halves are separate.
    """
    return values.reshape(heads, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


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
