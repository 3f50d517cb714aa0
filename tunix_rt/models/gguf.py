"""A GGUF file → a model folder: weights dequantised in numpy, the tokenizer rebuilt from the metadata.

In: a file of the Llama family with a byte-level BPE. Out: the folder that `transformers` would have exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunix_rt.errors import MissingExtra, ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families import llama
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import read, tensor_shapes
from tunix_rt.models.folder import Float32, Weights, write_generation_config, write_model
from tunix_rt.models.gguf_keys import NAMED_TEMPLATE, check_keys
from tunix_rt.models.tokenizer import byte_level_with_single_digits, write_tokenizer

if TYPE_CHECKING:
    import tokenizers
    from gguf import GGUFReader

VERSION = 2
"""Version of the conversion; increased when the same file would give a different folder."""
CONTROL, USER_DEFINED = 3, 4
"""`tokenizer.ggml.token_type` (llama.cpp, include/llama.h, llama_token_type)."""


def convert(file: Path, folder: Path) -> None:
    """Write config.json, model.safetensors (float32), the tokenizer and generation_config.json into `folder`.

    Raises ModelError if the file is damaged, of another family, or holds what the model would not compute;
    MissingExtra if the package `gguf` is not installed.
    """
    reader = _open(file)
    metadata = _Metadata(file, reader.fields)
    check_keys(file, metadata.fields, metadata.optional, str(metadata.optional("general.architecture")))
    architecture = _architecture(metadata, reader)
    special = _special_ids(metadata)
    stop_ids = tuple(dict.fromkeys(special[key] for key in ("eos", "eot", "eom") if key in special))
    pad_id = special["padding"]
    config = llama.to_config(architecture, bos_id=special.get("bos"), end_ids=stop_ids, pad_id=pad_id)
    write_model(folder, config, _weights(reader, architecture, file))
    write_generation_config(folder, stop_ids, pad_id)
    _write_tokenizer(metadata, special, architecture.max_positions, folder)


def _open(file: Path) -> GGUFReader:
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise MissingExtra("reading a GGUF file needs the package gguf: uv sync --extra gguf") from None
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{file}: damaged or not a GGUF file ({error}); fetch it again") from None


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The file's key-value pairs; a missing key is an error that names file and key."""

    file: Path
    fields: Mapping[str, Any]

    def optional(self, key: str) -> Any:
        field = self.fields.get(key)
        return None if field is None else field.contents()

    def required(self, key: str, supported: tuple[str, ...] | None = None) -> Any:
        value = self.optional(key)
        if value is None:
            raise ModelError(f"{self.file}: {key}: missing")
        if supported is not None and value not in supported:
            raise ModelError(f"{self.file}: {key} {value!r} is not supported; supported: {', '.join(supported)}")
        return value


def _architecture(metadata: _Metadata, reader: GGUFReader) -> Architecture:
    """Builds the config.json equivalent to the metadata and reads it with the family's module and its checks."""
    get, required = metadata.optional, metadata.required
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise ModelError(f"{metadata.file}: token_embd.weight: missing")
    epsilon = required("llama.attention.layer_norm_rms_epsilon")
    config: JsonObject = {
        "model_type": required("general.architecture", ("llama",)),
        "vocab_size": shapes["token_embd.weight"][1],
        "hidden_size": required("llama.embedding_length"),
        "intermediate_size": required("llama.feed_forward_length"),
        "num_hidden_layers": required("llama.block_count"),
        "num_attention_heads": required("llama.attention.head_count"),
        "num_key_value_heads": get("llama.attention.head_count_kv"),
        "head_dim": _head_dim(metadata),
        "max_position_embeddings": required("llama.context_length"),
        "rope_theta": get("llama.rope.freq_base") or 10000.0,
        "rms_norm_eps": float(str(np.float32(epsilon))),  # 1e-05, not its float32 neighbour 9.99999975e-06
        "tie_word_embeddings": "output.weight" not in shapes,
    }
    config["rope_scaling"] = _rope_scaling(metadata)
    return read(config, str(metadata.file))


