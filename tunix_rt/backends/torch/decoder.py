"""The decoder: token ids → hidden states, over plain tensors with Hugging Face names.

Built from the parts that an `Architecture` declares, and tested against `transformers`, whose import alone costs 9
CPU-seconds. Training and generation differ only in `Attend`.
Legend: B rows, T positions, E hidden width, H query heads, K key and value heads, D head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest

import torch
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, silu

from tunix_rt.backends.torch.adapter import Lora
from tunix_rt.backends.torch.attention import Attend
from tunix_rt.backends.torch.experts import counts_of, mixed, route
from tunix_rt.backends.torch.fused import Rotation, rms_norm, rotate, rotation
from tunix_rt.backends.torch.linear import linear
from tunix_rt.backends.torch.products import DTYPES, rounded
from tunix_rt.backends.torch.quantized import QuantizedMatrix, product
from tunix_rt.backends.torch.recomputed import TIDY_EVERY, ComputedAgain
from tunix_rt.backends.torch.sharding import EMBEDDING, FIRST_LAYER, NORM, Sharding
from tunix_rt.backends.torch.tensor_parallel import TensorParallel
from tunix_rt.config.choices import Precision
from tunix_rt.models.families.architecture import ROUTER, Activation, Architecture, Experts
from tunix_rt.models.families.names import Tensor as Named
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.families.rope import Rope, rotary_frequencies

Place = tuple[Named, str | None]
"""A tensor, and the name of its bias."""
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": partial(gelu, approximate="tanh"),
}

ALL = slice(None)


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model's architecture and weights."""

    architecture: Architecture
    weights: dict[str, Tensor]
    """Weights by Hugging Face name; a tied output head has no entry, nor have `quantized` matrices. Under `sharding`
    the parts of this process."""
    adapter: Lora | None = None
    """The adapter on frozen weights, if any."""
    precision: Precision = "float32"
    """In which matrices are multiplied; sums stay float32."""
    quantized: Mapping[str, QuantizedMatrix] = field(default_factory=dict)
    """Matrices of the layers under an adapter, by the same names."""
    gradient_checkpointing: bool = False
    """Keep only the input of a layer, and recompute the layer in the backward pass."""
    even_experts: bool = False
    """Give all experts as many tokens, whatever the router says: to plan memory without numbers."""
    sharding: Sharding | None = None
    """Gathers the parts; None: every tensor is here in whole."""
    tensor: TensorParallel | None = None
    """If not None, `architecture` is the share of this process in a larger one."""
    places: dict[tuple[str, int | None], tuple[Place, ...]] = field(init=False, repr=False)
    """Maps (canonical part name, layer) to its tensors; built once, as it is used for every token."""
    _frequencies: dict[Rope, Tensor] = field(init=False, repr=False)
    """Radians per position, float32 [D/2]."""

    def __post_init__(self) -> None:
        named: dict[tuple[str, int | None], list[Named]] = {}
        for tensor in tensors_of(self.architecture):
            named.setdefault((tensor.canonical_name, tensor.layer), []).append(tensor)
        places = {
            (own, layer): tuple(zip_longest(parts, [bias.name for bias in named.get((f"{own}_bias", layer), ())]))
            for (own, layer), parts in named.items()
        }
        object.__setattr__(self, "places", places)
        ropes = {kind.rope for kind in self.architecture.layers if kind.rope is not None}
        arrays = {rope: rotary_frequencies(rope, self.architecture.head_dim) for rope in ropes}
        frequencies = {rope: torch.from_numpy(array).to(self.device) for rope, array in arrays.items()}
        object.__setattr__(self, "_frequencies", frequencies)

    @property
    def trained(self) -> dict[str, Tensor]:
        """The tensors that training changes, by name."""
        return self.weights if self.adapter is None else self.adapter.tensors

    @property
    def head(self) -> Tensor:
        """The output matrix [V, E]."""
        return self.single("embedding" if self.architecture.tie_embeddings else "head")

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(iter(self.weights.values())).device

    @contextmanager
    def gathered(self, use: int) -> Iterator[Decoder]:
        """The model with every tensor of a use (see `sharding.py`) in whole; outside of it these are gone."""
        if self.sharding is None:
            yield self
            return
        with self.sharding.whole(use) as (weights, quantized):
            found = copy(self)
            object.__setattr__(found, "weights", weights)
            object.__setattr__(found, "quantized", quantized)
            yield found

    def in_whole(self) -> Decoder:
        """The model with every tensor in whole, for as long as it is kept."""
        found = self
        if self.sharding is not None:
            weights, quantized = self.sharding.gather_all()
            found = replace(self, weights=weights, quantized=quantized, sharding=None)
        if self.tensor is not None:
            whole, weights = self.tensor.whole, self.tensor.joined(found.weights)
            found = replace(found, architecture=whole, weights=weights, tensor=None)
        return found

    def enter(self, x: Tensor) -> Tensor:
        """`x` where the processes of the axis `tensor` begin to compute different things."""
        return x if self.tensor is None else self.tensor.enter(x)

    def leave(self, x: Tensor) -> Tensor:
        """The sum of what they have computed."""
        return x if self.tensor is None else self.tensor.leave(x)

    def single(self, own: str, layer: int | None = None) -> Tensor:
        """A part of one tensor, outside the layers or of a layer, by its canonical name."""
        return self.weights[self.places[own, layer][0][0].name]

    @property
    def trains_parts(self) -> bool:
        """Whether the trained tensors are parts, and not replicated on all processes."""
        return self.sharding is not None and self.adapter is None

    def trained_in(self, layer: int) -> list[Tensor]:
        """The tensors of a layer that training changes."""
        places = [place for (_, at), parts in self.places.items() if at == layer for place, _ in parts]
        if self.adapter is not None:
            return [side for place in places for side in self.adapter.pairs.get(place.name, ())]
        return [self.weights[place.name] for place in places]

    def project(self, own: str, layer: int, x: Tensor, only: slice = ALL) -> list[Tensor]:
        """`x` [..., in] times each piece of a layer's part, plus its bias → [..., out] each; `only` these tensors."""
        found: list[Tensor] = []
        seen = x.to(DTYPES[self.precision])  # once, and not for each tensor
        for place, bias in self.places[own, layer][only]:
            y = self._product(place, None if bias is None else self.weights[bias], seen)
            y = y if self.adapter is None else self.adapter.add(place, x, y)
            if len(place.pieces) == 1:
                found.append(y)
            else:
                found += torch.split(y, [piece[0] for piece in place.pieces], dim=-1)
        return found

    def _product(self, place: Named, bias: Tensor | None, x: Tensor) -> Tensor:
        if place.name in self.quantized:
            return product(x, self.quantized[place.name], bias)
        matrix = self.weights[place.name]
        matrix = matrix.t() if place.transposed else matrix
        if self.tensor is None or place.canonical_name not in ("out", "down"):
            return linear(x, matrix, bias)
        y = self.tensor.leave(linear(x, matrix))
        return y if bias is None else y + bias

    def rotations(self, positions: Tensor) -> dict[Rope | None, Rotation]:
        """What `rotate` takes at `positions` [B, T], by kind."""
        found = self._frequencies.items()
        return {rope: rotation(positions, frequencies, rope.attention_factor) for rope, frequencies in found}

    def norm(self, own: str, layer: int | None, x: Tensor) -> Tensor:
        """A norm over the last axis, float32; `x` itself if the family has none there."""
        place = self.places.get((own, layer))
        if place is None:
            return x
        shape, (weight_of, bias_of) = self.architecture, place[0]
        weight = self.weights[weight_of.name]
        weight = self.enter(weight) if own in ("query_norm", "key_norm") else weight
        weight = weight + shape.norm_offset if shape.norm_offset else weight
        if bias_of is None:
            return rms_norm(x.float(), weight, shape.norm_eps)
        return layer_norm(x.float(), x.shape[-1:], weight, self.weights[bias_of], shape.norm_eps)


