"""The metadata of a GGUF file → config.json: what llama.cpp computes, as `transformers` declares it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.fields import FULL, PRETRAINED, SLIDING
from tunix_rt.models.gguf_families import ARCHITECTURES, FAMILIES, LARGEST_GEMMA, NO_ROPE_EVERY, model_type_of
from tunix_rt.models.gguf_tokenizer import Metadata

if TYPE_CHECKING:
    from gguf import GGUFReader

ROPE_FACTORS = "rope_freqs.weight"
"""What each rotary frequency is divided by: how llama.cpp stores the scaling of Llama 3.1 and later."""
NEAR_BASE = 10000.0
"""Base of the layers with a window in Gemma 3, where none is named."""


@dataclass(frozen=True, slots=True)
class _File:
    """What config.json follows from."""

    metadata: Metadata
    name: str
    """`general.architecture`."""
    reader: GGUFReader
    shapes: dict[str, list[int]]
    """Of each tensor, as GGUF counts."""

    def get(self, key: str, default: Any = None) -> Any:
        value = self.metadata.optional(key, prefix=f"{self.name}.")
        return default if value is None else value

    def required(self, key: str) -> Any:
        return self.metadata.required(key, prefix=f"{self.name}.")

    def number(self, key: str) -> float:
        """1e-05, not its float32 neighbour 9.99999975e-06."""
        return float(str(np.float32(self.required(key))))

    def has(self, tensor: str) -> bool:
        return tensor in self.shapes


def config_of(metadata: Metadata, reader: GGUFReader) -> JsonObject:
    """The config.json equivalent to the metadata. Raises ModelError."""
    name = metadata.required("general.architecture", ARCHITECTURES)
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    if "token_embd.weight" not in shapes:
        raise ModelError(f"{metadata.file}: token_embd.weight: missing")
    file = _File(metadata, name, reader, shapes)
    model_type = model_type_of(name, bool(file.get("expert_count")))
    common = {
        "architectures": [FAMILIES[model_type].transformers],
        "model_type": model_type,
        "dtype": "float32",
        "vocab_size": shapes["token_embd.weight"][1],
        "tie_word_embeddings": "output.weight" not in shapes,
    }
    if model_type == "gpt2":
        return common | _gpt2(file)
    further = FURTHER.get(model_type)
    return common | _llama_like(file) | ({} if further is None else further(file))


def _llama_like(file: _File) -> JsonObject:
    heads, hidden, rope = file.required("attention.head_count"), file.required("embedding_length"), _rope(file)
    return {
        "hidden_size": hidden,
        "intermediate_size": file.required("feed_forward_length"),
        "num_hidden_layers": file.required("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.get("attention.head_count_kv") or heads,
        "head_dim": _head_dim(file) or hidden // heads,
        "max_position_embeddings": file.required("context_length"),
        # Both names: a version older than transformers 5 would silently use a base of 10000.
        "rope_theta": rope["rope_theta"],
        "rope_parameters": rope,
        "rms_norm_eps": file.number("attention.layer_norm_rms_epsilon"),
    }


def _gpt2(file: _File) -> JsonObject:
    return {
        "n_embd": file.required("embedding_length"),
        "n_inner": file.required("feed_forward_length"),
        "n_layer": file.required("block_count"),
        "n_head": file.required("attention.head_count"),
        "n_positions": file.required("context_length"),
        "layer_norm_epsilon": file.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


def _biases(file: _File) -> JsonObject:
    return {"attention_bias": file.has("blk.0.attn_q.bias"), "mlp_bias": file.has("blk.0.ffn_up.bias")}


def _smollm3(file: _File) -> JsonObject:
    return _biases(file) | {"no_rope_layer_interval": NO_ROPE_EVERY, "use_sliding_window": False}


def _experts(file: _File, count: str = "num_experts") -> JsonObject:
    return {count: file.required("expert_count"), "num_experts_per_tok": file.required("expert_used_count")}


def _mixtral(file: _File) -> JsonObject:
    return _experts(file, "num_local_experts") | {"sliding_window": None}


def _olmoe(file: _File) -> JsonObject:
    return _experts(file) | {"norm_topk_prob": False, "clip_qkv": None}


def _qwen2_moe(file: _File) -> JsonObject:
    return _experts(file) | {
        "moe_intermediate_size": file.required("expert_feed_forward_length"),
        "shared_expert_intermediate_size": file.required("expert_shared_feed_forward_length"),
        "norm_topk_prob": False,
        "qkv_bias": file.has("blk.0.attn_q.bias"),
    }


def _qwen3_moe(file: _File) -> JsonObject:
    return _experts(file) | {
        "moe_intermediate_size": file.required("expert_feed_forward_length"),
        "norm_topk_prob": True,
    }


def _gemma(file: _File, model_type: str, every: int, window: int | None) -> JsonObject:
    count = file.required("block_count")
    largest, heads = count == LARGEST_GEMMA[model_type], file.required("attention.head_count")
    window = file.get("attention.sliding_window", window) or None
    slides = [window is not None and slides for slides in _pattern(file, count, every)]
    hidden = file.required("embedding_length")
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": hidden // heads if largest else _head_dim(file) or hidden // heads,
        "sliding_window": window,
        "layer_types": [SLIDING if one else FULL for one in slides],
    }


def _pattern(file: _File, count: int, every: int) -> list[bool]:
    """Whether each layer has a window: all but every n-th one (0: all), or as listed layer by layer."""
    key = "attention.sliding_window_pattern"
    said = file.get(key, every)
    if isinstance(said, list) and len(said) == count:
        return [bool(slides) for slides in said]
    if not isinstance(said, int) or said < 0:
        where = f"{file.metadata.file}: {file.name}.{key}"
        raise ModelError(f"{where}: {said!r}, expected a number, or a truth value for each of the {count} layers")
    return [said == 0 or (layer + 1) % said != 0 for layer in range(count)]


def _gemma2(file: _File) -> JsonObject:
    return _gemma(file, "gemma2", 2, 4096) | {
        "attn_logit_softcapping": file.get("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": file.get("final_logit_softcapping", 30.0),
    }


def _gemma3(file: _File) -> JsonObject:
    near = {"rope_type": "default", "rope_theta": file.get("rope.freq_base_swa", NEAR_BASE)}
    return _gemma(file, "gemma3_text", 6, None) | {
        "final_logit_softcapping": file.get("final_logit_softcapping") or None,
        "rope_parameters": {FULL: _rope(file), SLIDING: near},
    }


FURTHER: dict[str, Callable[[_File], JsonObject]] = {
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "llama": _biases,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
    "smollm3": _smollm3,
}
"""`model_type` → what its config.json has besides."""


def _rope(file: _File) -> JsonObject:
    """The rotary parameters. Factors are the `longrope` of transformers, with one list for every length.

    As in llama.cpp (src/llama-model.cpp, load_hparams), the kind is `linear` where none is named, the factor may have
    its older key, and 0 is no scaling.
    """
    get = partial(file.metadata.optional, prefix=f"{file.name}.rope.")
    base = {"rope_theta": get("freq_base") or 10000.0}
    factor = get("scale_linear") if get("scaling.factor") is None else get("scaling.factor")
    kind = get("scaling.type") or "linear"
    kind = "none" if kind == "linear" and not factor else kind
    factors = next((tensor.data for tensor in file.reader.tensors if tensor.name == ROPE_FACTORS), None)
    if factors is None:
        scaling = {"factor": factor, PRETRAINED: get("scaling.original_context_length")}
        scaling = {} if kind == "none" else {key: value for key, value in scaling.items() if value}
        return {"rope_type": "default" if kind == "none" else kind} | base | scaling
    if kind != "none":
        raise ModelError(
            f"{file.metadata.file}: {file.name}.rope.scaling.type {kind!r} beside {ROPE_FACTORS} is not supported"
        )
    listed = np.asarray(factors, np.float32).reshape(-1).tolist()
    lengths = {"factor": 1.0, PRETRAINED: file.required("context_length")}
    return {"rope_type": "longrope", "short_factor": listed, "long_factor": listed} | base | lengths


def _head_dim(file: _File) -> Any:
    """The width of a head, all of which must rotate; None if it is not said."""
    keys = "attention.key_length", "rope.dimension_count"
    width, rotated = map(file.get, keys)
    if None not in (width, rotated) and width != rotated:
        where = f"{file.metadata.file}: {file.name}.{keys[1]}"
        raise ModelError(f"{where}: {rotated} of {width} is not supported, only all of a head")
    return width or rotated
