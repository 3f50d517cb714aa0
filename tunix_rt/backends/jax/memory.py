"""Memory of a training step under jax, from shapes alone: its program is compiled, and the compiler reports it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tunix_rt.backends.jax import step
from tunix_rt.backends.jax.adapter import KEYS, LoraLayout, joined, keys
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.optimizer import UpdateRule, adam
from tunix_rt.backends.memory import FLOAT, MemoryQuery, largest_batch
from tunix_rt.batches.batch import Batch
from tunix_rt.errors import DeviceError
from tunix_rt.models.families.architecture import kind_of, layer_parts, whole_parts


def device_memory(index: int) -> int:
    """Bytes of a device that jax may use. Raises DeviceError if jax does not report them."""
    return _stat(index, "bytes_limit")


def peak_memory(index: int) -> int:
    """The most bytes that this process had on a device. Raises DeviceError if jax does not report them."""
    return _stat(index, "peak_bytes_in_use")


def _stat(index: int, name: str) -> int:
    stats = jax.devices()[index].memory_stats()
    if not stats or name not in stats:
        raise DeviceError("jax does not say how much memory this device has; name it with --memory SIZE")
    return int(stats[name])


def activations(query: MemoryQuery) -> int:
    """Bytes of the step's program for the batch with the most targets, besides its arguments and the gradients."""
    model = _Model(query)
    inputs = model.inputs(largest_batch(query))
    rule, one = UpdateRule.of(query.optimizer), np.float32(1)
    moments = jax.eval_shape(adam(rule).init, model.trained)
    given = (model.training_graph, rule, model.trained, moments, model.frozen, inputs, one, one)
    found: Any = step.train_step.lower(*given).compile().memory_analysis()
    scratch = int(found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes)
    return max(0, scratch - FLOAT * query.num_trained)


class _Model:
    """A model's shapes as jax holds them, and the graph of its decoder."""

    def __init__(self, query: MemoryQuery) -> None:
        self.query = query
        shape, dtype = query.architecture, jnp.dtype(query.backend.precision)
        layers = {
            own: _spec((shape.num_layers, sum(piece[0] for piece in pieces), *pieces[0][1:]))
            for own, pieces in layer_parts(shape).items()
        }
        whole: Params = {own: _spec(part) for own, part in whole_parts(shape).items()} | {"layers": layers}
        self.frozen: Params = {}
        self.trained, training, plan = whole, whole, None
        if query.adapter is not None:
            plan = LoraLayout.of(query.adapter, shape)
            self.frozen = whole | {"layers": {own: _frozen(own, part, dtype) for own, part in layers.items()}}
            self.trained = {"layers": _sides(query, plan)}
            training = joined(self.frozen, self.trained)
            if query.adapter.dropout > 0:
                training = joined(training, {"layers": {KEYS: jnp.zeros(0)}})
        self.plan = plan
        checkpointing = query.backend.gradient_checkpointing
        self.training_graph = nnx.graphdef(Decoder(shape, dtype, training, plan, checkpointing))

    def inputs(self, batch: Batch) -> step.Inputs:
        """The inputs of a training step."""
        shape, adapter = self.query.architecture, self.query.adapter
        inputs = step.select(batch, shape.vocab_size, shape.hidden_size)
        if adapter is None or self.plan is None:
            return inputs
        return inputs._replace(dropout=keys(adapter, self.plan, 0, 0, len(batch.tokens)))


def _sides(query: MemoryQuery, plan: LoraLayout) -> Params:
    """A and B of each piece, stacked over layers."""
    assert query.adapter is not None
    sides: Params = {}
    for piece in plan.pieces:
        columns = layer_parts(query.architecture)[piece.canonical_name][0][1]
        sides[piece.key("A")] = _spec((query.architecture.num_layers, query.adapter.rank, columns))
        sides[piece.key("B")] = _spec((query.architecture.num_layers, piece.rows, query.adapter.rank))
    return sides


def _frozen(own: str, part: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
    return _spec(part.shape, dtype) if kind_of(own) == "matrices" else part


def _spec(shape: tuple[int, ...], dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
