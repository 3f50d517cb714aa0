"""Which way the packed rows of a micro-batch are attended: in whole, in pairs of blocks, or without their scores.

Legend: B rows, T positions, K key-value heads, G query heads of each, d width of a head, N pairs of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tunix_rt.backends.jax.attention import attend, attend_pairs, packed_bias, pair_bias
from tunix_rt.backends.jax.kernels import ALIGNED, kernel_for
from tunix_rt.backends.jax.long_rows import attend_long
from tunix_rt.backends.jax.variants import pick
from tunix_rt.backends.limits import LONGEST_WHOLE
from tunix_rt.models.families.architecture import Architecture

Rows = Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]
"""Queries [B, K, G, T, d], keys and values [B, K, T, d], the number of the layer's window → [B, K, G, T, d]."""


def over_rows(
    segments: jax.Array,
    pairs: jax.Array | None,
    windows: Sequence[int | None],
    dtype: Any,
    a: Architecture,
    kernels: bool = True,
) -> Rows:
    """Attention within segments int32 [B, T]; `pairs` int32 [N, 2]: see `attention.block_pairs`.

    Without `kernels` only what the compiler can divide among devices.
    """
    length = segments.shape[1]
    if pairs is not None:
        biases = jnp.stack([pair_bias(segments, pairs, window) for window in windows])
        return lambda q, k, v, wide: attend_pairs(q, k, v, pairs, pick(biases, wide), a)
    found = [kernel_for(jax.default_backend(), dtype, window, a) if kernels else None for window in windows]
    if length > LONGEST_WHOLE or (length >= ALIGNED and any(found)):
        ways = [
            partial(_attend, kernel or attend_long, segments, window, a)
            for kernel, window in zip(found, windows, strict=True)
        ]
        return lambda q, k, v, wide: ways[0](q, k, v) if len(ways) == 1 else jax.lax.switch(wide, ways, q, k, v)
    biases = jnp.stack([packed_bias(segments, window) for window in windows])
    return lambda q, k, v, wide: attend(q, jnp.swapaxes(k, 2, 3), v, pick(biases, wide), a)


def _attend(
    way: Callable[..., jax.Array],
    segments: jax.Array,
    window: int | None,
    a: Architecture,
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
) -> jax.Array:
    return way(queries, keys, values, segments, window, a)
