"""SmolLM3: Llama in which some layers have no positions (NoPE, arXiv 2501.18795)."""

from __future__ import annotations

from tunix_rt.models.families.architecture import Architecture, LayerKind
from tunix_rt.models.families.fields import SLIDING, Fields
from tunix_rt.models.families.llama import llama_like


def from_config(fields: Fields) -> Architecture:
    """As `llama.from_config`."""
    fields = fields.with_defaults(
        num_key_value_heads=4, max_position_embeddings=32768, rope_theta=2000000.0, tie_word_embeddings=True
    )
    rope, rotated = fields.rope(), _rotated(fields, fields.count("num_hidden_layers"))
    used = fields.flag("use_sliding_window") and fields.config.get("sliding_window") is not None
    windows = fields.windows([used and not turned for turned in rotated], fields.count_or_null("sliding_window"))
    if not used and any(windows):
        raise fields.refuse("layer_types", f"{SLIDING!r} needs use_sliding_window")
    return llama_like(
        fields,
        tuple(LayerKind(rope if turned else None, wide) for turned, wide in zip(rotated, windows, strict=True)),
        attention_bias=fields.attention_bias(),
        mlp_bias=fields.flag("mlp_bias"),
    )


def _rotated(fields: Fields, count: int) -> list[bool]:
    """Which layers rotate queries and keys: `no_rope_layers` has a 1 for those that do."""
    every = fields.count("no_rope_layer_interval", 4)
    given = fields.config.get("no_rope_layers")
    given = [int((layer + 1) % every != 0) for layer in range(count)] if given is None else given
    if not isinstance(given, list) or len(given) != count or any(item not in (0, 1) for item in given):
        raise fields.refuse("no_rope_layers", f"expected a list of {count} zeros and ones, got {given!r}")
    return [bool(item) for item in given]