def hidden_states(
    model: Decoder, tokens: Tensor, positions: Tensor, attend: Attend, wanted: Tensor | None = None
) -> Tensor:
    """`tokens`, `positions` int64 [B, T] → float32 [B, T, E], after the last norm; at `wanted`, flat positions int64
    [N], → [N, E].

    In the last layer, nothing but keys and values is computed at other positions.
    """
    shape = model.architecture
    # Masks of dropout are drawn for whole rows.
    late = model.adapter is not None and model.adapter.keys is not None
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.precision == "bfloat16"):
        rotations = model.rotations(positions)
        with model.gathered(EMBEDDING) as whole:
            x = _embedded(whole, tokens, positions)
        for layer, kind in enumerate(shape.layers):
            only = None if late or layer + 1 < shape.num_layers else wanted
            compute = partial(_layer, model, layer, rotations.get(kind.rope), attend, only)
            if model.gradient_checkpointing and torch.is_grad_enabled():
                tidy = x.device.type == "cpu" and layer % TIDY_EVERY == 0
                x = ComputedAgain.apply(compute, tidy, x, *model.trained_in(layer))
            else:
                x = compute(x)
        x = _at(wanted if late else None, x)
        with model.gathered(NORM) as whole:
            x = whole.norm("norm", None, x)
    return x if wanted is None else x[0]


