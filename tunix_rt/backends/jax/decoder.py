"""The decoder as flax modules: from tokens to hidden states, to logits, and to the next token.

Weights of equal layers are stacked, [L, ...] each; matrices lie as [out, in], and those that read the same
input lie together (queries, keys and values; gate and up). Residuals, norms, softmax and logits are float32;
matrices multiply in `dtype`. Knows neither loss nor loops.
Legend: L layers, B rows, T positions, D width, F inner width, K key-value heads, G query heads of each,
d width of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt.backends.jax.attention import (
    Kept,
    append,
    attend,
    attend_pairs,
    cached_bias,
    packed_bias,
    pair_bias,
    rotary_tables,
    rotate,
)
from tunix_rt.models.families.architecture import Architecture

Params = dict[str, Any]
"""Nested dict of arrays, the pure state of a `Decoder`: embedding, head (untied only), norm, layers."""
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""Queries [B, K, G, T, d], keys and values [B, K, T, d] → what was read [B, K, G, T, d], and what to keep."""
Layers = tuple[Any, ...]
"""The weights of each layer by itself, as `Decoder.separate` makes them."""
Cache = tuple[Kept, ...]
"""Keys and values of each layer."""

UNROLLED_LAYERS = 8
"""Up to so many layers the compiler sees each (faster steps); beyond, one loop body (faster compilation)."""


def linear(x: jax.Array, matrix: jax.Array, dtype: Any) -> jax.Array:
    """`x` [..., in] times `matrix` [out, in], computed in `dtype`; returns `dtype` [..., out]."""
    return jax.lax.dot_general(x.astype(dtype), matrix.astype(dtype), (((x.ndim - 1,), (1,)), ((), ())))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Root mean square norm over the last axis, float32 (arXiv 1910.07467)."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * scale


@dataclass(frozen=True, slots=True)
class Sampling:
    """What of the generation config is compiled in."""

    temperature: float
    top_k: int | None
    top_p: float | None


