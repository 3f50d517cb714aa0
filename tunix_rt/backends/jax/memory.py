"""Memory of a training step under jax, from shapes alone: its program is compiled, and the compiler reports it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tunix_rt.backends.fold import Fold
from tunix_rt.backends.jax import step
from tunix_rt.backends.jax.adapter import LoraLayout, frozen_in, joined, with_dropout
from tunix_rt.backends.jax.decoder import Decoder, Params
from tunix_rt.backends.jax.quantized import shapes_of, specs
from tunix_rt.backends.memory import FLOAT, MemoryQuery, largest_batch
from tunix_rt.errors import DeviceError
from tunix_rt.models.families.architecture import layer_parts, whole_parts


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
    """Bytes of the program of the gradients, for the batch with the most targets, besides its arguments and those."""
    shape, adapter, batch = query.architecture, query.adapter, largest_batch(query)
    fold = Fold.of(len(batch.tokens), query.rows_at_once)
    dtype, inputs = (
        jnp.dtype(query.backend.precision),
        step.select(fold.local(batch), shape.vocab_size, shape.hidden_size),
    )
    layers = {
        own: _spec((shape.num_layers, sum(piece[0] for piece in pieces), *pieces[0][1:]))
        for own, pieces in layer_parts(shape).items()
        if query.quantize is None or own not in shapes_of(shape)
    } | specs(shape, query.quantize)
    whole: Params = {own: _spec(part) for own, part in whole_parts(shape).items()} | {"layers": layers}
    trained, lora, frozen = whole, None, Params()
    if adapter is not None:
        lora = LoraLayout.of(adapter, shape)
        frozen = jax.eval_shape(partial(frozen_in, dtype=dtype, constants=lora.constants()), whole)
        trained = {"layers": {key: _spec((shape.num_layers, *side)) for key, side in lora.shapes().items()}}
        inputs = inputs._replace(dropout=lora.dropout_keys(0, 0, fold.rows()))
    training = with_dropout(joined(frozen, trained), lora)
    graph = nnx.graphdef(Decoder(shape, dtype, training, lora, query.backend.gradient_checkpointing))
    lowered = step.gradients.lower(graph, None, trained, frozen, inputs, np.float32(1))
    found: Any = lowered.compile().memory_analysis()
    return max(0, int(found.temp_size_in_bytes + found.output_size_in_bytes) - FLOAT * query.num_trained)


def _spec(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)  # type: ignore[no-untyped-call]
