"""The compiled programs of answering: reading prompts, decoding with a preallocated cache, rows that join and leave.

The cache is a ring: every row writes the keys and values of its next token into the same slot, so that rows which began
at different times are decoded together, and what a row sees are the slots back from there, as many as it has tokens.
Legend: R rows on the device, D different prompts, P slots of prompts (right-aligned), S slots of the cache, C tokens of
a portion, k tokens named, L layers, K key-value heads, d width of a head, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt.backends.jax.attention import keep, widen
from tunix_rt.backends.jax.decoder import Cache, Layers, Params
from tunix_rt.backends.jax.sampling import Chosen, Kind, Sampling, choose
from tunix_rt.backends.jax.step import Graph

PORTION = 32
"""C: most tokens per row between two synchronisations with the host."""


class Carry(NamedTuple):
    """What is carried from one portion to the next."""

    cache: Cache
    tokens: jax.Array  # int32 [R] chosen, not yet fed to the model
    positions: jax.Array  # int32 [R] of `tokens`: how many the row has before
    left: jax.Array  # int32 [R] tokens that may still be made; 0: finished
    slot: jax.Array  # int32 [] where `tokens` will be written

    @property
    def slots(self) -> int:
        return int(self.cache[0][0].shape[3])


Progress = tuple[Carry, Chosen, jax.Array]
"""Carry, what was chosen, with a first axis of C, and the number of the C tokens made so far."""


@partial(jax.jit, static_argnames=("graph", "kind", "top", "capacity"))
def prefill(
    graph: Graph,
    kind: Kind,
    top: int,
    capacity: int,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    places: jax.Array,
    limits: jax.Array,
    stop_ids: jax.Array,
    sampling: Sampling,
    uniform: jax.Array,
) -> tuple[Carry, Chosen]:
    """Read prompts `tokens` int32 [D, P], right-aligned, and choose the first new token of each row.

    `lengths` int32 [D]; `places` (the prompt of a row) and `limits` int32 [R], `uniform` float32 [R].
    """
    decoder = nnx.merge(graph, params)
    slots = tokens.shape[1]
    starts = slots - lengths
    positions = jnp.maximum(jnp.arange(slots) - starts[:, None], 0)
    segments = (jnp.arange(slots) >= starts[:, None]).astype(jnp.int32)
    hidden, (keys, values) = decoder(tokens, positions, segments)
    chosen = choose(decoder.logits(hidden[:, -1])[places], uniform, sampling, kind, top)
    cache = tuple(keep(k[places], v[places], capacity) for k, v in zip(keys, values, strict=True))
    left = _left(limits, chosen.token, stop_ids)
    return Carry(cache, chosen.token, lengths[places], left, jnp.asarray(slots % capacity, jnp.int32)), chosen


def _left(left: jax.Array, token: jax.Array, stop_ids: jax.Array) -> jax.Array:
    stopped = (token[:, None] == stop_ids).any(axis=-1)
    return jnp.where(stopped, 0, jnp.maximum(left - 1, 0))


@partial(jax.jit, static_argnames=("graph", "kind", "top"), donate_argnames=("carry",))
def decode(
    graph: Graph,
    kind: Kind,
    top: int,
    params: Params,
    layers: Layers,
    carry: Carry,
    stop_ids: jax.Array,
    sampling: Sampling,
    uniform: jax.Array,
    portion: jax.Array,
) -> Progress:
    """Make `portion` (int32 []) more tokens of each row, fewer if all have finished. `uniform` float32 [C, R]."""
    decoder = nnx.merge(graph, params)
    rows, slots = uniform.shape[1], carry.slots

    def more(state: Progress) -> jax.Array:
        carry, _, count = state
        return (count < portion) & (carry.left > 0).any()

    def one(state: Progress) -> Progress:
        carry, made, count = state
        hidden, cache = decoder.read_one(layers, carry.tokens, carry.positions, carry.slot, carry.cache)
        chosen = choose(decoder.logits(hidden[:, None])[:, 0], uniform[count], sampling, kind, top)
        left, slot = _left(carry.left, chosen.token, stop_ids), carry.slot + 1
        carry = Carry(cache, chosen.token, carry.positions + 1, left, jnp.where(slot == slots, 0, slot))
        return carry, Chosen(*(all_.at[count].set(new) for all_, new in zip(made, chosen, strict=True))), count + 1

    shapes = {"token": (), "logprob": (), "top_ids": (top,), "top_logprobs": (top,)}
    whole = {"token", "top_ids"}
    made = Chosen(
        **{
            name: jnp.zeros((len(uniform), rows, *last), jnp.int32 if name in whole else jnp.float32)
            for name, last in shapes.items()
        }
    )
    found: Progress = jax.lax.while_loop(more, one, (carry, made, jnp.asarray(0)))
    return found


@partial(jax.jit, static_argnames=("graph",))
def separate(graph: Graph, params: Params) -> Layers:
    """See `Decoder.separate`."""
    layers: Layers = nnx.merge(graph, params).separate()
    return layers


@partial(jax.jit, static_argnames=("capacity",))
def refit(carry: Carry, rows: jax.Array, capacity: int) -> Carry:
    """Take only `rows` int32 [R'] (-1: one that has finished), and widen the cache to `capacity` slots, at least as
    many as it has: the oldest slot becomes the first."""

    def one(array: jax.Array, axis: int) -> jax.Array:
        return jnp.roll(array[rows], -carry.slot, axis)

    cache = tuple(widen((one(keys, 3), one(values, 2)), capacity) for keys, values in carry.cache)
    left = jnp.where(rows < 0, 0, carry.left[rows])
    slot = jnp.asarray(carry.slots % capacity, jnp.int32)
    return Carry(cache, carry.tokens[rows], carry.positions[rows], left, slot)


@partial(jax.jit, donate_argnames=("carry",))
def join(carry: Carry, new: Carry, rows: jax.Array) -> Carry:
    """Put the rows of `new`, whose cache has no more slots, in the place of `rows` int32 [R'] (too large: nowhere)."""
    back = carry.slot - new.slots

    def placed(array: jax.Array, more: jax.Array, axis: int) -> jax.Array:
        room = [(0, carry.slots - more.shape[axis] if place == axis else 0) for place in range(more.ndim)]
        return array.at[rows].set(jnp.roll(jnp.pad(more, room), back, axis), mode="drop")

    pairs = zip(carry.cache, new.cache, strict=True)
    cache = tuple((placed(keys, k, 3), placed(values, v, 2)) for (keys, values), (k, v) in pairs)
    parts = zip(carry[1:4], new[1:4], strict=True)
    tokens, positions, left = (part.at[rows].set(more, mode="drop") for part, more in parts)
    return Carry(cache, tokens, positions, left, carry.slot)


def bucket(size: int) -> int:
    """Round up to one of few sizes: powers of two from 16 and the numbers halfway between them."""
    power = max(16, power_of_two(size))
    return power * 3 // 4 if 16 < size <= power * 3 // 4 else power


def power_of_two(size: int) -> int:
    """The least power of two that is not below."""
    return 1 << (size - 1).bit_length()
