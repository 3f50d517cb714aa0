"""A model's numbers → the keys of a GGUF file: the inverse of `gguf_config`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.rope import Rope, rotary_frequencies
from tunix_rt.models.folder import Float32
from tunix_rt.models.gguf_families import GgufFamily, longest_context, period

Keys = dict[str, Any]
"""Key → value: a str, bool, int (uint32), float (float32), or a list of one of them."""


def model_keys(a: Architecture, family: GgufFamily) -> Keys:
    """The keys that the model's computation follows from; those of `family_of`'s family."""
    keys: Keys = {
        "vocab_size": a.vocab_size,
        "context_length": longest_context(a, family),
        "embedding_length": a.hidden_size,
        "block_count": a.num_layers,
        "feed_forward_length": a.intermediate_size,
        "attention.head_count": a.num_heads,
        "attention.head_count_kv": a.num_kv_heads,
        "attention.key_length": a.head_dim,
        "attention.value_length": a.head_dim,
        f"attention.layer_norm{'_rms' if a.norm == 'rms' else ''}_epsilon": a.norm_eps,
    }
    keys |= _expert_keys(a) | (_window_keys(a) if family.windows else {})
    if (rope := _rope(a, family)) is not None:
        keys |= {"rope.dimension_count": a.head_dim, **{f"rope.{key}": value for key, value in _rope_keys(rope)}}
    return {f"{family.name}.{key}": value for key, value in keys.items()}


def rope_factors(a: Architecture, family: GgufFamily) -> Float32 | None:
    """What each rotary frequency is divided by, [head_dim / 2]; None: the keys say how they are scaled."""
    rope = _rope(a, family)
    if rope is None or rope.scaling not in ("llama3", "longrope"):
        return None
    factors = rotary_frequencies(Rope(rope.theta), a.head_dim) / rotary_frequencies(rope, a.head_dim)
    return factors.astype(np.float32)


def _rope(a: Architecture, family: GgufFamily) -> Rope | None:
    """The positions of the layers that see everything, else of all."""
    ropes = [kind.rope for kind in a.layers if kind.rope is not None]
    wide = [kind.rope for kind in a.layers if kind.rope is not None and kind.window is None]
    found = wide if family.windows and wide else ropes
    return found[0] if found else None


def _rope_keys(rope: Rope) -> list[tuple[str, Any]]:
    keys: list[tuple[str, Any]] = [("freq_base", rope.theta)]
    if rope.scaling in ("linear", "yarn"):
        keys += [("scaling.type", rope.scaling), ("scaling.factor", rope.factor)]
    if rope.scaling == "yarn":
        keys.append(("scaling.original_context_length", rope.original_positions))
    return keys


def _window_keys(a: Architecture) -> Keys:
    near = next((kind for kind in a.layers if kind.window is not None), None)
    keys: Keys = {"attn_logit_softcapping": a.score_cap, "final_logit_softcapping": a.logit_cap}
    if near is not None:
        keys |= {"attention.sliding_window": near.window, "attention.sliding_window_pattern": period(a)}
        keys |= {"rope.freq_base_swa": near.rope.theta} if a.query_key_norm == "head" and near.rope else {}
    elif a.score_cap is not None:
        keys["attention.sliding_window"] = 0
    return {key: value for key, value in keys.items() if value is not None}


def _expert_keys(a: Architecture) -> Keys:
    if (experts := a.experts) is None:
        return {}
    keys: Keys = {"expert_count": experts.count, "expert_used_count": experts.per_token}
    if experts.intermediate_size != a.intermediate_size or a.family.startswith("qwen"):
        keys["expert_feed_forward_length"] = experts.intermediate_size
    return keys | ({} if experts.shared_size is None else {"expert_shared_feed_forward_length": experts.shared_size})
