"""OLMo 2: norms after attention and feed-forward, and one over all queries and one over all keys (arXiv 2501.00656)."""

from __future__ import annotations

from dataclasses import replace

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.fields import Fields, alike
from tunix_rt.models.families.llama import llama_like
from tunix_rt.models.families.names import LLAMA_NAMES, LLAMA_PARTS

NAMES = replace(
    LLAMA_NAMES,
    parts=LLAMA_PARTS
    | {
        "attention_post_norm": ("post_attention_layernorm.weight",),
        "mlp_post_norm": ("post_feedforward_layernorm.weight",),
    },
)


def from_config(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields.plain("sliding_window", None)
    fields.all_full("num_hidden_layers")
    fields = fields.with_defaults(max_position_embeddings=2048, rms_norm_eps=1e-5)
    return llama_like(
        fields,
        alike(fields.count("num_hidden_layers"), fields.rope()),
        attention_bias=fields.attention_bias(),
        query_key_norm="whole",
        norm_places="after",
    )
