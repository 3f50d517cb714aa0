"""The numbers and the parts that define a decoder, independent of family naming. Plain data: no framework.

A decoder is embeddings, layers of attention and feed-forward between norms, a last norm and a head. Families
differ in few declared parts; each field below is one such difference. Canonical names of tensors and their shapes
are defined in this module only.
Legend: V vocabulary, D hidden width, F inner width, H query heads, K key and value heads, d width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from tunix_rt.models.families.rope import Rope

Shape = tuple[int, ...]
ROUTER = "router"
"""The matrix whose product with a token chooses its experts; it is multiplied in float32 (arXiv 2101.03961, 2.4)."""
EXPERT = ("expert_gate_up", "expert_down")
"""The parts that consist of one piece (gate and up: two) for each expert."""
Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What may differ from layer to layer."""

    rope: Rope | None
    """None: queries and keys get no rotary positions."""
    window: int | None = None
    """A position sees itself and the `window` - 1 before it; None: all before it."""


@dataclass(frozen=True, slots=True)
class Experts:
    """A feed-forward of which each token passes through few of many experts (arXiv 1701.06538)."""

    count: int
    per_token: int
    intermediate_size: int
    """Width inside an expert."""
    normalised: bool
    """The weights of a token's experts are divided by their sum."""
    shared_size: int | None = None
    """Width inside an expert for all tokens, scaled by a sigmoid of its own (Qwen 2); None: there is none."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder. The defaults are Llama's."""

    family: str
    """`model_type` of config.json: selects the module in `families/` that maps its names."""
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    """Width inside the feed-forward layer; with `experts`, which have their own, it has no effect."""
    num_heads: int
    """Query heads; each group of num_heads / num_kv_heads of them shares one key and value head."""
    num_kv_heads: int
    head_dim: int
    """Width of one head; num_heads * head_dim need not be hidden_size."""
    max_positions: int
    """Longest sequence, in tokens."""
    layers: tuple[LayerKind, ...]
    norm_eps: float
    """Added to the mean square (or the variance) inside a norm."""
    tie_embeddings: bool
    """The output head is the embedding matrix."""
    attention_scale: float
    """Factor of the attention scores, usually 1 / sqrt(head_dim)."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm (arXiv 1910.07467), or LayerNorm with a bias (arXiv 1607.06450)."""
    norm_offset: float = 0.0
    """Added to a norm's weight (Gemma: 1, with weights that start at 0)."""
    norm_places: Literal["before", "after", "both"] = "before"
    """Where norms are, relative to attention and feed-forward, inside the residual branch."""
    query_key_norm: Literal["none", "head", "whole"] = "none"
    """A norm of queries and keys: per head, or over all heads at once."""
    attention_bias: Literal["none", "inputs", "all"] = "none"
    """Biases of attention. `inputs`: queries, keys and values; `all`: the output as well."""
    mlp_bias: bool = False
    gated: bool = True
    """activation(gate) * up (arXiv 2002.05202), or plain activation(up)."""
    activation: Activation = "silu"
    learned_positions: bool = False
    """A learned table of positions is added to the embeddings."""
    embedding_scale: float = 1.0
    score_cap: float | None = None
    """Scores become cap * tanh(score / cap) before the mask (Gemma 2, arXiv 2408.00118)."""
    logit_cap: float | None = None
    """The same cap for logits."""
    qkv_limit: float | None = None
    """Queries, keys and values are clipped to [-limit, limit], after their norms (OLMoE, arXiv 2409.02060)."""
    experts: Experts | None = None
    """Instead of one feed-forward, in every layer."""

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def num_parameters(self) -> int:
        """Number of weights; a tied head counts once."""
        layer = sum(math.prod(shape) for pieces in layer_parts(self).values() for shape in pieces)
        return self.num_layers * layer + sum(math.prod(shape) for shape in whole_parts(self).values())

    @property
    def num_active_parameters(self) -> int:
        """Number of weights that one token is computed with: those of its own experts, and all others."""
        if self.experts is None:
            return self.num_parameters
        idle, parts = self.experts.count - self.experts.per_token, layer_parts(self)
        each = sum(math.prod(shape) for name in EXPERT for shape in parts[name]) // self.experts.count
        return self.num_parameters - self.num_layers * idle * each


def layer_parts(a: Architecture) -> dict[str, tuple[Shape, ...]]:
    """Maps the canonical name of each tensor of a layer to the shapes of its pieces, stacked by rows.

    Matrices are [out, in]; those that read the same input are one part.
    """
    hidden, inner = a.hidden_size, a.intermediate_size
    queries, keys = a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim
    parts: dict[str, tuple[Shape, ...]] = {}
    norms = {"before": ("attention_norm", "mlp_norm"), "after": ("attention_post_norm", "mlp_post_norm")}
    places = ("before", "after") if a.norm_places == "both" else (a.norm_places,)
    for name in (name for place in places for name in norms[place]):
        parts[name] = ((hidden,),)
        if a.norm == "layer":
            parts[f"{name}_bias"] = ((hidden,),)
    parts["qkv"] = ((queries, hidden), (keys, hidden), (keys, hidden))
    parts["out"] = ((hidden, queries),)
    if a.attention_bias != "none":
        parts["qkv_bias"] = ((queries,), (keys,), (keys,))
    if a.attention_bias == "all":
        parts["out_bias"] = ((hidden,),)
    if a.query_key_norm != "none":
        whole = a.query_key_norm == "whole"
        parts["query_norm"] = ((queries if whole else a.head_dim,),)
        parts["key_norm"] = ((keys if whole else a.head_dim,),)
    if a.experts is not None:
        return parts | _expert_parts(a.experts, hidden)
    first = "gate_up" if a.gated else "up"
    parts[first] = ((inner, hidden),) * (2 if a.gated else 1)
    parts["down"] = ((hidden, inner),)
    if a.mlp_bias:
        parts[f"{first}_bias"] = ((inner,),) * (2 if a.gated else 1)
        parts["down_bias"] = ((hidden,),)
    return parts


def _expert_parts(experts: Experts, hidden: int) -> dict[str, tuple[Shape, ...]]:
    inner, shared = experts.intermediate_size, experts.shared_size
    parts: dict[str, tuple[Shape, ...]] = {
        ROUTER: ((experts.count, hidden),),
        "expert_gate_up": ((inner, hidden),) * (2 * experts.count),
        "expert_down": ((hidden, inner),) * experts.count,
    }
    if shared is None:
        return parts
    of_all = {"shared_gate_up": ((shared, hidden),) * 2, "shared_down": ((hidden, shared),)}
    return parts | of_all | {"shared_scale": ((1, hidden),)}


def whole_parts(a: Architecture) -> dict[str, Shape]:
    """Canonical name and shape of each tensor outside the layers."""
    parts: dict[str, Shape] = {"embedding": (a.vocab_size, a.hidden_size), "norm": (a.hidden_size,)}
    if a.learned_positions:
        parts["positions"] = (a.max_positions, a.hidden_size)
    if a.norm == "layer":
        parts["norm_bias"] = (a.hidden_size,)
    if not a.tie_embeddings:
        parts["head"] = (a.vocab_size, a.hidden_size)
    return parts


def kind_of(own: str) -> Literal["norms", "biases", "embeddings", "matrices"]:
    """The kind (as in `optimizer.no_decay`) of a tensor, from its canonical name."""
    if own.endswith("_bias"):
        return "biases"
    if own.endswith("norm"):
        return "norms"
    return "embeddings" if own in ("embedding", "positions") else "matrices"
