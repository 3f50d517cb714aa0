"""How families name the tensors of a model folder, and what is known of each tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunix_rt.models.families.architecture import EXPERT, ROUTER, Shape


@dataclass(frozen=True, slots=True)
class Names:
    """The names a family gives its tensors."""

    base: str
    """Prefix of everything but the head; exports of the bare model leave it out."""
    layer: str
    """Follows `base` in the names of the tensors of layer `{}`."""
    parts: Mapping[str, tuple[str, ...]]
    """Canonical part of a layer → one tensor per piece, or a single tensor that holds all pieces. Of the parts of
    experts, the tensors of expert `{}`."""
    whole: Mapping[str, str]
    """Canonical part outside the layers → tensor."""
    transposed: bool = False
    """Matrices of layers are stored as [in, out] (GPT-2's `Conv1D`)."""
    constants: tuple[str, ...] = (".rotary_emb.inv_freq",)
    """Name suffixes of tensors that old exports stored and that are not needed."""


Split = Literal["out", "in"]
SPLITS: Mapping[str, Split] = {
    "embedding": "out",
    "head": "out",
    "qkv": "out",
    "out": "in",
    "gate_up": "out",
    "up": "out",
    "down": "in",
    "expert_gate_up": "out",
    "expert_down": "in",
    "shared_gate_up": "out",
    "shared_down": "in",
}
"""Canonical part → by what tensor parallelism divides its matrices, each piece by itself: what they make, or what they
take (arXiv 1909.08053). All others are whole on every device."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a model folder."""

    name: str
    shape: Shape
    """The shape in the file."""
    canonical_name: str
    """The canonical part that it belongs to."""
    layer: int | None
    pieces: tuple[Shape, ...]
    """The pieces of that part that it holds."""
    transposed: bool

    @property
    def is_layer_matrix(self) -> bool:
        """Whether it is a matrix of a layer that is multiplied in the declared precision: all but a router."""
        return self.layer is not None and len(self.shape) == 2 and self.canonical_name != ROUTER

    @property
    def split(self) -> Split | None:
        """How tensor parallelism divides it; a bias as its matrix, if that is divided by what it makes."""
        found = SPLITS.get(self.canonical_name.removesuffix("_bias"))
        return found if found == "out" or len(self.shape) == 2 else None

    @property
    def takes_adapter(self) -> bool:
        """Whether an adapter can be attached to it: a matrix of a layer, but not of one expert among many."""
        return self.is_layer_matrix and self.canonical_name not in EXPERT

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Of a matrix, (out, in), however it lies in the file."""
        first, second = self.shape
        return (second, first) if self.transposed else (first, second)


HEAD = "lm_head.weight"


LLAMA_PARTS: dict[str, tuple[str, ...]] = {
    "attention_norm": ("input_layernorm.weight",),
    "qkv": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "qkv_bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "query_norm": ("self_attn.q_norm.weight",),
    "key_norm": ("self_attn.k_norm.weight",),
    "out": ("self_attn.o_proj.weight",),
    "out_bias": ("self_attn.o_proj.bias",),
    "mlp_norm": ("post_attention_layernorm.weight",),
    "gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "gate_up_bias": ("mlp.gate_proj.bias", "mlp.up_proj.bias"),
    "down": ("mlp.down_proj.weight",),
    "down_bias": ("mlp.down_proj.bias",),
    "router": ("mlp.gate.weight",),
    "expert_gate_up": ("mlp.experts.{}.gate_proj.weight", "mlp.experts.{}.up_proj.weight"),
    "expert_down": ("mlp.experts.{}.down_proj.weight",),
    "shared_gate_up": ("mlp.shared_expert.gate_proj.weight", "mlp.shared_expert.up_proj.weight"),
    "shared_down": ("mlp.shared_expert.down_proj.weight",),
    "shared_scale": ("mlp.shared_expert_gate.weight",),
}
"""Llama's names, which most families adopted."""

LLAMA_NAMES = Names(
    base="model.",
    layer="layers.{}.",
    parts=LLAMA_PARTS,
    whole={"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": HEAD},
)
"""Llama's complete naming; families that differ replace `parts`."""
