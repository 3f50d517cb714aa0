"""Gemma 2 and the text models of Gemma 3: norms on both sides, scaled embeddings, windows, and either soft caps
(2) or norms of queries and keys and two rotary bases (3).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunix_rt.models.families.architecture import Architecture, LayerKind
from tunix_rt.models.families.fields import ACTIVATIONS, FULL, SLIDING, Fields
from tunix_rt.models.families.llama import llama_like
from tunix_rt.models.families.names import LLAMA_NAMES, LLAMA_PARTS

NAMES = replace(
    LLAMA_NAMES,
    parts=LLAMA_PARTS
    | {
        "attention_post_norm": ("post_attention_layernorm.weight",),
        "mlp_norm": ("pre_feedforward_layernorm.weight",),
        "mlp_post_norm": ("post_feedforward_layernorm.weight",),
    },
)


def gemma2(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.with_defaults(max_position_embeddings=8192)
    rope = fields.rope()
    return _gemma(
        fields,
        [LayerKind(rope, window) for window in _windows(fields, 2)],
        score_cap=fields.number_or_null("attn_logit_softcapping", 50.0),
        logit_cap=fields.number_or_null("final_logit_softcapping", 30.0),
    )


def gemma3(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.with_defaults(max_position_embeddings=131072, rope_theta=1000000.0)
    fields.plain("attn_logit_softcapping", None)  # transformers reads this field for Gemma 3 but does not use it
    return _gemma(
        fields,
        _layers_of_two_bases(fields),
        query_key_norm="head",
        logit_cap=fields.number_or_null("final_logit_softcapping"),
    )


def _gemma(fields: Fields, layers: list[LayerKind], **parts: Any) -> Architecture:
    fields.plain("use_bidirectional_attention", None, False)
    return llama_like(
        fields.with_defaults(num_key_value_heads=4, tie_word_embeddings=True),
        tuple(layers),
        head_dim=fields.count("head_dim", 256),
        activation=fields.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
        attention_scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        attention_bias=fields.attention_bias(),
        norm_offset=1.0,
        norm_places="both",
        embedding_scale=fields.count("hidden_size") ** 0.5,
        **parts,
    )


def _layers_of_two_bases(fields: Fields) -> list[LayerKind]:
    """Sliding layers rotate with the local base, which is never scaled in configs older than transformers 5."""
    everywhere = fields.rope(FULL)
    local = fields.number("rope_local_base_freq", 10000.0)
    declared = (fields.config.get("rope_parameters") or {}).get(SLIDING)
    if declared is not None and not isinstance(declared, dict):
        raise fields.refuse(f"rope_parameters.{SLIDING}", f"expected an object or null, got {declared!r}")
    near = fields.rope_of({"rope_theta": local} | (declared or {}), f"rope_parameters.{SLIDING}")
    every = fields.count("sliding_window_pattern", 6)
    return [LayerKind(everywhere if window is None else near, window) for window in _windows(fields, every)]


def _windows(fields: Fields, every: int) -> list[int | None]:
    """Windows per layer; one layer in `every` has full attention."""
    fields = fields.with_defaults(sliding_window=4096)
    slides = [(layer + 1) % every != 0 for layer in range(fields.count("num_hidden_layers"))]
    return fields.windows(slides, fields.count_or_null("sliding_window"))
