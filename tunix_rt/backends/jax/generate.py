"""Answering prompts: prefill, decoding with a preallocated cache in compiled portions, sampling.

A row's result depends only on its prompt and seed: padding is masked, and its random numbers come from the host.
Equal prompts of a batch are prefilled once.
Legend: R rows on the device, D different prompts, P slots of prompts (right-aligned), S slots of the cache, C tokens of
a portion, L layers, K key-value heads, d width of a head, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tunix_rt.backends.interface import Piece
from tunix_rt.backends.jax.attention import keep, widen
from tunix_rt.backends.jax.decoder import Cache, Layers, Params
from tunix_rt.backends.jax.sampling import Sampling, choose
from tunix_rt.backends.jax.step import Graph
from tunix_rt.backends.prompts import distinct, first_equals
from tunix_rt.backends.sampling import uniforms
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.folder import Float32

PORTION = 32
"""Tokens per row between two synchronisations with the host."""
SINGLE_PORTION = 8
"""The same for a single row, which somebody may be watching."""
SHRINK = 4
"""Finished rows are dropped once the batch can shrink by this factor: each number of rows is one more compilation."""
SMALL_CACHE = 128
"""Slots up to which a cache does not grow in stages: each stage is one more compilation."""


class Carry(NamedTuple):
    """What is carried from one portion to the next."""

    cache: Cache
    tokens: jax.Array  # int32 [R] chosen, not yet fed to the model
    starts: jax.Array  # int32 [R] slot of the first prompt token
    left: jax.Array  # int32 [R] tokens that may still be made; 0: finished
    slot: jax.Array  # int32 [] where `tokens` will be written


Progress = tuple[Carry, jax.Array, jax.Array, jax.Array]
"""Carry, tokens int32 [C, R], log-probabilities float32 [C, R], and the number of the C tokens made so far."""


@partial(jax.jit, static_argnames=("graph", "sampling", "capacity"))
def prefill(
    graph: Graph,
    sampling: Sampling,
    capacity: int,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    places: jax.Array,
    limits: jax.Array,
    stop_ids: jax.Array,
    uniform: jax.Array,
) -> tuple[Carry, jax.Array]:
    """Read prompts `tokens` int32 [D, P], right-aligned, and choose the first new token of each row.

    `lengths` int32 [D]; `places` (the prompt of a row) and `limits` int32 [R], `uniform` float32 [R]. Returns the carry
    and log-probabilities [R].
    """
    decoder = nnx.merge(graph, params)
    slots = tokens.shape[1]
    starts = slots - lengths
    positions = jnp.maximum(jnp.arange(slots) - starts[:, None], 0)
    segments = (jnp.arange(slots) >= starts[:, None]).astype(jnp.int32)
    hidden, (keys, values) = decoder(tokens, positions, segments)
    token, logprob = choose(decoder.logits(hidden[:, -1])[places], uniform, sampling)
    cache = tuple(keep(k[places], v[places], capacity) for k, v in zip(keys, values, strict=True))
    left = _left(limits, token, stop_ids)
    return Carry(cache, token, starts[places], left, jnp.asarray(slots, jnp.int32)), logprob


def _left(left: jax.Array, token: jax.Array, stop_ids: jax.Array) -> jax.Array:
    stopped = (token[:, None] == stop_ids).any(axis=-1)
    return jnp.where(stopped, 0, jnp.maximum(left - 1, 0))


@partial(jax.jit, static_argnames=("graph", "sampling"), donate_argnames=("carry",))
def decode(
    graph: Graph,
    sampling: Sampling,
    params: Params,
    layers: Layers,
    carry: Carry,
    stop_ids: jax.Array,
    uniform: jax.Array,
) -> Progress:
    """Generate up to C more tokens of each row; ends early when all rows have finished. `uniform` float32 [C, R]."""
    decoder = nnx.merge(graph, params)
    portion, rows = uniform.shape

    def more(state: Progress) -> jax.Array:
        carry, _, _, count = state
        return (count < portion) & (carry.left > 0).any()

    def one(state: Progress) -> Progress:
        carry, tokens, logprobs, count = state
        hidden, cache = decoder.read_one(layers, carry.tokens, carry.starts, carry.slot, carry.cache)
        token, logprob = choose(decoder.logits(hidden), uniform[count], sampling)
        carry = Carry(cache, token, carry.starts, _left(carry.left, token, stop_ids), carry.slot + 1)
        return carry, tokens.at[count].set(token), logprobs.at[count].set(logprob), count + 1

    tokens, logprobs = jnp.zeros((portion, rows), jnp.int32), jnp.zeros((portion, rows), jnp.float32)
    found: Progress = jax.lax.while_loop(more, one, (carry, tokens, logprobs, jnp.asarray(0)))
    return found


@partial(jax.jit, static_argnames=("graph",))
def _separate(graph: Graph, params: Params) -> Layers:
    return nnx.merge(graph, params).separate()


@partial(jax.jit, static_argnames=("capacity",))
def refit(carry: Carry, rows: jax.Array, capacity: int) -> Carry:
    """Keep only `rows` int32 [R'], and widen the cache to `capacity` slots, at least as many as it has."""
    cache = tuple(widen((keys[rows], values[rows]), capacity) for keys, values in carry.cache)
    return Carry(cache, carry.tokens[rows], carry.starts[rows], carry.left[rows], carry.slot)


def bucket(size: int) -> int:
    """Round up to one of few sizes: powers of two from 16 and the numbers halfway between them."""
    power = max(16, _power_of_two(size))
    return power * 3 // 4 if 16 < size <= power * 3 // 4 else power


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `Backend.generate`, on any number of devices."""

    graph: Graph
    architecture: Architecture
    stop_ids: tuple[int, ...]
    prompts: Sequence[Int32]
    generation: GenerationConfig
    seeds: Sequence[int]

    def limit(self, index: int) -> int:
        """New tokens that a prompt may get."""
        return min(self.generation.max_new_tokens, self.architecture.max_positions - len(self.prompts[index]))


@dataclass(frozen=True, slots=True)
class Answering:
    """What stays fixed while the devices of one group answer."""

    graph: Graph
    params: Params
    layers: Layers
    sampling: Sampling
    stop_ids: Int32
    prompts: Sequence[Int32]
    limits: Sequence[int]
    """New tokens that each prompt may get."""
    numbers: Float32
    """Uniform numbers float32 [prompts, positions]."""

    @classmethod
    def of(cls, call: Call, params: Params) -> Answering:
        generation = call.generation
        return cls(
            graph=call.graph,
            params=params,
            layers=_separate(call.graph, params),
            sampling=Sampling(generation.temperature, generation.top_k, generation.top_p),
            stop_ids=np.array(call.stop_ids, np.int32),
            prompts=call.prompts,
            limits=[call.limit(index) for index in range(len(call.prompts))],
            numbers=uniforms(call.seeds, generation.max_new_tokens + PORTION),
        )


Pieces = Iterator[Piece | None]
"""None: work has been dispatched whose result is waited for next."""


def answering_order(call: Call) -> list[int]:
    """Prompts of similar length together, the longest first, and equal ones next to each other."""
    firsts = first_equals(call.prompts)
    return sorted(range(len(call.prompts)), key=lambda index: (-len(call.prompts[index]), firsts[index]))


def generate(call: Call, params: Params, order: Sequence[int]) -> Pieces:
    """Answer the prompts `order`, in batches; see `Backend.generate`. `params`: on the devices that answer."""
    for index in order:
        if call.limit(index) < 1:
            yield Piece(index, np.zeros(0, np.int32), np.zeros(0, np.float32), "length")
    if not (order := [index for index in order if call.limit(index) >= 1]):
        return
    answering, size = Answering.of(call, params), call.generation.batch_size
    for first in range(0, len(order), size):
        yield from _answer_batch(answering, order[first : first + size], size)


def together(groups: Sequence[Pieces]) -> Iterator[Piece]:
    """The pieces of several devices: each dispatches its next portion before the next result is waited for."""
    waiting = deque(groups)
    while waiting:
        pieces = waiting.popleft()
        for piece in pieces:
            if piece is None:
                waiting.append(pieces)
                break
            yield piece


def _answer_batch(answering: Answering, indices: list[int], batch_size: int) -> Pieces:
    """Answer the prompts `indices` together. A device row without a prompt (padding) has owner None."""
    rows = min(_power_of_two(len(indices)), batch_size)
    owners: list[int | None] = [*indices, *[None] * (rows - len(indices))]
    slots = bucket(max(len(answering.prompts[index]) for index in indices))
    longest = max(answering.limits[index] for index in indices)
    carry, logprob = _prefill_batch(answering, owners, slots, _capacity(slots, 1, longest))
    yield None
    tokens, logprobs, made = np.asarray(carry.tokens)[None], np.asarray(logprob)[None], 0
    while True:
        for row, owner in enumerate(owners):
            if owner is not None:
                piece = _piece(answering, owner, tokens[:, row], logprobs[:, row], made)
                yield piece
                owners[row] = None if piece.finish_reason else owner
        if not any(owner is not None for owner in owners):
            return
        made += len(tokens)
        carry, owners = _refit_batch(carry, owners, _capacity(slots, made, longest))
        uniform = _uniform(answering, owners, made, SINGLE_PORTION if len(owners) == 1 else PORTION)
        fixed = (answering.graph, answering.sampling, answering.params, answering.layers)
        carry, *found, count = decode(*fixed, carry, answering.stop_ids, uniform)
        yield None
        tokens, logprobs = (np.asarray(array)[: int(count)] for array in found)


def _prefill_batch(
    answering: Answering, owners: list[int | None], slots: int, capacity: int
) -> tuple[Carry, jax.Array]:
    prompts, places = distinct([answering.prompts[owner] for owner in owners if owner is not None])
    count = min(_power_of_two(len(prompts)), len(owners))
    tokens, lengths = np.zeros((count, slots), np.int32), np.ones(count, np.int32)
    for place, prompt in enumerate(prompts):
        tokens[place, slots - len(prompt) :], lengths[place] = prompt, len(prompt)
    padded = np.array([*places, *[count - 1] * (len(owners) - len(places))], np.int32)
    limits = np.array([0 if owner is None else answering.limits[owner] for owner in owners], np.int32)
    fixed = (answering.graph, answering.sampling, capacity, answering.params)
    uniform = _uniform(answering, owners, 0, 1)[0]
    found: tuple[Carry, jax.Array] = prefill(*fixed, tokens, lengths, padded, limits, answering.stop_ids, uniform)
    return found


def _refit_batch(carry: Carry, owners: list[int | None], capacity: int) -> tuple[Carry, list[int | None]]:
    """Drop finished rows when most have finished; enlarge the cache when it is full."""
    kept = list(range(len(owners)))
    live = sum(owner is not None for owner in owners)
    size = min(_power_of_two(live), len(owners))
    if size * SHRINK <= len(owners):
        kept = sorted(kept, key=lambda row: owners[row] is None)[:size]
    present = carry.cache[0][0].shape[3]
    capacity = max(capacity, present)
    if len(kept) == len(owners) and capacity == present:
        return carry, owners
    return refit(carry, np.array(kept, np.int32), capacity), [owners[row] for row in kept]


def _piece(answering: Answering, index: int, ids: Int32, logprobs: Float32, made: int) -> Piece:
    """Cut a row's new tokens at its stop token or its limit; `made` tokens came before them."""
    room = answering.limits[index] - made
    stops = np.flatnonzero(np.isin(ids, answering.stop_ids))
    if stops.size and stops[0] < room:
        end = int(stops[0])
        return Piece(index, ids[:end], logprobs[:end], "stop", int(ids[end]), float(logprobs[end]))
    return Piece(index, ids[:room], logprobs[:room], "length" if room <= len(ids) else None)


def _uniform(answering: Answering, owners: list[int | None], first: int, count: int) -> Float32:
    """Random numbers [count, rows] for the next tokens."""
    rows = [0 if owner is None else owner for owner in owners]
    return np.ascontiguousarray(answering.numbers[rows, first : first + count].T)


def _capacity(slots: int, made: int, longest: int) -> int:
    """Slots of the cache for the next portion, when `made` of at most `longest` tokens have been made."""
    return min(bucket(slots + longest), max(bucket(slots + made + PORTION), SMALL_CACHE))


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()