def _head_dim(metadata: _Metadata) -> Any:
    """The width of a head, all of which must rotate; None if it is not said."""
    width, rotated = (metadata.optional(f"llama.{key}") for key in ("attention.key_length", "rope.dimension_count"))
    if None not in (width, rotated) and width != rotated:
        key = "llama.rope.dimension_count"
        raise ModelError(f"{metadata.file}: {key}: {rotated} of {width} is not supported, only all of a head")
    return width or rotated


def _rope_scaling(metadata: _Metadata) -> JsonObject | None:
    """`rope_scaling` of config.json: by llama.cpp (src/llama-model.cpp, load_hparams) the kind is `linear` where none
    is named, the factor may have its old key, and 0 is no scaling."""
    kind = metadata.optional("llama.rope.scaling.type")
    factor = metadata.optional("llama.rope.scaling.factor")
    factor = metadata.optional("llama.rope.scale_linear") if factor is None else factor
    if kind == "none" or (kind in (None, "linear") and not factor):
        return None
    return {"rope_type": kind or "linear", "factor": factor}


def _weights(reader: GGUFReader, architecture: Architecture, file: Path) -> Weights:
    from gguf import MODEL_ARCH, get_tensor_name_map
    from gguf.quants import dequantize

    called, expected = get_tensor_name_map(MODEL_ARCH.LLAMA, architecture.num_layers), tensor_shapes(architecture)
    names = {called.get_name(name, (".weight",)): name for name in expected}
    weights: Weights = {}
    for tensor in reader.tensors:
        if (name := names.get(tensor.name)) is None:
            raise ModelError(f"{file}: tensor {tensor.name} is not one that the Llama family computes with")
        try:
            values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        except NotImplementedError:
            kind = tensor.tensor_type.name
            raise ModelError(f"{file}: {tensor.name}: the package gguf does not dequantise {kind}") from None
        if name.endswith("q_proj.weight"):
            values = _unpermute(values, architecture.num_heads)
        if name.endswith("k_proj.weight"):
            values = _unpermute(values, architecture.num_kv_heads)
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


def _special_ids(metadata: _Metadata) -> dict[str, int]:
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


def _write_tokenizer(metadata: _Metadata, special: dict[str, int], max_positions: int, folder: Path) -> None:
    metadata.required("tokenizer.ggml.model", ("gpt2",))
    metadata.required("tokenizer.ggml.pre", ("smollm",))
    tokens = metadata.required("tokenizer.ggml.tokens")
    settings: JsonObject = {"model_max_length": max_positions}
    for name, called in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        if name in special:
            settings[f"{called}_token"] = tokens[special[name]]
    if (template := _template(metadata)) is not None:
        settings["chat_template"] = template
    inner = _byte_level_bpe(metadata, tokens)
    if metadata.optional("tokenizer.ggml.add_bos_token"):
        _begin_with(inner, tokens[metadata.required("tokenizer.ggml.bos_token_id")])
    write_tokenizer(folder, inner, settings)


def _template(metadata: _Metadata) -> str | list[JsonObject] | None:
    """The chat template, or the named ones as tokenizer_config.json lists them."""
    default = metadata.optional("tokenizer.chat_template")
    keys = [key for key in metadata.fields if key.startswith(NAMED_TEMPLATE)]
    if not keys:
        return None if default is None else str(default)
    named = {"default": default} | {key.removeprefix(NAMED_TEMPLATE): metadata.optional(key) for key in keys}
    return [{"name": name, "template": text} for name, text in named.items() if text is not None]


def _begin_with(inner: tokenizers.Tokenizer, token: str) -> None:
    """Make it put a token before every text."""
    from tokenizers import processors

    begin = [(token, inner.token_to_id(token))]
    inner.post_processor = processors.TemplateProcessing([token, "$A"], [token, "$A", "$B:1"], begin)


def _byte_level_bpe(metadata: _Metadata, tokens: list[str]) -> tokenizers.Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    merges = [tuple(merge.split(" ", 1)) for merge in metadata.required("tokenizer.ggml.merges")]
    inner = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    inner.pre_tokenizer = byte_level_with_single_digits()
    inner.decoder = decoders.ByteLevel()
    types = metadata.required("tokenizer.ggml.token_type")
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [AddedToken(token, normalized=False) for token, its in zip(tokens, types, strict=True) if its == kind]
        (inner.add_special_tokens if special else inner.add_tokens)(added)
    return inner