def _at(wanted: Tensor | None, x: Tensor) -> Tensor:
    """`x` [B, T, ...] at `wanted`, flat positions int64 [N] → [1, N, ...]; None: as it is."""
    return x if wanted is None else x.flatten(0, 1).index_select(0, wanted)[None]


def _embedded(model: Decoder, tokens: Tensor, positions: Tensor) -> Tensor:
    shape = model.architecture
    table = model.single("embedding")
    x = embedding(tokens, table) if model.tensor is None else model.tensor.embedded(tokens, table)
    if shape.embedding_scale != 1:
        x = x * shape.embedding_scale
    return x + embedding(positions, model.single("positions")) if shape.learned_positions else x


def _layer(
    model: Decoder, layer: int, angles: Rotation | None, attend: Attend, wanted: Tensor | None, x: Tensor
) -> Tensor:
    with model.gathered(FIRST_LAYER + layer) as whole:
        read = _at(wanted, _attention(whole, layer, whole.norm("attention_norm", layer, x), angles, attend))
        y = whole.project("out", layer, read)[0]
        x = _at(wanted, x) + whole.norm("attention_post_norm", layer, y)
        y = _feed_forward(whole, layer, whole.norm("mlp_norm", layer, x))
        return x + whole.norm("mlp_post_norm", layer, y)


def _feed_forward(model: Decoder, layer: int, x: Tensor) -> Tensor:
    shape = model.architecture
    if shape.experts is not None:
        return _experts(model, layer, x, shape.experts)
    x = model.enter(x)
    if shape.gated:
        return _gated(model, layer, "gate_up", "down", x)
    return model.project("down", layer, ACTIVATIONS[shape.activation](model.project("up", layer, x)[0]))[0]


def _gated(
    model: Decoder, layer: int, first: str, last: str, x: Tensor, pair: slice = ALL, single: slice = ALL
) -> Tensor:
    gate, up = model.project(first, layer, x, pair)
    return model.project(last, layer, ACTIVATIONS[model.architecture.activation](gate) * up, single)[0]


def _experts(model: Decoder, layer: int, x: Tensor, experts: Experts) -> Tensor:
    def expert(number: int, rows: Tensor) -> Tensor:
        pair, single = slice(2 * number, 2 * number + 2), slice(number, number + 1)
        return _gated(model, layer, "expert_gate_up", "expert_down", rows, pair, single)

    chosen, weights = route(x.flatten(0, 1), model.single(ROUTER, layer), experts)
    counts, inside = counts_of(chosen, experts, model.even_experts), model.enter(x)
    made = mixed(inside.flatten(0, 1), chosen, model.enter(weights), counts, expert).view(x.shape)
    if experts.shared_size is not None:
        scale = model.enter(model.project("shared_scale", layer, x)[0].sigmoid())
        made = made + scale * _gated(model, layer, "shared_gate_up", "shared_down", inside)
    return model.leave(made)


def _attention(model: Decoder, layer: int, x: Tensor, angles: Rotation | None, attend: Attend) -> Tensor:
    """What the heads have read, [B, T, H * D]."""
    shape = model.architecture
    queries, keys, values = model.project("qkv", layer, model.enter(x))
    if shape.query_key_norm == "whole":
        queries, keys = model.norm("query_norm", layer, queries), model.norm("key_norm", layer, keys)
    if shape.qkv_limit is not None:
        queries, keys, values = (x.clamp(-shape.qkv_limit, shape.qkv_limit) for x in (queries, keys, values))
    queries, keys, values = (x.view(*x.shape[:2], -1, shape.head_dim) for x in (queries, keys, values))
    if shape.query_key_norm == "head":
        queries, keys = model.norm("query_norm", layer, queries), model.norm("key_norm", layer, keys)
    if angles is not None:
        queries, keys = rotate(queries, *angles), rotate(keys, *angles)
    with torch.autocast(x.device.type, enabled=False):
        heads = (rounded(part, values.dtype).transpose(1, 2) for part in (queries, keys, values))
        return attend(layer, *heads).transpose(1, 2).flatten(2).to(values.dtype)
