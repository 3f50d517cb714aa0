"""The next token from logits: greedy, or filtered and drawn by inversion of one uniform number per row.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True, slots=True)
class Sampling:
    """The parts of the generation config that are compiled in."""

    temperature: float
    top_k: int | None
    top_p: float | None


def choose(logits: jax.Array, uniform: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """`logits` float32 [R, V], `uniform` float32 [R] in [0, 1) → token int32 [R] and its log-probability.

    The log-probability is the model's, at temperature 1 and before filters. Temperature 0 takes the first of
    the likeliest tokens; otherwise the first token in vocabulary order is taken at which the running sum of the
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

    All ties at a threshold are kept.
    """
    if sampling.top_k is not None:
        ranked, _ = jax.lax.top_k(shares, min(sampling.top_k, shares.shape[-1]))
        shares = jnp.where(shares >= ranked[:, -1:], shares, 0)
    if sampling.top_p is not None:
        needed = sampling.top_p * shares.sum(axis=-1, keepdims=True)
        shares = jnp.where(shares >= _largest_threshold(shares, needed), shares, 0)
    return shares


def _largest_threshold(shares: jax.Array, needed: jax.Array) -> jax.Array:
    """The largest value [R, 1] such that the shares [R, V] not below it sum to at least `needed` [R, 1].

    Found by bisection over bit patterns, which order non-negative floats: sorting a large vocabulary
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
