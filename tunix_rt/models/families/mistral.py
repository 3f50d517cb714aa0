"""Mistral: Llama with a sliding window in every layer."""

from __future__ import annotations

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.fields import Fields, alike
from tunix_rt.models.families.llama import llama_like


def from_config(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.with_defaults(num_key_value_heads=8, sliding_window=4096, max_position_embeddings=4096 * 32)
    fields.plain("layer_types", None)
    window = fields.count_or_null("sliding_window")
    return llama_like(fields, alike(fields.count("num_hidden_layers"), fields.rope(), window))
