"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases, a plain feed-forward, matrices as [in, out]."""

from __future__ import annotations

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.fields import ACTIVATIONS, Fields, alike
from tunix_rt.models.families.names import HEAD, Names

NAMES = Names(
    base="transformer.",
    layer="h.{}.",
    parts={
        "attention_norm": ("ln_1.weight",),
        "attention_norm_bias": ("ln_1.bias",),
        "qkv": ("attn.c_attn.weight",),
        "qkv_bias": ("attn.c_attn.bias",),
        "out": ("attn.c_proj.weight",),
        "out_bias": ("attn.c_proj.bias",),
        "mlp_norm": ("ln_2.weight",),
        "mlp_norm_bias": ("ln_2.bias",),
        "up": ("mlp.c_fc.weight",),
        "up_bias": ("mlp.c_fc.bias",),
        "down": ("mlp.c_proj.weight",),
        "down_bias": ("mlp.c_proj.bias",),
    },
    whole={
        "embedding": "transformer.wte.weight",
        "positions": "transformer.wpe.weight",
        "norm": "transformer.ln_f.weight",
        "norm_bias": "transformer.ln_f.bias",
        "head": HEAD,
    },
    transposed=True,
    constants=(".attn.bias", ".attn.masked_bias"),
)

GENERAL = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""Names that other families have for the same fields."""


def from_config(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.renamed(GENERAL)
    fields.plain("scale_attn_weights", True)
    fields.plain("scale_attn_by_inverse_layer_idx", False)
    fields.plain("add_cross_attention", False)
    fields.plain("sliding_window", None)
    heads, hidden = fields.count("n_head"), fields.count("n_embd")
    if hidden % heads:
        raise fields.refuse("n_head", f"{heads} does not divide n_embd {hidden}")
    fields.all_full("n_layer")
    return Architecture(
        family="gpt2",
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("n_inner", 4 * hidden),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        max_positions=fields.count("n_positions", 1024),
        layers=alike(fields.count("n_layer"), None),
        norm_eps=fields.number("layer_norm_epsilon", 1e-5),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        attention_scale=(hidden // heads) ** -0.5,
        norm="layer",
        attention_bias="all",
        mlp_bias=True,
        gated=False,
        activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
        learned_positions=True,
    )
