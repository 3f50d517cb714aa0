"""Tensors under Hugging Face names ↔ the parameters of Tunix's models. Numpy on both sides.

Tunix reads model folders but writes none, so both directions are here, for weights and for the optimizer's moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tunix_rt.models.families.architecture import Architecture, Shape, kind_of
from tunix_rt.models.families.registry import tensors_of

Array = np.ndarray[Any, np.dtype[np.float32]]
Path = tuple[Any, ...]
"""Path of a parameter in the state of an nnx module: names and layer numbers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of a model folder is stored in Tunix's model."""

    path: Path
    axes: tuple[int, ...] = ()
    """Permutation of the tensor's axes, once its heads are an axis, to the parameter's; empty: unchanged."""
    slot: int | None = None
    """Index in the parameter's first axis, if several tensors share a parameter."""


TO_HEADS, FROM_HEADS, TURNED = (2, 0, 1), (1, 2, 0), (1, 0)
MLP = {f"mlp.{name}.weight": Place(("mlp", name, "kernel"), TURNED) for name in ("gate_proj", "up_proj", "down_proj")}

QWEN = MLP | {
    "model.embed_tokens.weight": Place(("embedder", "input_embedding")),
    "model.norm.weight": Place(("final_norm", "w")),
    "lm_head.weight": Place(("lm_head", "w"), TURNED),
    "input_layernorm.weight": Place(("input_layernorm", "w")),
    "post_attention_layernorm.weight": Place(("post_attention_layernorm", "w")),
    "self_attn.q_proj.weight": Place(("attn", "q_proj", "w"), TO_HEADS),
    "self_attn.k_proj.weight": Place(("attn", "k_proj", "w"), TO_HEADS),
    "self_attn.v_proj.weight": Place(("attn", "v_proj", "w"), TO_HEADS),
    "self_attn.o_proj.weight": Place(("attn", "o_proj", "w"), FROM_HEADS),
    "self_attn.q_proj.bias": Place(("attn", "q_bias")),
    "self_attn.k_proj.bias": Place(("attn", "k_bias")),
    "self_attn.v_proj.bias": Place(("attn", "v_bias")),
    "self_attn.q_norm.weight": Place(("attn", "q_norm", "w")),
    "self_attn.k_norm.weight": Place(("attn", "k_norm", "w")),
}
"""Places in `Qwen2` and `Qwen3`; names inside a layer lack the layer's prefix."""

PER_HEAD = (0, 2, 1)
GEMMA3 = MLP | {
    "model.embed_tokens.weight": Place(("embedder", "input_embedding")),
    "model.norm.weight": Place(("final_norm", "scale")),
    "input_layernorm.weight": Place(("pre_attention_norm", "scale")),
    "post_attention_layernorm.weight": Place(("post_attention_norm", "scale")),
    "pre_feedforward_layernorm.weight": Place(("pre_ffw_norm", "scale")),
    "post_feedforward_layernorm.weight": Place(("post_ffw_norm", "scale")),
    "self_attn.q_norm.weight": Place(("attn", "_query_norm", "scale")),
    "self_attn.k_norm.weight": Place(("attn", "_key_norm", "scale")),
    "self_attn.q_proj.weight": Place(("attn", "q_einsum", "w"), PER_HEAD),
    "self_attn.k_proj.weight": Place(("attn", "kv_einsum", "w"), PER_HEAD, slot=0),
    "self_attn.v_proj.weight": Place(("attn", "kv_einsum", "w"), PER_HEAD, slot=1),
    "self_attn.o_proj.weight": Place(("attn", "attn_vec_einsum", "w"), FROM_HEADS),
}
GEMMA3_ALIKE = GEMMA3 | {
    f"self_attn.{name}_proj.weight": Place(("attn", "qkv_einsum", "w"), PER_HEAD, slot)
    for slot, name in enumerate("qkv")
}
"""Places in a Gemma 3 with as many key-value heads as query heads."""


@dataclass(frozen=True, slots=True)
class WeightMapping:
    """Maps every tensor of a model folder to its place in Tunix's model."""

    shapes: Mapping[str, Shape]
    """Shapes by name, as in a file."""
    places: Mapping[str, Place]
    """Places by name."""
    kinds: Mapping[Path, str]
    """Maps each parameter to its `optimizer.no_decay` kind."""
    params: Mapping[Path, Shape]
    """Tunix's shape of each parameter."""

    @classmethod
    def of(cls, architecture: Architecture, table: Mapping[str, Place], params: Mapping[Path, Shape]) -> WeightMapping:
        """`table`: QWEN, for example; `params`: the shapes of the model's parameters."""
        shapes, places, kinds = {}, {}, {}
        for tensor in tensors_of(architecture):
            if tensor.layer is None:
                place = table[tensor.name]
            else:
                prefix = f"layers.{tensor.layer}."
                inner = table[tensor.name.partition(prefix)[2]]
                place = replace(inner, path=("layers", tensor.layer, *inner.path))
            shapes[tensor.name], places[tensor.name] = tensor.shape, place
            kinds[place.path] = kind_of(tensor.canonical_name)
        assert set(kinds) == set(params), set(kinds) ^ set(params)
        return cls(shapes, places, kinds, params)

    def from_files(self, tensors: Mapping[str, Array]) -> dict[Path, Array]:
        """Tensors by Hugging Face name → parameters by path."""
        found: dict[Path, Array] = {}
        slots: dict[Path, list[Array]] = {}
        for name, place in self.places.items():
            array = tensors[name]
            if place.axes:
                array = array.reshape(self._view(place)).transpose(place.axes)
            if place.slot is None:
                found[place.path] = array
            else:
                slots.setdefault(place.path, []).append(array)  # tensors come in the order of their slots
        return found | {path: np.stack(arrays) for path, arrays in slots.items()}

    def to_files(self, params: Mapping[Path, Array]) -> dict[str, Array]:
        """The inverse: views where possible."""
        found = {}
        for name, place in self.places.items():
            array = params[place.path] if place.slot is None else params[place.path][place.slot]
            if place.axes:
                array = array.transpose(np.argsort(place.axes)).reshape(self.shapes[name])
            found[name] = array
        return found

    def _view(self, place: Place) -> Shape:
        """The tensor's shape once its heads are an axis."""
        shape = self.params[place.path][0 if place.slot is None else 1 :]
        return tuple(shape[axis] for axis in np.argsort(place.axes))
