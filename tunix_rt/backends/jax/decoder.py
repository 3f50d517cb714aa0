"""The decoder as flax modules: from tokens to hidden states and to logits, built from declared parts.

Weights of all layers are stacked, [L, ...] each; matrices are stored as [out, in], and those that read the same
input are concatenated; the parts are those of `models/families/architecture.py`. Residuals, norms, softmax and
logits are float32; matrices multiply in `dtype`. Independent of losses and loops.
Legend: L layers, B rows, T positions, D width, F inner width, K key-value heads, G query heads of each,
d width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tunix_rt.backends.jax.adapter import KEYS, LoraLayout
from tunix_rt.backends.jax.attention import (
    KeyValue,
    append,
    attend,
    cached_bias,
    capped,
    rotate,
)
from tunix_rt.backends.jax.experts import mixture
from tunix_rt.backends.jax.packed import over_rows
from tunix_rt.backends.jax.products import PRODUCT, activated, gated, linear, logits, rounded
from tunix_rt.backends.jax.quantized import product, shapes_of
from tunix_rt.backends.jax.variants import LayerVariants, pick
from tunix_rt.models.families.architecture import Activation, Architecture, whole_parts

Params = dict[str, Any]
"""Nested dict of arrays, the pure state of a `Decoder`: `architecture.whole_parts`, and `layers` with the rest."""
Rotation = tuple[jax.Array, jax.Array] | None
"""Cosines and sines [B, T, d/2]; None: no rotation."""
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""Queries [B, K, G, T, d], keys and values [B, K, T, d] → the output [B, K, G, T, d], and what to keep."""
Gather = Callable[[str, jax.Array], jax.Array]
"""Name of a tensor and a device's part of it → the whole tensor."""
Layers = tuple[Any, ...]
"""The weights of each layer separately, as `Decoder.separate` returns them."""
Cache = tuple[KeyValue, ...]
"""Keys and values of each layer."""

UNROLLED_LAYERS = 8
"""Up to this many layers are unrolled (faster steps); more become one loop body (faster compilation)."""


ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}


class Parts(nnx.Module):
    """Parameters by name."""

    architecture: Architecture

    def _part(self, name: str) -> jax.Array:
        array: jax.Array = getattr(self, name)[...]
        return array

    def _norm(self, name: str, x: jax.Array) -> jax.Array:
        """The norm `name` over the last axis, in float32; `x` itself if the family has none there."""
        if not hasattr(self, name):
            return x
        shape, x, scale = self.architecture, x.astype(jnp.float32), self._part(name)
        scale = scale + shape.norm_offset if shape.norm_offset else scale
        if shape.norm == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + shape.norm_eps) * scale
        return x + self._part(f"{name}_bias") if shape.norm == "layer" else x


