"""Qwen 2, 2.5 and 3: windows in the upper layers, if configured; 2 has biases, 3 a norm of queries and keys.

With experts (`qwen2_moe`, `qwen3_moe`), windows are configured in other ways, and 2 has an expert for all tokens too.
"""

from __future__ import annotations

from typing import Any

from tunix_rt.models.families.architecture import Architecture, LayerKind
from tunix_rt.models.families.experts import experts
from tunix_rt.models.families.fields import Fields, alike
from tunix_rt.models.families.llama import llama_like


def qwen2(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    return _qwen(fields, attention_bias="inputs")


def qwen3(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    bias, width = fields.attention_bias(), fields.count("head_dim", 128)
    return _qwen(fields, attention_bias=bias, query_key_norm="head", head_dim=width)


def qwen2_moe(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.with_defaults(num_key_value_heads=16, max_position_embeddings=32768, moe_intermediate_size=1408)
    fields = fields.with_defaults(shared_expert_intermediate_size=5632, num_experts_per_tok=4)
    rope, count, used = fields.rope(), fields.count("num_hidden_layers"), fields.flag("use_sliding_window")
    slides = [used and layer % 2 == 0 and layer < _max_window_layers(fields) for layer in range(count)]
    windows = fields.windows(slides, fields.count("sliding_window", 4096) if used else None)
    width, normalised = fields.count("moe_intermediate_size"), fields.flag("norm_topk_prob")
    return llama_like(
        fields,
        tuple(LayerKind(rope, window) for window in windows),
        attention_bias="inputs" if fields.flag("qkv_bias", True) else "none",
        experts=experts(fields, width, normalised, fields.count("shared_expert_intermediate_size")),
    )


def qwen3_moe(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.with_defaults(num_key_value_heads=4, max_position_embeddings=32768, sliding_window=4096)
    fields = fields.with_defaults(moe_intermediate_size=768, num_experts_per_tok=8)
    fields.plain("layer_types", None)
    window = fields.count_or_null("sliding_window") if fields.flag("use_sliding_window") else None
    return llama_like(
        fields,
        alike(fields.count("num_hidden_layers"), fields.rope(), window),
        attention_bias=fields.attention_bias(),
        query_key_norm="head",
        experts=experts(fields, fields.count("moe_intermediate_size"), fields.flag("norm_topk_prob")),
    )


def _qwen(fields: Fields, **parts: Any) -> Architecture:
    fields = fields.with_defaults(num_key_value_heads=32, max_position_embeddings=32768, sliding_window=4096)
    rope = fields.rope()
    return llama_like(fields, tuple(LayerKind(rope, window) for window in _windows(fields)), **parts)


def _windows(fields: Fields) -> list[int | None]:
    count = fields.count("num_hidden_layers")
    used = fields.flag("use_sliding_window") and fields.config.get("sliding_window") is not None
    window = fields.count("sliding_window") if used else None
    first = _max_window_layers(fields)
    return fields.windows([used and layer >= first for layer in range(count)], window)


def _max_window_layers(fields: Fields) -> int:
    first = fields.config.get("max_window_layers", 28)
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise fields.refuse("max_window_layers", f"{first!r}, expected a number of layers")
    return first
