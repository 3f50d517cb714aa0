"""Rotary positions and masked attention, over packed rows and over a cache.

In: queries, keys and values of one layer. Out: what the heads read. Knows no weights.
Legend: B rows, T query positions, S key positions or slots of the cache, K key-value heads, G query heads of
each, d width of one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MASKED = -1e30
"""Added to a score that must not be read: its exponential is exactly 0. Finite, so that no row gives NaN."""

Table = np.ndarray[Any, np.dtype[np.float32]]
Kept = tuple[jax.Array, jax.Array]
"""The cache of a layer: keys [B, K, d, S] and values [B, K, S, d], as the products of decoding read them."""


def rotary_tables(num_positions: int, head_dim: int, theta: float) -> tuple[Table, Table]:
    """Cosines and sines, float32 [num_positions, d/2] each (arXiv 2104.09864), rounded as in `transformers`.

    Made on the host: inside the compiled program XLA would compute them again for every use.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1.0) / np.power(np.float32(theta), exponents)
    angles = np.arange(num_positions, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turn the pairs (i, i + d/2) of `x` [..., d] by angles whose `cos`, `sin` broadcast to [..., d/2]."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def packed_bias(segments: jax.Array) -> jax.Array:
    """Segments int32 [B, T] → bias float32 [B, 1, 1, T, T]: 0 within a segment and not ahead, else MASKED."""
    length = segments.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    same = segments[:, :, None] == segments[:, None, :]
    return jnp.where(same & causal, 0.0, MASKED).astype(jnp.float32)[:, None, None]


def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array) -> jax.Array:
    """Scaled dot-product attention, softmax in float32.

    `queries` [B, K, G, T, d], `keys` [B, K, d, S] (so a cache needs no turning), `values` [B, K, S, d], `bias`
    broadcasts to [B, K, G, T, S]; returns [B, K, G, T, d]. Dividing last saves a pass over the scores.
    """
    queries = queries * queries.shape[-1] ** -0.5
    scores = jnp.einsum("bkgtd,bkds->bkgts", queries, keys, preferred_element_type=jnp.float32) + bias
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    shares = jnp.exp(scores - top)
    total = shares.sum(axis=-1, keepdims=True)
    read = jnp.einsum("bkgts,bksd->bkgtd", shares.astype(values.dtype), values, preferred_element_type=jnp.float32)
    return (read / total).astype(values.dtype)


def keep(keys: jax.Array, values: jax.Array, slots: int) -> Kept:
    """Start a cache of `slots` slots with keys and values [B, K, S, d] in its first ones."""
    return widen((jnp.swapaxes(keys, 2, 3), values), slots)


def widen(kept: Kept, slots: int) -> Kept:
    """Add empty slots at the end, up to `slots`."""
    keys, values = kept
    more = (0, slots - keys.shape[3])
    return jnp.pad(keys, ((0, 0), (0, 0), (0, 0), more)), jnp.pad(values, ((0, 0), (0, 0), more, (0, 0)))


def append(kept: Kept, keys: jax.Array, values: jax.Array, slot: jax.Array) -> Kept:
    """Put the keys and values [B, K, 1, d] of one position of each row into `slot`."""
    return (
        jax.lax.dynamic_update_slice_in_dim(kept[0], jnp.swapaxes(keys, 2, 3), slot, axis=3),
        jax.lax.dynamic_update_slice_in_dim(kept[1], values, slot, axis=2),
    )


def cached_bias(starts: jax.Array, slot: jax.Array, slots: int) -> jax.Array:
    """Bias float32 [B, 1, 1, 1, slots]: 0 from a row's start (int32 [B]) to `slot`, else MASKED."""
    places = jnp.arange(slots)
    seen = (places >= starts[:, None]) & (places <= slot)
    return jnp.where(seen, 0.0, MASKED).astype(jnp.float32)[:, None, None, None]