class Layer(nnx.Module):
    """One layer, or all of them stacked: attention and a gated feed-forward, each behind a norm."""

    def __init__(self, architecture: Architecture, dtype: Any, arrays: Params) -> None:
        self.architecture = architecture
        self.dtype = dtype
        self.attention_norm = nnx.Param(arrays["attention_norm"])  # [L, D]
        self.qkv = nnx.Param(arrays["qkv"])  # [L, (KG + 2K) d, D]
        self.out = nnx.Param(arrays["out"])  # [L, D, KGd]
        self.mlp_norm = nnx.Param(arrays["mlp_norm"])  # [L, D]
        self.gate_up = nnx.Param(arrays["gate_up"])  # [L, 2F, D]
        self.down = nnx.Param(arrays["down"])  # [L, D, F]

    def __call__(self, x: jax.Array, cos: jax.Array, sin: jax.Array, look: Attend) -> tuple[jax.Array, Any]:
        """`x` float32 [B, T, D], `cos` and `sin` [B, T, d/2] → (float32 [B, T, D], what `look` keeps)."""
        eps = self.architecture.norm_eps
        queries, keys, values = self._heads(rms_norm(x, self.attention_norm[...], eps))
        cos, sin = cos[:, None], sin[:, None]
        read, kept = look(rotate(queries, cos[:, None], sin[:, None]), rotate(keys, cos, sin), values)
        read = jnp.moveaxis(read, -2, 1).reshape(*x.shape[:2], -1)
        x = x + linear(read, self.out[...], self.dtype).astype(jnp.float32)
        both = linear(rms_norm(x, self.mlp_norm[...], eps), self.gate_up[...], self.dtype)
        gate, up = jnp.split(both, 2, axis=-1)
        return x + linear(jax.nn.silu(gate) * up, self.down[...], self.dtype).astype(jnp.float32), kept

    def _heads(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        shape = self.architecture
        heads = linear(x, self.qkv[...], self.dtype).reshape(*x.shape[:2], -1, shape.head_dim)
        queries, keys, values = jnp.split(
            jnp.moveaxis(heads, 1, 2), [shape.num_heads, shape.num_heads + shape.num_kv_heads], axis=1
        )
        groups = (shape.num_kv_heads, shape.num_heads // shape.num_kv_heads)
        return queries.reshape(x.shape[0], *groups, *queries.shape[2:]), keys, values


class Decoder(nnx.Module):
    """Embedding, layers, norm and head of a Llama."""

    def __init__(self, architecture: Architecture, dtype: Any, arrays: Params) -> None:
        self.architecture = architecture
        self.dtype = dtype
        self.embedding = nnx.Param(arrays["embedding"])  # [V, D]
        self.layers = Layer(architecture, dtype, arrays["layers"])
        self.norm = nnx.Param(arrays["norm"])  # [D]
        self.head = None if architecture.tie_embeddings else nnx.Param(arrays["head"])  # [V, D]

    def __call__(
        self, tokens: jax.Array, positions: jax.Array, segments: jax.Array, pairs: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Int32 [B, T] each → hidden states float32 [B, T, D]; keys and values [L, B, K, T, d] of all layers.

        Attention stays within a segment; `pairs`: see `attention.block_pairs`. Positions must be below T.
        """
        shape = self.architecture
        tables = rotary_tables(tokens.shape[1], shape.head_dim, shape.rope_theta)
        cos, sin = (jnp.asarray(table)[positions] for table in tables)
        bias = packed_bias(segments) if pairs is None else pair_bias(segments, pairs)

        def attend_packed(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
            if pairs is not None:
                return attend_pairs(q, k, v, pairs, bias), (k, v)
            return attend(q, jnp.swapaxes(k, 2, 3), v, bias), (k, v)

        graph, weights = nnx.split(self.layers)

        def one_layer(x: jax.Array, weights: Any) -> tuple[jax.Array, Any]:
            return nnx.merge(graph, weights)(x, cos, sin, attend_packed)

        few = shape.num_layers <= UNROLLED_LAYERS
        if not few:
            # What a loop keeps for the way back it copies into stacks: computing all but the large products
            # again is cheaper (12.5 → 11.8 CPU-seconds a step of SmolLM2-135M), and takes less memory.
            policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            one_layer = jax.checkpoint(one_layer, policy=policy, prevent_cse=False)
        x, kept = jax.lax.scan(one_layer, self.embed(tokens), weights, unroll=few)
        return rms_norm(x, self.norm[...], shape.norm_eps), kept

    def separate(self) -> Layers:
        """Copy the stacked layers apart: decoding token by token would else slice them every time."""
        _, weights = nnx.split(self.layers)
        count = self.architecture.num_layers
        return tuple(jax.tree.map(lambda stack, i=i: stack[i], weights) for i in range(count))

    def read_one(
        self, layers: Layers, tokens: jax.Array, starts: jax.Array, slot: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        """Read one token a row, int32 [B], into `slot` of the cache → hidden states float32 [B, D], the cache.

        `starts` int32 [B]: the slot of a row's position 0; those before it are not seen.
        """
        shape, slots = self.architecture, cache[0][0].shape[3]
        tables = rotary_tables(slots, shape.head_dim, shape.rope_theta)
        cos, sin = (jnp.asarray(table)[slot - starts][:, None] for table in tables)
        bias = cached_bias(starts, slot, slots)
        graph, _ = nnx.split(self.layers)
        x, grown = self.embed(tokens)[:, None], []
        for weights, kept in zip(layers, cache, strict=True):

            def attend_cached(q: jax.Array, k: jax.Array, v: jax.Array, kept: Kept = kept) -> tuple[jax.Array, Kept]:
                kept = append(kept, k, v, slot)
                return attend(q, *kept, bias), kept

            x, kept = nnx.merge(graph, weights)(x, cos, sin, attend_cached)
            grown.append(kept)
        return rms_norm(x[:, 0], self.norm[...], shape.norm_eps), tuple(grown)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Int32 [...] → float32 [..., D]."""
        return self.embedding[...][tokens]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] after the norm → float32 [..., V]."""
        matrix = self.embedding if self.head is None else self.head
        return jax.lax.dot_general(
            hidden.astype(self.dtype),
            matrix[...].astype(self.dtype),
            (((hidden.ndim - 1,), (1,)), ((), ())),
            preferred_element_type=jnp.float32,
        )


def choose(logits: jax.Array, uniform: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """`logits` float32 [R, V], `uniform` float32 [R] in [0, 1) → token int32 [R] and its log-probability.

    The log-probability is the model's, at temperature 1 and before filters. Temperature 0 takes the first of
    the likeliest. Otherwise the first token, in the order of the vocabulary, at which the running sum of the
    filtered probabilities exceeds `uniform` times their total.
    """
    size = logits.shape[-1]
    order = jnp.arange(size, dtype=jnp.int32)
    top = logits.max(axis=-1, keepdims=True)
    if sampling.temperature == 0:
        token = jnp.where(logits == top, order, size - 1).min(axis=-1)
    else:
        shares = _filtered(jnp.exp((logits - top) / sampling.temperature), sampling)
        running = jnp.cumsum(shares, axis=-1)
        reached = (running > uniform[:, None] * running[:, -1:]) & (shares > 0)
        last = jnp.where(shares > 0, order, 0).max(axis=-1, keepdims=True)
        token = jnp.where(reached, order, last).min(axis=-1)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)
    return token, (chosen - jax.nn.logsumexp(logits, axis=-1, keepdims=True))[:, 0]


def _filtered(shares: jax.Array, sampling: Sampling) -> jax.Array:
    """Shares [R, V] (probabilities, up to a factor); those outside top-k, then outside top-p, become 0.

    Ties at a threshold all stay.
    """
    if sampling.top_k is not None:
        ranked, _ = jax.lax.top_k(shares, min(sampling.top_k, shares.shape[-1]))
        shares = jnp.where(shares >= ranked[:, -1:], shares, 0)
    if sampling.top_p is not None:
        needed = sampling.top_p * shares.sum(axis=-1, keepdims=True)
        shares = jnp.where(shares >= _largest_threshold(shares, needed), shares, 0)
    return shares


def _largest_threshold(shares: jax.Array, needed: jax.Array) -> jax.Array:
    """The largest value [R, 1] such that the shares [R, V] not below it still sum to `needed` [R, 1].

    Found by halving the interval of bit patterns, which order non-negative floats: sorting a large vocabulary
    takes as long as the model (16 rows of SmolLM2: 170 ms).
    """

    def value(bits: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.where(shares >= value(middle), shares, 0).sum(axis=-1, keepdims=True) >= needed
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros(needed.shape, jnp.int32)
    high = jnp.full(needed.shape, jnp.inf).view(jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return value(low)
