"""Mistral: Llama with a sliding window in every layer; Mixtral: the same with experts (arXiv 2401.04088)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.experts import experts
from tunix_rt.models.families.fields import Fields, alike
from tunix_rt.models.families.llama import llama_like
from tunix_rt.models.families.names import LLAMA_NAMES, LLAMA_PARTS

MIXTRAL_NAMES = replace(
    LLAMA_NAMES,
    parts=LLAMA_PARTS
    | {
        "router": ("block_sparse_moe.gate.weight",),
        "expert_gate_up": ("block_sparse_moe.experts.{}.w1.weight", "block_sparse_moe.experts.{}.w3.weight"),
        "expert_down": ("block_sparse_moe.experts.{}.w2.weight",),
    },
)


def from_config(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    return _mistral(fields.with_defaults(sliding_window=4096))


def mixtral(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.with_defaults(rope_theta=1e6, rms_norm_eps=1e-5, num_experts_per_tok=2)
    return _mistral(fields, experts=experts(fields, fields.count("intermediate_size"), normalised=True))


def _mistral(fields: Fields, **parts: Any) -> Architecture:
    fields = fields.with_defaults(num_key_value_heads=8, max_position_embeddings=4096 * 32)
    fields.plain("layer_types", None)
    window = fields.count_or_null("sliding_window")
    return llama_like(fields, alike(fields.count("num_hidden_layers"), fields.rope(), window), **parts)
