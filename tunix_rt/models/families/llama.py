"""The Llama family: config.json → `Architecture`, and the reverse.

A field that would change the mathematics but is not supported is refused by name, never ignored.
"""

from __future__ import annotations

from typing import Any

from tunix_rt.files import JsonObject
from tunix_rt.models.families.architecture import Architecture, LayerKind
from tunix_rt.models.families.fields import ACTIVATIONS, Fields, alike


def from_config(fields: Fields) -> Architecture:
    """The architecture that a config.json declares; absent fields take the defaults of `transformers`.

    Raises ModelError naming the field, what it holds and what is supported.
    """
    # Not fields of Llama, but some tools write them into a Llama's config.json, with effect.
    for name in ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping"):
        fields.plain(name, None)
    for name in ("use_sliding_window", "rope_interleaved"):
        fields.plain(name, False, None)
    fields.all_full("num_hidden_layers")
    fields = fields.with_defaults(max_position_embeddings=2048)
    bias = fields.config.get("attention_bias") is not None and fields.flag("attention_bias")
    return llama_like(
        fields,
        alike(fields.count("num_hidden_layers"), fields.rope()),
        attention_bias="all" if bias else "none",
        mlp_bias=fields.config.get("mlp_bias") is not None and fields.flag("mlp_bias"),
    )


def llama_like(fields: Fields, layers: tuple[LayerKind, ...], **parts: Any) -> Architecture:
    """Reads the fields that Llama's descendants share. `parts`: the fields of `Architecture` that differ."""
    fields.plain("partial_rotary_factor", 1, None)
    heads, hidden = fields.count("num_attention_heads"), fields.count("hidden_size")
    kv_heads = fields.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.refuse("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads {heads}")
    width = parts.pop("head_dim", None) or fields.count("head_dim", hidden // heads)
    if width % 2:
        raise fields.refuse("head_dim", f"{width} is odd, rotary positions need it even")
    activation = parts.pop("activation", None) or fields.choice("hidden_act", ACTIVATIONS, "silu")
    scale = parts.pop("attention_scale", width**-0.5)
    return Architecture(
        family=fields.config["model_type"],
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.count("intermediate_size"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width,
        max_positions=_longest(fields, layers, width),
        layers=layers,
        norm_eps=fields.number("rms_norm_eps", 1e-6),
        tie_embeddings=fields.flag("tie_word_embeddings"),
        attention_scale=scale,
        activation=activation,
        **parts,
    )


def _longest(fields: Fields, layers: tuple[LayerKind, ...], width: int) -> int:
    """The longest sequence: `max_position_embeddings`, or where rotary factors end (see `rope`)."""
    ropes = [kind.rope for kind in layers if kind.rope is not None]
    for rope in ropes:
        if rope.factors is not None and len(rope.factors) != width // 2:
            raise fields.refuse("short_factor", f"{len(rope.factors)} numbers, half of head_dim is {width // 2}")
    ends = [rope.max_positions for rope in ropes if rope.max_positions is not None]
    return min([fields.count("max_position_embeddings"), *ends])


def to_config(
    architecture: Architecture,
    *,
    bos_id: int | None = None,
    end_ids: tuple[int, ...] = (),
    pad_id: int | None = None,
    initializer_range: float = 0.02,
) -> JsonObject:
    """The config.json of a Llama from scratch, from which plain `transformers` builds the same model in float32."""
    rope = architecture.layers[0].rope
    assert rope is not None and rope.scaling in ("default", "linear") and architecture.family == "llama"
    scaling: JsonObject = {"rope_type": "linear", "factor": rope.factor} if rope.scaling == "linear" else {}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": architecture.vocab_size,
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.intermediate_size,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
        "num_key_value_heads": architecture.num_kv_heads,
        "head_dim": architecture.head_dim,
        "max_position_embeddings": architecture.max_positions,
        # Both names: a version older than transformers 5 would silently use a base of 10000.
        "rope_theta": rope.theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": rope.theta} | scaling,
        **({"rope_scaling": scaling} if scaling else {}),
        "rms_norm_eps": architecture.norm_eps,
        "tie_word_embeddings": architecture.tie_embeddings,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": initializer_range,
        "bos_token_id": bos_id,
        "eos_token_id": end_ids[0] if len(end_ids) == 1 else list(end_ids) or None,
        "pad_token_id": pad_id,
    }
