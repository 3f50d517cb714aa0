"""The Llama family: its config.json and its tensor names, as `transformers` writes them.

In: a config.json as a JSON object. Out: an `Architecture`, and back; the names and shapes of its tensors.
What would change the mathematics and is not computed here is refused by name, never ignored.
"""

from __future__ import annotations

from typing import Any

from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject
from tunix_rt.models.families.architecture import Architecture

# Fields that some Llama-like config.json carries, with the values under which the mathematics is ours.
# (`attention_dropout` is not among them: dropout is off here unless declared.)
PLAIN: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "sliding_window": (None,),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1, None),
    "rope_interleaved": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "quantization_config": (None,),
    "auto_map": (None,),
}


def from_config(config: JsonObject, where: str) -> Architecture:
    """The architecture that a Llama config.json declares; absent fields take the defaults of `transformers`.

    `where` opens the message. Raises ModelError naming the field, what it holds and what is supported.
    """
    for name, allowed in PLAIN.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ModelError(f"{where}: {name}: {config[name]!r} is not supported, only {allowed[0]!r}")
    heads = _count(config, "num_attention_heads", where)
    hidden = _count(config, "hidden_size", where)
    architecture = Architecture(
        family="llama",
        vocab_size=_count(config, "vocab_size", where),
        hidden_size=hidden,
        intermediate_size=_count(config, "intermediate_size", where),
        num_layers=_count(config, "num_hidden_layers", where),
        num_heads=heads,
        num_kv_heads=_count(config, "num_key_value_heads", where, heads),
        head_dim=_count(config, "head_dim", where, hidden // heads),
        max_positions=_count(config, "max_position_embeddings", where, 2048),
        rope_theta=_rope_theta(config, where),
        norm_eps=_number(config, "rms_norm_eps", where, 1e-6),
        tie_embeddings=_flag(config, "tie_word_embeddings", where),
    )
    if architecture.num_heads % architecture.num_kv_heads:
        raise ModelError(
            f"{where}: num_key_value_heads: {architecture.num_kv_heads} does not divide num_attention_heads {heads}"
        )
    if architecture.head_dim % 2:
        raise ModelError(f"{where}: head_dim: {architecture.head_dim} is odd, rotary positions need it even")
    return architecture


def _rope_theta(config: JsonObject, where: str) -> float:
    """The rotary base, from `rope_parameters` (transformers 5) or `rope_theta` (before); no scaling."""
    theta = config
    for name in ("rope_scaling", "rope_parameters"):
        rope = config.get(name)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise ModelError(f"{where}: {name}: expected an object or null, got {rope!r}")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ModelError(f"{where}: {name}: type {kind!r} is not supported, only 'default'")
        if rope.get("partial_rotary_factor", 1) != 1:
            raise ModelError(f"{where}: {name}.partial_rotary_factor: only 1 is supported")
        if rope.get("rope_theta") is not None:
            theta = rope
    return _number(theta, "rope_theta", where, 10000.0)


def _count(config: JsonObject, name: str, where: str, default: int | None = None) -> int:
    value = config.get(name)
    if value is None and default is not None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        given = "missing" if value is None else repr(value)
        raise ModelError(f"{where}: {name}: {given}, expected a positive integer")
    return value


def _number(config: JsonObject, name: str, where: str, default: float) -> float:
    value = config.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise ModelError(f"{where}: {name}: {value!r}, expected a positive number")
    return float(value)


def _flag(config: JsonObject, name: str, where: str) -> bool:
    value = config.get(name, False)
    if not isinstance(value, bool):
        raise ModelError(f"{where}: {name}: {value!r}, expected true or false")
    return value


def to_config(
    architecture: Architecture,
    *,
    bos_id: int | None = None,
    end_ids: tuple[int, ...] = (),
    pad_id: int | None = None,
    initializer_range: float = 0.02,
) -> JsonObject:
    """The config.json from which plain `transformers` builds the same model, in float32."""
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
        # Both names: a reader older than transformers 5 would silently take a base of 10000.
        "rope_theta": architecture.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": architecture.rope_theta},
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


def tensor_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor in a model folder; matrices are [out, in]; a tied head has none."""
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    queries = architecture.num_heads * architecture.head_dim
    keys = architecture.num_kv_heads * architecture.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (architecture.vocab_size, hidden)}
    for layer in range(architecture.num_layers):
        shapes |= {
            f"model.layers.{layer}.input_layernorm.weight": (hidden,),
            f"model.layers.{layer}.self_attn.q_proj.weight": (queries, hidden),
            f"model.layers.{layer}.self_attn.k_proj.weight": (keys, hidden),
            f"model.layers.{layer}.self_attn.v_proj.weight": (keys, hidden),
            f"model.layers.{layer}.self_attn.o_proj.weight": (hidden, queries),
            f"model.layers.{layer}.post_attention_layernorm.weight": (hidden,),
            f"model.layers.{layer}.mlp.gate_proj.weight": (inner, hidden),
            f"model.layers.{layer}.mlp.up_proj.weight": (inner, hidden),
            f"model.layers.{layer}.mlp.down_proj.weight": (hidden, inner),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not architecture.tie_embeddings:
        shapes["lm_head.weight"] = (architecture.vocab_size, hidden)
    return shapes
