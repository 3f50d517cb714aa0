"""Rotary positions and masked attention, over packed rows and over a cache.

In: queries, keys and values of one layer. Out: the output of the heads. Holds no weights.
Long packed rows are computed in pairs of blocks, only where queries and keys share a trace.
Legend: B rows, T query positions, S key positions or slots of the cache, K key-value heads, G query heads of
each, d head width; N pairs of blocks, C positions of a block.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tunix_rt.backends.jax.products import rounded, weighing
from tunix_rt.backends.limits import LONGEST_WHOLE, MOST_KEYS
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.rope import Rope, rotary_frequencies

MASKED = -1e30
"""Added to a masked score, so that its exponential is exactly 0. Finite, so that no row gives NaN."""
BLOCK = 64
"""C: a smaller block wastes less computation; below this the products get slow."""
PAIR_COST = 1.5
"""Cost of a score in a pair of blocks relative to one in a full row, for gather and sums (measured: 1.3, CPU)."""

Table = np.ndarray[Any, np.dtype[np.float32]]
KeyValue = tuple[jax.Array, jax.Array]
"""The cache of a layer: keys [B, K, d, S] and values [B, K, S, d], as decoding reads them."""


def rotary_tables(num_positions: int, head_dim: int, rope: Rope | None) -> tuple[Table, Table]:
    """Cosines and sines, float32 [num_positions, d/2] each; without `rope`, those of angle 0.

    Computed on the host: inside the compiled program XLA would compute them again for every use.
    """
    frequencies = np.zeros(head_dim // 2, np.float32) if rope is None else rotary_frequencies(rope, head_dim)
    angles = np.arange(num_positions, dtype=np.float32)[:, None] * frequencies
    scale = np.float32(1.0 if rope is None else rope.attention_factor)
    return np.cos(angles) * scale, np.sin(angles) * scale


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate the pairs (i, i + d/2) of `x` [..., d] by angles whose `cos`, `sin` broadcast to [..., d/2]: float32."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def packed_bias(segments: jax.Array, window: int | None) -> jax.Array:
    """Segments int32 [B, T] → bias float32 [B, 1, 1, T, T]: 0 within a segment and not ahead, else MASKED.

    With a window a position attends to itself and the `window` - 1 before it.
    """
    length = segments.shape[1]
    seen = jnp.tril(jnp.ones((length, length), bool))
    if window is not None:
        seen = seen & ~jnp.tril(seen, -window)
    same = segments[:, :, None] == segments[:, None, :]
    return jnp.where(same & seen, 0.0, MASKED).astype(jnp.float32)[:, None, None]


def block_pairs(segments: np.ndarray[Any, np.dtype[np.int32]]) -> np.ndarray[Any, np.dtype[np.int32]] | None:
    """Segments int32 [A, B, T] → pairs int32 [A, N, 2] of (query block, key block) that share a trace.

    Blocks are numbered across the rows of a micro-batch. N is rounded up to a multiple of the number of blocks
    (few values of N mean few compilations) with pairs of a nonexistent query block. None if not worth it.
    """
    micro, rows, length = segments.shape
    per_row = -(-length // BLOCK)
    traces = np.where(segments > 0, segments, np.iinfo(np.int32).max)  # ascending in a row, padding last
    first = traces[:, :, ::BLOCK]
    last = traces[:, :, np.minimum(np.arange(1, per_row + 1) * BLOCK, length) - 1]
    shared = (last[:, :, None, :] >= first[..., None]) & (first < np.iinfo(np.int32).max)[..., None]
    needed = np.tril(shared) | np.eye(per_row, dtype=bool)
    num_blocks = rows * per_row
    most = int(needed.reshape(micro, -1).sum(axis=1).max())
    size = -(-most // num_blocks) * num_blocks
    scores = size * BLOCK**2
    if PAIR_COST * scores > rows * length**2 or (length > LONGEST_WHOLE and scores > rows * length * MOST_KEYS):
        return None
    pairs = np.full((micro, size, 2), num_blocks, np.int32)
    for index in range(micro):
        row, query, key = np.nonzero(needed[index])
        pairs[index, : len(row)] = np.stack([row * per_row + query, row * per_row + key], axis=1)
    return pairs


def pair_bias(segments: jax.Array, pairs: jax.Array, window: int | None) -> jax.Array:
    """Segments int32 [B, T], pairs int32 [N, 2] → bias float32 [N, 1, 1, C, C], as `packed_bias`."""
    blocks = _blocks(segments, 1)
    query, key = pairs[:, 0], pairs[:, 1]
    same = blocks[query][:, :, None] == blocks[key][:, None, :]
    places = jnp.arange(BLOCK)
    back = (query - key)[:, None, None] * BLOCK + places[:, None] - places
    seen = back >= 0 if window is None else (back >= 0) & (back < window)
    exists = (query < len(blocks))[:, None, None]
    return jnp.where(same & seen & exists, 0.0, MASKED).astype(jnp.float32)[:, None, None]


def attend_pairs(
    queries: jax.Array, keys: jax.Array, values: jax.Array, pairs: jax.Array, bias: jax.Array, a: Architecture
) -> jax.Array:
    """As `attend`, from `queries` [B, K, G, T, d], `keys` and `values` [B, K, T, d], only in `pairs` [N, 2].

    The scores of a query lie in several pairs: its maximum and its sums are taken over all of them.
    """
    rows, length = queries.shape[0], queries.shape[3]
    query, key = pairs[:, 0], pairs[:, 1]
    queries = _blocks(queries, 3)
    keys, values = _blocks(keys, 2), _blocks(values, 2)
    count = len(queries)

    def over_pairs(reduce: Any, x: jax.Array) -> jax.Array:
        found: jax.Array = reduce(x, query, count, indices_are_sorted=True)
        return found

    scores = jnp.einsum("nkgtd,nksd->nkgts", queries[query], keys[key], preferred_element_type=jnp.float32)
    scores = capped(scores * a.attention_scale, a.score_cap) + bias
    top = over_pairs(jax.ops.segment_max, jax.lax.stop_gradient(scores.max(axis=-1)))
    shares = jnp.exp(scores - top[query][..., None])
    total = over_pairs(jax.ops.segment_sum, shares.sum(axis=-1))
    shares = weighing(shares, values.dtype)
    read = jnp.einsum("nkgts,nksd->nkgtd", shares, values[key], preferred_element_type=jnp.float32)
    read = rounded(over_pairs(jax.ops.segment_sum, read) / total[..., None], values.dtype)
    whole = jnp.moveaxis(read.reshape(rows, -1, *read.shape[1:]), 1, 3)
    return whole.reshape(*whole.shape[:3], -1, whole.shape[-1])[:, :, :, :length]


def _blocks(x: jax.Array, axis: int) -> jax.Array:
    """Cut `axis` (T, zero-padded) of `x` [B, ..., T, ...] into blocks: [B * T / C, ..., C, ...]."""
    more = -x.shape[axis] % BLOCK
    x = jnp.pad(x, [(0, more if place == axis else 0) for place in range(x.ndim)])
    cut = x.reshape(*x.shape[:axis], -1, BLOCK, *x.shape[axis + 1 :])
    return jnp.moveaxis(cut, axis, 1).reshape(-1, *x.shape[1:axis], BLOCK, *x.shape[axis + 1 :])


def capped(x: jax.Array, cap: float | None) -> jax.Array:
    """cap * tanh(x / cap) (arXiv 2408.00118), or `x` itself."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def attend(queries: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array, a: Architecture) -> jax.Array:
    """Scaled dot-product attention, softmax in float32.

    `queries` [B, K, G, T, d], `keys` [B, K, d, S] (so a cache needs no transpose), `values` [B, K, S, d], `bias`
    broadcasts to [B, K, G, T, S]; returns [B, K, G, T, d]. Dividing last saves a pass over the scores.
    """
    scores = jnp.einsum("bkgtd,bkds->bkgts", queries, keys, preferred_element_type=jnp.float32)
    scores = capped(scores * a.attention_scale, a.score_cap) + bias
    top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    shares = jnp.exp(scores - top)
    total = shares.sum(axis=-1, keepdims=True)
    shares = weighing(shares, values.dtype)
    read = jnp.einsum("bkgts,bksd->bkgtd", shares, values, preferred_element_type=jnp.float32)
    return rounded(read / total, values.dtype)


