"""The decoder: token ids → hidden states, over plain tensors named as Hugging Face names them.

The mathematics is that of the families' models in `transformers` (tested against them), put together from the
parts that an `Architecture` declares; training and generation run this one function and differ only in
`Attend`. Own code because importing the transformers model alone costs 9 CPU-seconds, three times what torch
itself takes, and its per-call overhead slows decoding of small models.
Legend: B rows, T positions, E hidden width, H query heads, K key and value heads, D head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear, rms_norm, silu

from tunix_rt.backends.torch.attention import Attend
from tunix_rt.models.families import registry
from tunix_rt.models.families.architecture import Activation, Architecture, Rope, kind_of, rotary_frequencies
from tunix_rt.models.families.names import Tensor as Named

Rotation = tuple[Tensor, Tensor]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": partial(gelu, approximate="tanh"),
}


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model's numbers and its weights."""

    architecture: Architecture
    weights: dict[str, Tensor]
    """By Hugging Face name; a tied output head has no entry."""

    @property
    def head(self) -> Tensor:
        """The output matrix [V, E]."""
        return self.whole("embedding" if self.architecture.tie_embeddings else "head")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.device

    def whole(self, own: str) -> Tensor:
        """A part outside the layers, by its own name."""
        return self.weights[_places(self.architecture)[own, None][0].name]

    def has(self, own: str, layer: int | None) -> bool:
        """Whether the family has the part, in a layer or (None) outside."""
        return (own, layer) in _places(self.architecture)

    def project(self, own: str, layer: int, x: Tensor) -> list[Tensor]:
        """`x` [..., in] times each piece of a part of a layer, with its bias → [..., out] each."""
        places = _places(self.architecture)
        biases = places.get((f"{own}_bias", layer), ())
        found: list[Tensor] = []
        for index, place in enumerate(places[own, layer]):
            matrix = self.weights[place.name]
            bias = self.weights[biases[index].name] if biases else None
            y = linear(x, matrix.t() if place.transposed else matrix, bias)
            rows = [piece[0] for piece in place.pieces]
            found += [y] if len(rows) == 1 else torch.split(y, rows, dim=-1)
        return found

    def norm(self, own: str, layer: int | None, x: Tensor) -> Tensor:
        """A norm over the last axis, float32; `x` itself where the family has none there."""
        place = _places(self.architecture).get((own, layer))
        if place is None:
            return x
        shape, weight = self.architecture, self.weights[place[0].name]
        weight = weight + shape.norm_offset if shape.norm_offset else weight
        if shape.norm == "rms":
            return rms_norm(x.float(), x.shape[-1:], weight, shape.norm_eps)
        bias = self.weights[_places(shape)[f"{own}_bias", layer][0].name]
        return layer_norm(x.float(), x.shape[-1:], weight, bias, shape.norm_eps)


def kinds_of(model: Decoder) -> dict[str, str]:
    """Which `no_decay` kind each weight is."""
    return {tensor.name: kind_of(tensor.own) for tensor in registry.tensors_of(model.architecture)}


@cache
def _places(architecture: Architecture) -> dict[tuple[str, int | None], tuple[Named, ...]]:
    """(own part, layer) → the tensors in which it lies."""
    places: dict[tuple[str, int | None], tuple[Named, ...]] = {}
    for tensor in registry.tensors_of(architecture):
        places[tensor.own, tensor.layer] = (*places.get((tensor.own, tensor.layer), ()), tensor)
    return places


def hidden_states(model: Decoder, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
    """`tokens`, `positions` int64 [B, T] → float32 [B, T, E], after the last norm."""
    shape = model.architecture
    rotations = {kind.rope: _rotation(shape, kind.rope, positions) for kind in shape.layers if kind.rope is not None}
    x = embedding(tokens, model.whole("embedding"))
    if shape.embedding_scale != 1:
        x = x * shape.embedding_scale
    if shape.learned_positions:
        x = x + embedding(positions, model.whole("positions"))
    for layer, kind in enumerate(shape.layers):
        rotation = None if kind.rope is None else rotations[kind.rope]
        y = _attention(model, layer, model.norm("attention_norm", layer, x), rotation, attend)
        x = x + model.norm("attention_post_norm", layer, y)
        y = _feed_forward(model, layer, model.norm("mlp_norm", layer, x))
        x = x + model.norm("mlp_post_norm", layer, y)
    return model.norm("norm", None, x)


def _feed_forward(model: Decoder, layer: int, x: Tensor) -> Tensor:
    activation = ACTIVATIONS[model.architecture.activation]
    if model.architecture.gated:
        gate, up = model.project("gate_up", layer, x)
        inner = activation(gate) * up
    else:
        inner = activation(model.project("up", layer, x)[0])
    return model.project("down", layer, inner)[0]


def _attention(model: Decoder, layer: int, x: Tensor, rotation: Rotation | None, attend: Attend) -> Tensor:
    shape = model.architecture
    rows, length, _ = x.shape
    heads = [shape.num_heads, shape.num_kv_heads]
    queries, keys, values = model.project("qkv", layer, x)
    if shape.query_key_norm == "whole":
        queries, keys = model.norm("query_norm", layer, queries), model.norm("key_norm", layer, keys)
    both = torch.cat((queries, keys), dim=-1).view(rows, length, -1, shape.head_dim)
    if shape.query_key_norm == "head":
        queries, keys = torch.split(both, heads, dim=2)
        both = torch.cat((model.norm("query_norm", layer, queries), model.norm("key_norm", layer, keys)), dim=2)
    if rotation is not None:
        both = _rotate(both, *rotation)
    queries, keys = torch.split(both.transpose(1, 2), heads, dim=1)
    values = values.view(rows, length, -1, shape.head_dim).transpose(1, 2)
    out = attend(layer, queries.to(values.dtype), keys.to(values.dtype), values)
    return model.project("out", layer, out.transpose(1, 2).reshape(rows, length, -1))[0]


def _rotation(shape: Architecture, rope: Rope, positions: Tensor) -> Rotation:
    """Cosine and sine of the rotary angles, float32 [B, T, H + K, D]; the sine of the first half is negated.

    Expanded over heads once, since every layer multiplies by it and torch is slow at short broadcast rows.
    """
    frequencies = torch.from_numpy(rotary_frequencies(rope, shape.head_dim)).to(positions.device)
    angles = positions[..., None].float() * frequencies
    heads = shape.num_heads + shape.num_kv_heads
    cos, sin = (
        torch.cat(halves, dim=-1)[:, :, None].expand(-1, -1, heads, -1).contiguous()
        for halves in ((angles.cos(), angles.cos()), (-angles.sin(), angles.sin()))
    )
    return cos, sin


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on [B, T, H, D] (arXiv 2104.09864), halves paired as in transformers."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
