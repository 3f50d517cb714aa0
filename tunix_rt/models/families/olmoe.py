"""OLMoE: experts in every layer, and one norm over all queries and one over all keys (arXiv 2409.02060)."""

from __future__ import annotations

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.experts import experts
from tunix_rt.models.families.fields import Fields, alike
from tunix_rt.models.families.llama import llama_like


def from_config(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields.plain("sliding_window", None)
    fields.all_full("num_hidden_layers")
    fields = fields.with_defaults(max_position_embeddings=4096, rms_norm_eps=1e-5, num_experts_per_tok=8)
    return llama_like(
        fields,
        alike(fields.count("num_hidden_layers"), fields.rope()),
        attention_bias=fields.attention_bias(),
        query_key_norm="whole",
        qkv_limit=fields.number_or_null("clip_qkv"),
        experts=experts(fields, fields.count("intermediate_size"), fields.flag("norm_topk_prob")),
    )
