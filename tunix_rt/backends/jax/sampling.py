"""The next token from logits: greedy, or filtered and drawn by inversion of one uniform number per row.

What each row asks for is data, so that rows of different settings are answered together by one program.
Legend: R rows, V vocabulary, k tokens named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.folder import Float32

Kind = Literal["greedy", "drawn", "filtered"]
"""What at least one row asks for; compiled in, since drawing costs a pass over the vocabulary and filters many."""


class Sampling(NamedTuple):
    """The settings of each row."""

    temperature: Float32
    """[R]; 0: greedy."""
    top_k: Int32
    """[R]; 0: all."""
    top_p: Float32
    """[R]; 0: all."""

    @classmethod
    def of(cls, rows: Sequence[GenerationConfig | None]) -> Sampling:
        """None: a row whose tokens nobody reads."""
        return cls(
            np.array([0 if row is None else row.temperature for row in rows], np.float32),
            np.array([0 if row is None else row.top_k or 0 for row in rows], np.int32),
            np.array([0 if row is None else row.top_p or 0 for row in rows], np.float32),
        )

    @property
    def kind(self) -> Kind:
        """The least that serves all rows."""
        if not self.temperature.any():
            return "greedy"
        return "filtered" if self.top_k.any() or self.top_p.any() else "drawn"


class Chosen(NamedTuple):
    """The next token of each row. All log-probabilities are the model's, at temperature 1 and before filters."""

    token: jax.Array
    """int32 [R]"""
    logprob: jax.Array
    """float32 [R]"""
    top_ids: jax.Array
    """int32 [R, k], the likeliest first"""
    top_logprobs: jax.Array
    """float32 [R, k]"""


def choose(logits: jax.Array, uniform: jax.Array, sampling: Sampling, kind: Kind, top: int = 0) -> Chosen:
    """`logits` float32 [R, V], `uniform` float32 [R] in [0, 1); the `top` likeliest tokens are named.

    Temperature 0 takes the first of the likeliest tokens; otherwise the first token in vocabulary order is taken at
    which the running sum of the filtered probabilities exceeds `uniform` times their total.
    """
    size = logits.shape[-1]
    order = jnp.arange(size, dtype=jnp.int32)
    highest = logits.max(axis=-1, keepdims=True)
    token = jnp.where(logits == highest, order, size - 1).min(axis=-1)
    if kind != "greedy":
        temperature = jnp.asarray(sampling.temperature)
        shares = jnp.exp((logits - highest) / jnp.where(temperature == 0, 1, temperature)[:, None])
        drawn = _drawn(_filtered(shares, sampling) if kind == "filtered" else shares, uniform, order)
        token = jnp.where(temperature == 0, token, drawn)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    named, ids = jax.lax.top_k(logits, top) if top else (logits[:, :0], jnp.zeros((len(logits), 0), jnp.int32))
    return Chosen(token, (chosen - total)[:, 0], ids, named - total)


def _drawn(shares: jax.Array, uniform: jax.Array, order: jax.Array) -> jax.Array:
    """The token int32 [R] at which the running sum of `shares` [R, V] exceeds its part `uniform` [R] of the total."""
    running = jnp.cumsum(shares, axis=-1)
    reached = (running > uniform[:, None] * running[:, -1:]) & (shares > 0)
    last = jnp.where(shares > 0, order, 0).max(axis=-1, keepdims=True)
    return jnp.where(reached, order, last).min(axis=-1)


def _filtered(shares: jax.Array, sampling: Sampling) -> jax.Array:
    """Shares [R, V] (probabilities, up to a factor); those outside top-k, then outside top-p, become 0.

    All ties at a threshold are kept.
    """
    count, share = (jnp.asarray(part)[:, None] for part in (sampling.top_k, sampling.top_p))
    needed = jnp.minimum(count, shares.shape[-1]).astype(jnp.float32)
    threshold = _largest_threshold(shares, jnp.ones_like(shares), needed)
    shares = jnp.where((count == 0) | (shares >= threshold), shares, 0)
    threshold = _largest_threshold(shares, shares, share * shares.sum(axis=-1, keepdims=True))
    return jnp.where((share == 0) | (shares >= threshold), shares, 0)


def _largest_threshold(shares: jax.Array, amounts: jax.Array, needed: jax.Array) -> jax.Array:
    """The largest value [R, 1] such that the `amounts` [R, V] of shares not below it sum to at least `needed` [R, 1].

    Found by bisection over bit patterns, which order non-negative floats: sorting a large vocabulary
    takes as long as the model (16 rows of SmolLM2: 170 ms).
    """

    def value(bits: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(bits, jnp.float32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.where(shares >= value(middle), amounts, 0).sum(axis=-1, keepdims=True) >= needed
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros(needed.shape, jnp.int32)
    high = jnp.full(needed.shape, jnp.inf).view(jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return value(low)
