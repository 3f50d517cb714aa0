"""The decoder's own parameters ↔ tensors under Hugging Face names. Numpy on both sides; knows no device.

Own layout: see `decoder`. Both directions serve the weights and, name for name, the optimizer's moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tunix_rt.models.families.architecture import Architecture

Array = np.ndarray[Any, np.dtype[np.float32]]

LAYER_PARTS: dict[str, tuple[str, ...]] = {
    "attention_norm": ("input_layernorm",),
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "mlp_norm": ("post_attention_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Own name of a layer's tensor → the Hugging Face tensors that lie in it, one after the other by rows."""
WHOLE = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}


def from_hugging_face(tensors: Mapping[str, Array], architecture: Architecture) -> dict[str, Any]:
    """Tensors by Hugging Face name, float32 → the pure state of a `Decoder`."""
    layers = {
        own: np.stack(
            [
                np.concatenate([tensors[f"model.layers.{layer}.{part}.weight"] for part in parts])
                for layer in range(architecture.num_layers)
            ]
        )
        for own, parts in LAYER_PARTS.items()
    }
    whole = {own: tensors[name] for own, name in WHOLE.items() if name in tensors}
    return whole | {"layers": layers}


def to_hugging_face(params: Mapping[str, Any], architecture: Architecture) -> dict[str, Array]:
    """The inverse: views into the arrays of `params`, by Hugging Face name."""
    tensors = {name: params[own] for own, name in WHOLE.items() if own in params}
    for own, parts in LAYER_PARTS.items():
        cuts = np.cumsum(_rows(own, architecture))[:-1]
        for layer in range(architecture.num_layers):
            for part, tensor in zip(parts, np.split(params["layers"][own][layer], cuts), strict=True):
                tensors[f"model.layers.{layer}.{part}.weight"] = tensor
    return tensors


def _rows(own: str, architecture: Architecture) -> tuple[int, ...]:
    """Rows of each part of a layer's tensor."""
    queries = architecture.num_heads * architecture.head_dim
    keys = architecture.num_kv_heads * architecture.head_dim
    parts = {
        "qkv": (queries, keys, keys),
        "gate_up": (architecture.intermediate_size, architecture.intermediate_size),
    }
    return parts.get(own, (architecture.hidden_size,))