def keep(keys: jax.Array, values: jax.Array, slots: int) -> KeyValue:
    """Start a cache of `slots` slots with keys and values [B, K, S, d] in the first ones."""
    return widen((jnp.swapaxes(keys, 2, 3), values), slots)


def widen(kept: KeyValue, slots: int) -> KeyValue:
    """Add empty slots at the end, up to `slots`."""
    keys, values = kept
    more = (0, slots - keys.shape[3])
    return jnp.pad(keys, ((0, 0), (0, 0), (0, 0), more)), jnp.pad(values, ((0, 0), (0, 0), more, (0, 0)))


def append(kept: KeyValue, keys: jax.Array, values: jax.Array, slot: jax.Array) -> KeyValue:
    """Write the keys and values [B, K, 1, d] of one position per row into `slot`."""
    return (
        jax.lax.dynamic_update_slice_in_dim(kept[0], jnp.swapaxes(keys, 2, 3), slot, axis=3),
        jax.lax.dynamic_update_slice_in_dim(kept[1], values, slot, axis=2),
    )


def cached_bias(positions: jax.Array, slot: jax.Array, slots: int, window: int | None) -> jax.Array:
    """Bias float32 [B, 1, 1, 1, slots] of the tokens in `slot`: 0 in it and as many slots back from it, around the
    ring, as a row has `positions` before (int32 [B]), else MASKED; see `packed_bias`."""
    back = slot - jnp.arange(slots)
    back = jnp.where(back < 0, back + slots, back)
    seen = back <= positions[:, None]
    if window is not None:
        seen &= back < window
    return jnp.where(seen, 0.0, MASKED).astype(jnp.float32)[:, None, None, None]
