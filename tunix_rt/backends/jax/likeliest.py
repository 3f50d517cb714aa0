"""The likeliest tokens at every position of a batch, for who asks what else a text might have said.

Legend: A micro-batches, D devices, L rows of one, T positions, V vocabulary, k likeliest tokens.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from tunix_rt.backends.jax.decoder import Decoder, Gather, Params
from tunix_rt.backends.jax.mesh import ROWS, DeviceMesh
from tunix_rt.backends.jax.step import Graph, Inputs
from tunix_rt.backends.limits import LOGITS_AT_ONCE

Likeliest = tuple[jax.Array, jax.Array]
"""Ids int32 [..., k] and log-probabilities float32 [..., k], the likeliest first."""


@partial(jax.jit, static_argnames=("graph", "mesh", "top"))
def likeliest(graph: Graph, mesh: DeviceMesh | None, params: Params, inputs: Inputs, top: int) -> Likeliest:
    """[A, L, T, k], with `mesh` [A, D, L, T, k], at every position, targets or not."""
    if mesh is None:
        return _of_micro_batches(graph, params, inputs, None, top)

    def local(params: Params, inputs: Inputs) -> Likeliest:
        mine = jax.tree.map(lambda array: array[:, 0], inputs)
        ids, logprobs = _of_micro_batches(graph, params, mine, mesh.gather, top)
        return ids[:, None], logprobs[:, None]

    found: Likeliest = mesh.settled(mesh.spread(local, (mesh.specs(params), ROWS), (ROWS, ROWS))(params, inputs))
    return found


def _of_micro_batches(graph: Graph, params: Params, inputs: Inputs, whole: Gather | None, top: int) -> Likeliest:
    def one(micro: Inputs) -> Likeliest:
        tensors = params
        if whole is not None:
            tensors = {name: array if name == "layers" else whole(name, array) for name, array in params.items()}
        decoder = nnx.merge(graph, tensors)
        hidden, _ = decoder(micro.tokens, micro.positions, micro.segments, micro.pairs, whole)
        rows = hidden.reshape(-1, hidden.shape[-1])
        ids, logprobs = jax.lax.map(partial(_at, decoder, top), _portions(decoder, rows))
        shape = micro.tokens.shape
        return tuple(array.reshape(-1, array.shape[-1])[: len(rows)].reshape(*shape, -1) for array in (ids, logprobs))

    found: Likeliest = jax.lax.map(one, inputs)
    return found


def _portions(decoder: Decoder, rows: jax.Array) -> jax.Array:
    """[N, width] → [portions, n, width], whose logits may be in memory at once; the last is filled up."""
    portions = -(-len(rows) * decoder.architecture.vocab_size // LOGITS_AT_ONCE)
    size = -(-len(rows) // portions)
    return jnp.pad(rows, ((0, portions * size - len(rows)), (0, 0))).reshape(portions, size, -1)


def _at(decoder: Decoder, top: int, hidden: jax.Array) -> Likeliest:
    """`hidden` float32 [n, width] → [n, k] each."""
    logits = decoder.logits(hidden)
    values, ids = jax.lax.top_k(logits, min(top, logits.shape[-1]))
    return ids, values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
