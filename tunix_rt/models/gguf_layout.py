"""Tensors of a model folder ↔ tensors of a GGUF file: one description, read in both directions.

In GGUF a matrix is [out, in] in every family, the experts of a layer are one tensor, Gemma's norms hold 1 + w, and
Llama's queries and keys have the two halves of a rotary pair as neighbours (llama.cpp, conversion/).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tunix_rt.models.families.architecture import EXPERT, ROUTER, Architecture, Shape, kind_of
from tunix_rt.models.families.names import HEAD, Tensor
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.folder import Float32, Weights
from tunix_rt.models.gguf_families import FAMILIES

NAMES: dict[str, tuple[str, ...]] = {
    "embedding": ("TOKEN_EMBD",),
    "positions": ("POS_EMBD",),
    "norm": ("OUTPUT_NORM",),
    "head": ("OUTPUT",),
    "attention_norm": ("ATTN_NORM",),
    "attention_post_norm": ("ATTN_POST_NORM",),
    "qkv": ("ATTN_Q", "ATTN_K", "ATTN_V"),
    "query_norm": ("ATTN_Q_NORM",),
    "key_norm": ("ATTN_K_NORM",),
    "out": ("ATTN_OUT",),
    "mlp_norm": ("FFN_NORM",),
    "mlp_post_norm": ("FFN_POST_NORM",),
    "gate_up": ("FFN_GATE", "FFN_UP"),
    "up": ("FFN_UP",),
    "down": ("FFN_DOWN",),
    "router": ("FFN_GATE_INP",),
    "expert_gate_up": ("FFN_GATE_EXP", "FFN_UP_EXP"),
    "expert_down": ("FFN_DOWN_EXP",),
    "shared_gate_up": ("FFN_GATE_SHEXP", "FFN_UP_SHEXP"),
    "shared_down": ("FFN_DOWN_SHEXP",),
    "shared_scale": ("FFN_GATE_INP_SHEXP",),
}
"""Canonical part → its tensors, as members of `gguf.MODEL_TENSOR`."""
FUSED = ("ATTN_QKV",)
"""Queries, keys and values where a family holds them as one tensor."""
WHOLE = (ROUTER, "shared_scale", "positions")
"""Parts that are never rounded (llama.cpp, conversion/base.py, prepare_tensors); nor are vectors."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the file."""

    name: str
    tensors: tuple[Tensor, ...]
    """The tensors of the folder that it holds: one, or one of each expert."""
    stacked: bool = False
    """The tensors are one behind the other, along a first dimension."""
    heads: int | None = None
    """Within so many heads, rotary pairs are neighbours."""
    offset: float = 0.0
    """Added in the file."""

    @property
    def shape(self) -> Shape:
        """Its shape as numpy has it: GGUF counts dimensions the other way."""
        tensor = self.tensors[0]
        if tensor.canonical_name == "shared_scale":
            return tensor.shape[1:]
        shape = tensor.shape[::-1] if tensor.transposed else tensor.shape
        return (len(self.tensors), *shape) if self.stacked else shape

    @property
    def is_whole(self) -> bool:
        """Whether it stays float32 in a file of another type."""
        return len(self.shape) == 1 or self.tensors[0].canonical_name in WHOLE

    def to_file(self, arrays: Sequence[Float32]) -> Float32:
        """The tensor of the file, from those of the folder."""
        return np.stack([self._out(array) for array in arrays]) if self.stacked else self._out(arrays[0])

    def from_file(self, values: Float32) -> Weights:
        """The inverse, by name."""
        pieces = values if self.stacked else [values]
        return {tensor.name: self._back(piece, tensor) for tensor, piece in zip(self.tensors, pieces, strict=True)}

    def _out(self, array: Float32) -> Float32:
        array = array.T if self.tensors[0].transposed else array
        array = permute(array, self.heads) if self.heads else array
        return (array + np.float32(self.offset) if self.offset else array).reshape(self._piece)

    def _back(self, piece: Float32, tensor: Tensor) -> Float32:
        piece = piece - np.float32(self.offset) if self.offset else piece
        piece = unpermute(piece, self.heads) if self.heads else piece
        return np.ascontiguousarray(piece.T if tensor.transposed else piece).reshape(tensor.shape)

    @property
    def _piece(self) -> Shape:
        return self.shape[1:] if self.stacked else self.shape


def permute(values: Float32, heads: int) -> Float32:
    """The two halves of each head's rows as neighbours (llama.cpp, conversion/llama.py, LlamaModel.permute)."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def unpermute(values: Float32, heads: int) -> Float32:
    """The inverse: (0, d/2), (1, d/2 + 1) … are neighbours in GGUF, halves are separate in a Hugging Face folder."""
    return values.reshape(heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def layout(architecture: Architecture) -> tuple[Stored, ...]:
    """The tensors of the file of a model, in the order of a forward pass."""
    return tuple(_layout(architecture))


def _layout(a: Architecture) -> Iterator[Stored]:
    tensors = tensors_of(a)
    for (own, layer), group in groupby(tensors, key=lambda tensor: (tensor.canonical_name, tensor.layer)):
        yield from _stored(a, own, layer, tuple(group))
    if a.tie_embeddings and FAMILIES[a.family].own_head:
        yield Stored(_name(NAMES["head"][0], None, HEAD), tensors[:1])


def _stored(a: Architecture, own: str, layer: int | None, tensors: tuple[Tensor, ...]) -> Iterator[Stored]:
    part = own.removesuffix("_bias")
    names = FUSED if part == "qkv" and len(tensors) == 1 else NAMES[part]
    heads = (a.num_heads, a.num_kv_heads) if part == "qkv" and FAMILIES[a.family].permuted else ()
    for place, name in enumerate(names):
        mine = tensors[place :: len(names)]
        yield Stored(
            _name(name, layer, mine[0].name),
            mine,
            stacked=own in EXPERT,
            heads=heads[place] if place < len(heads) else None,
            offset=a.norm_offset if kind_of(own) == "norms" else 0.0,
        )


def _name(member: str, layer: int | None, own: str) -> str:
    from gguf import MODEL_TENSOR, TENSOR_NAMES

    return f"{TENSOR_NAMES[MODEL_TENSOR[member]].format(bid=layer)}.{own.rpartition('.')[2]}"
