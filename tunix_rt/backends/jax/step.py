"""One training step and one scoring pass, as pure functions compiled once per shape.

In: parameters, moments and a batch of numpy arrays. Out: new ones and scalars that stay on the device.
Legend: A micro-batches, B rows, T positions, K selected targets of a micro-batch, D width, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from tunix_rt.backends.jax.adapter import KEYS, joined
from tunix_rt.backends.jax.attention import block_pairs
from tunix_rt.backends.jax.decoder import Decoder, Gather, Params
from tunix_rt.backends.jax.mesh import EVERYWHERE, ROW_AXES, ROWS, DeviceMesh
from tunix_rt.backends.jax.optimizer import Kept, Runs, update
from tunix_rt.backends.limits import LOGITS_AT_ONCE
from tunix_rt.backends.objective import weighted_loss
from tunix_rt.batches.batch import Batch
from tunix_rt.config.optimizers import OptimizerConfig

Graph = nnx.GraphDef[Decoder]


class Inputs(NamedTuple):
    """A batch in the form in which it is passed to the device."""

    tokens: Any  # int32 [A, B, T]
    positions: Any  # int32 [A, B, T]
    segments: Any  # int32 [A, B, T]
    pairs: Any  # int32 [A, N, 2] blocks that share a trace (`attention.block_pairs`); None: complete rows
    selected: Any  # int32 [A, K] places of targets in the flat micro-batch, B * T: none; None: all, K = B * T
    targets: Any  # int32 [A, K]
    weights: Any  # float32 [A, K]
    dropout: Any = None  # uint32 [A, L, M, 2] (`LoraLayout.dropout_keys`); None: no dropout


def select(batch: Batch, vocab_size: int, hidden_size: int) -> Inputs:
    """Keep the positions that are targets: K is their number, rounded up to a multiple of a quarter of B * T.

    Few values of K mean few compilations. If the vocabulary is not larger than the model's width, all are kept.
    """
    micro, rows, length = batch.tokens.shape
    weights = batch.weights.reshape(micro, -1)
    quarter = -(-rows * length // 4)
    most = int(np.count_nonzero(weights, axis=1).max())
    size = min(max(-(-most // quarter), 1) * quarter, rows * length)
    selected = None
    targets = batch.targets.reshape(micro, -1)
    if size < rows * length and vocab_size > hidden_size:
        selected = np.full((micro, size), rows * length, np.int32)
        for index in range(micro):
            places = np.flatnonzero(weights[index])
            selected[index, : places.size] = places
        inside = selected < rows * length
        clipped = np.minimum(selected, rows * length - 1)
        targets = np.take_along_axis(targets, clipped, axis=1)
        weights = np.take_along_axis(weights, clipped, axis=1) * inside
    pairs = block_pairs(batch.segments) if jax.default_backend() == "cpu" else None  # a gain was measured only there
    return Inputs(batch.tokens, batch.positions, batch.segments, pairs, selected, targets, weights)


def target_logprobs(decoder: Decoder, inputs: Inputs, whole: Gather | None = None) -> jax.Array:
    """Log-probabilities float32 [K] of the targets of one micro-batch (fields of `inputs` without A)."""
    hidden, _ = decoder(inputs.tokens, inputs.positions, inputs.segments, inputs.pairs, whole)
    hidden = hidden.reshape(-1, hidden.shape[-1])
    if inputs.selected is not None:
        hidden = hidden.at[inputs.selected].get(
            mode="fill", fill_value=0, indices_are_sorted=True, unique_indices=False
        )
    count, width = hidden.shape
    portions = -(-count * decoder.architecture.vocab_size // LOGITS_AT_ONCE)
    if portions == 1:
        return _logprobs_at(decoder, hidden, inputs.targets)
    size = -(-count // portions)
    padding = portions * size - count
    hidden = jnp.pad(hidden, ((0, padding), (0, 0))).reshape(portions, size, width)
    targets = jnp.pad(inputs.targets, (0, padding)).reshape(portions, size)
    portion = jax.checkpoint(lambda pair: _logprobs_at(decoder, *pair))
    found: jax.Array = jax.lax.map(portion, (hidden, targets))
    return found.reshape(-1)[:count]


def _logprobs_at(decoder: Decoder, hidden: jax.Array, targets: jax.Array) -> jax.Array:
    """`hidden` float32 [N, D], `targets` int32 [N] → log-probabilities float32 [N]."""
    logits = decoder.logits(hidden)
    hit = jnp.arange(logits.shape[-1]) == targets[:, None]
    found: jax.Array = jnp.where(hit, logits, 0).sum(axis=-1) - jax.nn.logsumexp(logits, axis=-1)
    return found


def loss_and_gradients(
    graph: Graph, params: Params, frozen: Params, inputs: Inputs, divisor: jax.Array, whole: Gather | None = None
) -> tuple[jax.Array, Params]:
    """Loss sum over all micro-batches, and the gradients of its quotient by `divisor` with respect to `params`.

    `whole`: makes a tensor of which a device holds a part whole (`mesh.DeviceMesh.whole`).
    """

    def loss_sum(params: Params, micro: Inputs) -> jax.Array:
        tensors = joined(frozen, params)
        if micro.dropout is not None:
            tensors["layers"][KEYS] = micro.dropout
        loss: jax.Array = weighted_loss(_logprobs(graph, tensors, micro, whole), micro.weights)
        return loss

    def one(micro: Inputs) -> tuple[jax.Array, Params]:
        return jax.value_and_grad(loss_sum)(params, micro)

    if inputs.tokens.shape[0] == 1:
        sums = one(jax.tree.map(lambda array: array[0], inputs))
    else:
        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        sums, _ = jax.lax.scan(lambda sums, micro: (jax.tree.map(jnp.add, sums, one(micro)), None), zeros, inputs)
    total, gradients = sums
    return total, jax.tree.map(lambda gradient: gradient / divisor, gradients)


def _logprobs(graph: Graph, tensors: Params, micro: Inputs, whole: Gather | None) -> jax.Array:
    """As `target_logprobs`, of a decoder with these tensors. Layers are made whole where they are used."""
    if whole is not None:
        tensors = {name: one if name == "layers" else whole(name, one) for name, one in tensors.items()}
    return target_logprobs(nnx.merge(graph, tensors), micro, whole)


@partial(jax.jit, static_argnames=("graph", "mesh"))
def gradients(
    graph: Graph, mesh: DeviceMesh | None, params: Params, frozen: Params, inputs: Inputs, divisor: jax.Array
) -> tuple[jax.Array, Params]:
    """Loss sum and gradients of all rows; `mesh` None: on one device, else `inputs` are [A, D, ...].

    This takes nearly all memory of a step, and donates nothing: a device without memory raises here, and parameters
    and moments are as before, so that the step can be repeated with fewer rows at once. (In one program with the
    update they would be lost: donated buffers are deleted when a call begins, RESOURCE_EXHAUSTED or not. Two programs
    give the same bits, and took 0.96 of the time: 6 layers of width 256, CPU.)
    """
    if mesh is None:
        return loss_and_gradients(graph, params, frozen, inputs, divisor)

    def local(params: Params, frozen: Params, inputs: Inputs, divisor: jax.Array) -> tuple[jax.Array, Params]:
        mine = jax.tree.map(lambda array: array[:, 0], inputs)
        total, found = loss_and_gradients(graph, params, frozen, mine, divisor, mesh.gather)
        return mesh.total(total, *ROW_AXES), mesh.summed(found)

    own = mesh.specs(params)
    spread = mesh.spread(local, (own, mesh.specs(frozen), ROWS, EVERYWHERE), (EVERYWHERE, own))
    total, found = spread(params, frozen, inputs, divisor)
    return total, mesh.settled(found)


@partial(jax.jit, static_argnames=("rule", "runs", "mesh"), donate_argnames=("params", "moments"))
def apply_gradients(
    rule: OptimizerConfig,
    runs: Runs,
    mesh: DeviceMesh | None,
    params: Params,
    moments: Kept,
    loss_sum: jax.Array,
    gradients: Params,
    learning_rate: jax.Array,
    clip_norm: jax.Array,
) -> tuple[Params, Kept, dict[str, jax.Array]]:
    """One update of `params` (`clip_norm` inf: no clipping). Every device decides by the same reduced numbers.

    An elementwise optimizer updates the part of each device. Any other takes tensors whole, from wherever the compiler
    finds their parts.

    If loss or gradient is not finite, everything is returned unchanged.
    """
    if mesh is None:
        norm = optax.tree.norm(gradients)
        return _applied(rule, runs, params, moments, loss_sum, gradients, norm, learning_rate, clip_norm)

    def local(params: Params, moments: Kept, loss_sum: jax.Array, gradients: Params, *rates: Any) -> Any:
        return _applied(rule, runs, params, moments, loss_sum, gradients, mesh.norm(gradients), *rates)

    own = mesh.specs(params), mesh.specs(moments)
    if rule.elementwise:
        spread = mesh.spread(local, (*own, EVERYWHERE, own[0], EVERYWHERE, EVERYWHERE), (*own, EVERYWHERE))
        params, moments, measured = spread(params, moments, loss_sum, gradients, learning_rate, clip_norm)
    else:
        norm = mesh.spread(mesh.norm, (own[0],), EVERYWHERE)(gradients)
        params, moments, measured = _applied(
            rule, runs, params, moments, loss_sum, gradients, norm, learning_rate, clip_norm
        )
    return mesh.settled(params), mesh.settled(moments), measured


def _applied(
    rule: OptimizerConfig,
    runs: Runs,
    params: Params,
    moments: Kept,
    loss_sum: jax.Array,
    gradients: Params,
    norm: jax.Array,
    learning_rate: jax.Array,
    clip_norm: jax.Array,
) -> tuple[Params, Kept, dict[str, jax.Array]]:
    new = update(rule, runs, params, gradients, moments, norm, learning_rate, clip_norm)
    finite = jnp.isfinite(loss_sum) & jnp.isfinite(norm)
    params, moments = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, (params, moments))
    return params, moments, {"loss_sum": loss_sum, "grad_norm": norm, "finite": finite}


@partial(jax.jit, static_argnames=("graph", "mesh"))
def score(graph: Graph, mesh: DeviceMesh | None, params: Params, inputs: Inputs) -> jax.Array:
    """Log-probability float32 [A, L, T], with `mesh` [A, D, L, T], of each target; 0 where its weight is 0."""
    if mesh is None:
        return _scores(graph, params, inputs, None)

    def local(params: Params, inputs: Inputs) -> jax.Array:
        return _scores(graph, params, jax.tree.map(lambda array: array[:, 0], inputs), mesh.gather)[:, None]

    found: jax.Array = mesh.spread(local, (mesh.specs(params), ROWS), ROWS)(params, inputs)
    settled: jax.Array = mesh.settled(found)
    return settled


def _scores(graph: Graph, params: Params, inputs: Inputs, whole: Gather | None) -> jax.Array:
    rows, length = inputs.tokens.shape[1:]

    def one(micro: Inputs) -> jax.Array:
        found = jnp.where(micro.weights != 0, _logprobs(graph, params, micro, whole), 0)
        if micro.selected is not None:
            found = jnp.zeros(rows * length).at[micro.selected].set(found, mode="drop")
        return found.reshape(rows, length)

    found: jax.Array = jax.lax.map(one, inputs)
    return found
