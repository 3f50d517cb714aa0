"""Qwen 2, 2.5 and 3: windows in the upper layers, if configured; 2 has biases, 3 a norm of queries and keys."""

from __future__ import annotations

from typing import Any

from tunix_rt.models.families.architecture import Architecture, LayerKind
from tunix_rt.models.families.fields import Fields
from tunix_rt.models.families.llama import llama_like


def qwen2(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    return _qwen(fields, attention_bias="inputs")


def qwen3(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    bias, width = fields.attention_bias(), fields.count("head_dim", 128)
    return _qwen(fields, attention_bias=bias, query_key_norm="head", head_dim=width)


def _qwen(fields: Fields, **parts: Any) -> Architecture:
    fields = fields.with_defaults(num_key_value_heads=32, max_position_embeddings=32768, sliding_window=4096)
    rope = fields.rope()
    return llama_like(fields, tuple(LayerKind(rope, window) for window in _windows(fields)), **parts)


def _windows(fields: Fields) -> list[int | None]:
    count = fields.count("num_hidden_layers")
    used = fields.flag("use_sliding_window") and fields.config.get("sliding_window") is not None
    window = fields.count("sliding_window") if used else None
    first = fields.config.get("max_window_layers", 28)
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise fields.refuse("max_window_layers", f"{first!r}, expected a number of layers")
    return fields.windows([used and layer >= first for layer in range(count)], window)
