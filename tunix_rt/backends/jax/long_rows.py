"""Attention of long packed rows in blocks, whose memory grows with T, not with T² (FlashAttention 2, arXiv 2307.08691).

Written in plain jax: it runs on every platform, with windows and caps. For each block of queries it goes through the
blocks of keys that one of them can see, keeping the running maximum and sums of the softmax; the backward pass
computes the shares again. Kernels of GPUs and TPUs that do the same are in `kernels`.
Legend: B rows, T positions, K key-value heads, G query heads of each, d width of a head, C positions of a block.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tunix_rt.backends.jax.products import rounded, weighing
from tunix_rt.models.families.architecture import Architecture

BLOCK = 256
"""C: smaller blocks compute less for nothing, larger ones take fewer steps."""
MASKED = -1e30
"""A score that is not seen; finite, so that a block without any seen score gives no NaN."""


def attend_long(
    queries: jax.Array, keys: jax.Array, values: jax.Array, segments: jax.Array, window: int | None, a: Architecture
) -> jax.Array:
    """`queries` [B, K, G, T, d], `keys` and `values` [B, K, T, d], `segments` int32 [B, T] → [B, K, G, T, d].

    As `attention.attend` with `attention.packed_bias`.
    """
    length = segments.shape[1]
    more = -length % BLOCK
    starts = trace_starts(jnp.pad(segments, ((0, 0), (0, more))))
    filled = (jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (0, more), (0, 0)]) for x in (queries, keys, values))
    return _attend(*filled, starts, window, a)[:, :, :, :length]


def trace_starts(segments: jax.Array) -> jax.Array:
    """Segments int32 [B, T] → where the trace of each position begins, int32 [B, T]."""
    begins = jnp.diff(segments, axis=1, prepend=-1) != 0
    return jax.lax.cummax(jnp.where(begins, jnp.arange(segments.shape[1]), 0), axis=1)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(
    queries: jax.Array, keys: jax.Array, values: jax.Array, starts: jax.Array, window: int | None, a: Architecture
) -> jax.Array:
    return _read(queries, keys, values, starts, window, a)[0]


def _read(
    queries: jax.Array, keys: jax.Array, values: jax.Array, starts: jax.Array, window: int | None, a: Architecture
) -> tuple[jax.Array, jax.Array]:
    """What the heads read, and the logarithms of the softmax's sums, float32 [B, K, G, T]."""

    def block(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        own = _block(queries, index)

        def one(other: jax.Array, state: Any) -> Any:
            top, total, read = state
            capped, seen = _scores(own, _block(keys, other), index, other, starts, window, a)
            scores = jnp.where(seen, capped, MASKED)
            highest = jnp.maximum(top, scores.max(axis=-1))
            shares, shrunk = jnp.exp(scores - highest[..., None]), jnp.exp(top - highest)
            part = _sums("bkgts,bksd->bkgtd", weighing(shares, values.dtype), _block(values, other))
            return highest, total * shrunk + shares.sum(axis=-1), read * shrunk[..., None] + part

        zeros = jnp.zeros(own.shape, jnp.float32)
        state = jnp.full(own.shape[:-1], MASKED), zeros[..., 0], zeros
        top, total, read = jax.lax.fori_loop(_first(index, starts, window), index + 1, one, state)
        return rounded(read / total[..., None], values.dtype), top + jnp.log(total)

    read, logs = jax.lax.map(block, jnp.arange(starts.shape[1] // BLOCK))
    return _joined(read), _joined(logs[..., None])[..., 0]


def _forward(
    queries: jax.Array, keys: jax.Array, values: jax.Array, starts: jax.Array, window: int | None, a: Architecture
) -> tuple[jax.Array, Any]:
    read, logs = _read(queries, keys, values, starts, window, a)
    return read, (queries, keys, values, starts, read, logs)


def _backward(window: int | None, a: Architecture, kept: Any, slopes: jax.Array) -> tuple[Any, ...]:
    queries, keys, values, starts, read, logs = kept
    means = (slopes.astype(jnp.float32) * read.astype(jnp.float32)).sum(axis=-1, keepdims=True)
    logs, dtype = logs[..., None], values.dtype

    def block(sums: Any, index: jax.Array) -> tuple[Any, jax.Array]:
        own, slope, log, mean = (_block(x, index) for x in (queries, slopes, logs, means))

        def one(other: jax.Array, state: Any) -> Any:
            of_own, of_keys, of_values = state
            theirs = _block(keys, other)
            capped, seen = _scores(own, theirs, index, other, starts, window, a)
            shares = jnp.where(seen, jnp.exp(capped - log), 0)
            steep = shares * (_sums("bkgtd,bksd->bkgts", slope, _block(values, other)) - mean) * a.attention_scale
            if a.score_cap is not None:
                steep = steep * (1 - (capped / a.score_cap) ** 2)
            steep, shares = weighing(steep, dtype), weighing(shares, dtype)
            of_values = _added(of_values, other, _sums("bkgts,bkgtd->bksd", shares, slope))
            of_keys = _added(of_keys, other, _sums("bkgts,bkgtd->bksd", steep, own))
            return of_own + _sums("bkgts,bksd->bkgtd", steep, theirs), of_keys, of_values

        state = (jnp.zeros(own.shape, jnp.float32), *sums)
        of_own, *sums = jax.lax.fori_loop(_first(index, starts, window), index + 1, one, state)
        return tuple(sums), rounded(of_own, dtype)

    zeros = jnp.zeros(keys.shape, jnp.float32)
    sums, of_queries = jax.lax.scan(block, (zeros, zeros), jnp.arange(starts.shape[1] // BLOCK))
    return _joined(of_queries), *(rounded(x, dtype) for x in sums), None


_attend.defvjp(_forward, _backward)


def _scores(
    queries: jax.Array,
    keys: jax.Array,
    index: jax.Array,
    other: jax.Array,
    starts: jax.Array,
    window: int | None,
    a: Architecture,
) -> tuple[jax.Array, jax.Array]:
    """Capped scores float32 [B, K, G, C, C] of two blocks, and which are seen, bool [B, 1, 1, C, C]."""
    scores = _sums("bkgtd,bksd->bkgts", queries, keys) * a.attention_scale
    if a.score_cap is not None:
        scores = a.score_cap * jnp.tanh(scores / a.score_cap)
    places = jnp.arange(BLOCK)
    query, key = (index * BLOCK + places)[:, None], other * BLOCK + places
    least = jax.lax.dynamic_slice_in_dim(starts, index * BLOCK, BLOCK, axis=1)[:, :, None]
    seen = (key <= query) & (key >= least)
    return scores, (seen if window is None else seen & (key > query - window))[:, None, None]


def _first(index: jax.Array, starts: jax.Array, window: int | None) -> jax.Array:
    """The first block of keys that a query of block `index` sees in any row."""
    first = jax.lax.dynamic_slice_in_dim(starts, index * BLOCK, 1, axis=1).min()
    if window is not None:
        first = jnp.maximum(first, index * BLOCK + 1 - window)
    return first // BLOCK


def _sums(rule: str, one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.einsum(rule, one, other, preferred_element_type=jnp.float32)


def _block(x: jax.Array, index: jax.Array) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, index * BLOCK, BLOCK, axis=x.ndim - 2)


def _added(x: jax.Array, index: jax.Array, more: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, _block(x, index) + more, index * BLOCK, axis=x.ndim - 2)


def _joined(blocks: jax.Array) -> jax.Array:
    """[T / C, B, K, G, C, d] → [B, K, G, T, d]."""
    whole = jnp.moveaxis(blocks, 0, 3)
    return whole.reshape(*whole.shape[:3], -1, whole.shape[-1])