class Layer(Parts):
    """One layer, or all of them stacked: attention and feed-forward, each in a residual branch with its norms.

    Its parts are those of `architecture.layer_parts`, with a first axis L if stacked.
    """

    def __init__(self, architecture: Architecture, dtype: Any, arrays: Params, adapter: LoraLayout | None) -> None:
        self.architecture = architecture
        self.dtype = dtype
        self.adapter = adapter
        for name, array in arrays.items():
            setattr(self, name, nnx.Param(array))

    def __call__(self, x: jax.Array, rotation: Rotation, look: Attend) -> tuple[jax.Array, Any]:
        """`x` float32 [B, T, D] → (float32 [B, T, D], what `look` keeps)."""
        queries, keys, values = self._heads(self._norm("attention_norm", x))
        if rotation is not None:
            cos, sin = (part[:, None] for part in rotation)
            queries, keys = rotate(queries, cos[:, None], sin[:, None]), rotate(keys, cos, sin)
        read, kept = look(*(rounded(part, self.dtype) for part in (queries, keys, values)))
        read = self._linear("out", jnp.moveaxis(read, -2, 1).reshape(*x.shape[:2], -1))
        x = x + self._norm("attention_post_norm", read.astype(jnp.float32))
        read = self._feed_forward(self._norm("mlp_norm", x))
        return x + self._norm("mlp_post_norm", read.astype(jnp.float32)), kept

    def _heads(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        shape = self.architecture
        whole = self._linear("qkv", x)
        ends = [shape.num_heads, shape.num_heads + shape.num_kv_heads]
        if shape.query_key_norm == "whole":
            queries, keys, values = jnp.split(whole, [end * shape.head_dim for end in ends], axis=-1)
            queries, keys = self._norm("query_norm", queries), self._norm("key_norm", keys)
            whole = jnp.concatenate([queries, keys, values.astype(jnp.float32)], axis=-1)
        if shape.qkv_limit is not None:
            whole = jnp.clip(whole, -shape.qkv_limit, shape.qkv_limit)
        heads = whole.reshape(*x.shape[:2], -1, shape.head_dim)
        queries, keys, values = jnp.split(jnp.moveaxis(heads, 1, 2), ends, axis=1)
        if shape.query_key_norm == "head":
            queries, keys = self._norm("query_norm", queries), self._norm("key_norm", keys)
        groups = (shape.num_kv_heads, shape.num_heads // shape.num_kv_heads)
        return queries.reshape(x.shape[0], *groups, *queries.shape[2:]), keys, values

    def _feed_forward(self, x: jax.Array) -> jax.Array:
        shape = self.architecture
        if shape.experts is None:
            return self._dense("gate_up" if shape.gated else "up", "down", x)
        read = mixture(x, self._part, shape.experts, ACTIVATIONS[shape.activation], self.dtype)
        if shape.experts.shared_size is None:
            return read
        scale, of_all = self._linear("shared_scale", x), self._dense("shared_gate_up", "shared_down", x)
        return read + gated(scale, of_all, jax.nn.sigmoid)

    def _dense(self, first: str, last: str, x: jax.Array) -> jax.Array:
        activation, inner = ACTIVATIONS[self.architecture.activation], self._linear(first, x)
        if not self.architecture.gated:
            return self._linear(last, activated(inner, activation))
        gate, up = jnp.split(inner, 2, axis=-1)
        return self._linear(last, gated(gate, up, activation))

    def _linear(self, name: str, x: jax.Array) -> jax.Array:
        bias = self._part(f"{name}_bias") if hasattr(self, f"{name}_bias") else None
        found = self._product(name, x, bias)
        if self.adapter is not None:
            keys = self._part(KEYS) if hasattr(self, KEYS) else None
            found = self.adapter.add(name, self._part, keys, x, found)
        return found

    def _product(self, name: str, x: jax.Array, bias: jax.Array | None) -> jax.Array:
        if not hasattr(self, f"{name}_codes"):
            return linear(x, self._part(name), self.dtype, bias)
        codes, scales = self._part(f"{name}_codes"), self._part(f"{name}_scales")
        return product(rounded(x, self.dtype), codes, scales, bias, shapes_of(self.architecture)[name])


class Decoder(Parts):
    """Embedding, layers, norm and head."""

    def __init__(
        self,
        architecture: Architecture,
        dtype: Any,
        arrays: Params,
        adapter: LoraLayout | None = None,
        gradient_checkpointing: bool = False,
        divided: bool = False,
    ) -> None:
        """`divided`: its products are shared out among devices by the compiler (`hardware.mesh.tensor`)."""
        self.architecture = architecture
        self.dtype = dtype
        self.gradient_checkpointing = gradient_checkpointing
        self.divided = divided
        self.layers = Layer(architecture, dtype, arrays["layers"], adapter)
        for name in whole_parts(architecture):
            setattr(self, name, nnx.Param(arrays[name]))

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        segments: jax.Array,
        pairs: jax.Array | None = None,
        whole: Gather | None = None,
    ) -> tuple[jax.Array, Any]:
        """Int32 [B, T] each → hidden states float32 [B, T, D]; keys and values [L, B, K, T, d] of all layers.

        Attention stays within a segment; `pairs`: see `attention.block_pairs`. Positions must be below T. `whole`: the
        layers are parts, of which one is made whole at a time, in the backward pass again.
        """
        shape, length = self.architecture, tokens.shape[1]
        kinds = LayerVariants.of(shape, length)
        rotations = kinds.rotations(shape.head_dim, length, positions)
        attend_rows = over_rows(segments, pairs, kinds.windows, self.dtype, shape, not self.divided)
        graph, weights = nnx.split(self.layers)

        def one_layer(x: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
            weights, turn, wide = layer
            if whole is not None:
                weights = jax.tree_util.tree_map_with_path(lambda path, part: whole(path[0].key, part), weights)

            def attend_packed(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
                return attend_rows(q, k, v, wide), (k, v)

            rotation = None if rotations is None else (pick(rotations[0], turn), pick(rotations[1], turn))
            return nnx.merge(graph, weights)(x, rotation, attend_packed)

        few = shape.num_layers <= UNROLLED_LAYERS and not self.gradient_checkpointing and whole is None
        if not few:
            # A loop copies what it keeps for the backward pass into stacks: recomputing all but the large products
            # is cheaper (12.5 → 11.8 CPU-seconds per step of SmolLM2-135M), and takes less memory.
            policies = jax.checkpoint_policies
            large_products = policies.save_only_these_names(PRODUCT)
            policy = policies.nothing_saveable if self.gradient_checkpointing else large_products
            one_layer = jax.checkpoint(one_layer, policy=policy, prevent_cse=False)
        layers = (weights, np.array(kinds.rope_of, np.int32), np.array(kinds.window_of, np.int32))
        x: jax.Array
        x, kept = jax.lax.scan(one_layer, self.embed(tokens, positions), layers, unroll=few)
        return self._norm("norm", x), kept

    def separate(self) -> Layers:
        """Copy each layer out of the stack: otherwise decoding would slice it at every token."""
        _, weights = nnx.split(self.layers)
        count = self.architecture.num_layers
        return tuple(jax.tree.map(lambda stack, i=i: stack[i], weights) for i in range(count))

    def read_one(
        self, layers: Layers, tokens: jax.Array, positions: jax.Array, slot: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Read one token per row, int32 [B], into `slot` of the cache → hidden states float32 [B, D], the cache.

        `positions` int32 [B], of these tokens: as many slots before are seen, around the ring that the cache is.
        """
        shape, slots = self.architecture, cache[0][0].shape[3]
        kinds = LayerVariants.of(shape, slots)
        biases = [cached_bias(positions, slot, slots, window) for window in kinds.windows]
        rotations = kinds.rotations(shape.head_dim, slots, positions[:, None])
        graph, _ = nnx.split(self.layers)
        x, grown = self.embed(tokens[:, None], positions[:, None]), []
        for layer, (weights, kept) in enumerate(zip(layers, cache, strict=True)):
            turn, bias = kinds.rope_of[layer], biases[kinds.window_of[layer]]

            def attend_cached(
                q: jax.Array, k: jax.Array, v: jax.Array, kept: KeyValue = kept, bias: jax.Array = bias
            ) -> tuple[jax.Array, KeyValue]:
                kept = append(kept, k, v, slot)
                return attend(q, *kept, bias, shape), kept

            rotation = None if rotations is None else (rotations[0][turn], rotations[1][turn])
            x, kept = nnx.merge(graph, weights)(x, rotation, attend_cached)
            grown.append(kept)
        return self._norm("norm", x[:, 0]), tuple(grown)

    def embed(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """Int32 [...] each → float32 [..., D]."""
        x = self._part("embedding")[tokens]
        if self.architecture.embedding_scale != 1:
            x = x * self.architecture.embedding_scale
        return x + self._part("positions")[positions] if self.architecture.learned_positions else x

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] after the norm → float32 [..., V]."""
        matrix = self._part("embedding" if self.architecture.tie_embeddings else "head")
        return capped(logits(hidden, matrix, self.dtype), self.architecture.logit_cap)
