"""Bytes that training takes on one device, from shapes alone: no framework, nothing compiled, a millisecond.

What is held follows exactly; activations are an estimate in closed form (Korthikanti et al. 2022, arXiv 2205.05198,
with the numbers of this code), from which `hardware.local_batch_size=auto` begins. `plan` has them exactly.
Legend: D hidden width, F inner width, H query heads, d width of a head, T positions of a row, V vocabulary.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import partial

from tunix_rt.backends.limits import LOGITS_AT_ONCE, LONGEST_WHOLE, MOST_KEYS
from tunix_rt.backends.memory import FLOAT, MemoryQuery
from tunix_rt.backends.optimizers.registry import rule_of
from tunix_rt.backends.optimizers.rule import kept_of, trained_tensors
from tunix_rt.config.choices import BACKENDS
from tunix_rt.models.families.architecture import EXPERT
from tunix_rt.models.families.names import Tensor
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.quantize import size_of
from tunix_rt.models.tensor_file import size_of as size_in_file

SHARE_OF_HOST, SHARE_OF_DEVICE = 0.5, 0.9
"""Of the memory, what the estimate may fill: a host has other processes too, which would be killed."""
LOGIT_COPIES = 2.5
"""Arrays of logits that live at once: the values, their exponentials, and part of a gradient (measured: 1.2 to 3)."""
BACKWARD = 0.6
"""What the backward pass of a layer takes beside what was kept of it, as a share of that (measured: 0.35 to 0.6)."""


def compute_size(query: MemoryQuery) -> int:
    """Bytes of a number that is multiplied."""
    return 2 if query.backend.precision == "bfloat16" else FLOAT


def held_size(query: MemoryQuery, tensor: Tensor) -> int:
    """Bytes of a whole tensor as it is held: float32; the matrices under an adapter quantised, or as they multiply."""
    if query.adapter is None or not tensor.is_layer_matrix:
        return math.prod(tensor.shape) * FLOAT
    if query.quantize is not None and tensor.takes_adapter:
        return size_of(query.quantize, tensor.matrix_shape)
    return math.prod(tensor.shape) * compute_size(query)


def sent_size(query: MemoryQuery, tensor: Tensor) -> int:
    """Bytes of a whole tensor as it is gathered from its parts: matrices of layers as they multiply."""
    if query.quantize is not None and tensor.takes_adapter:
        return held_size(query, tensor)
    return math.prod(tensor.shape) * (compute_size(query) if tensor.is_layer_matrix else FLOAT)


def divided(query: MemoryQuery, tensor: Tensor) -> int:
    """Among how many devices along the axis `tensor` it is divided."""
    whole = tensor.canonical_name in EXPERT and not BACKENDS[query.backend.name].splits_experts
    return 1 if whole or tensor.split is None else query.mesh.tensor


def weights(query: MemoryQuery) -> int:
    """Bytes of a device's part of the weights. Adapters are whole on every device."""
    parts = (
        -(-held_size(query, tensor) // (query.mesh.shard * divided(query, tensor)))
        for tensor in tensors_of(query.architecture)
    )
    return sum(parts) + (0 if query.adapter is None else query.num_trained * FLOAT)


def trained(query: MemoryQuery) -> int:
    """Bytes of a device's part of the gradients."""
    if query.adapter is not None:
        return query.num_trained * FLOAT
    return weights(query)


def moments(query: MemoryQuery) -> int:
    """Bytes of a device's part of what the optimizer keeps. Whole are that of an adapter and what is not shaped as its
    weight; on jax all that is kept by an optimizer which needs tensors whole.
    """
    tensors = trained_tensors(query.architecture, query.adapter)
    in_parts = query.adapter is None and (query.optimizer.elementwise or BACKENDS[query.backend.name].parts_of_moments)
    parts = {tensor.name: query.mesh.shard * divided(query, tensor) for tensor in tensors_of(query.architecture)}
    return sum(
        -(-size_in_file(spec) // (parts[name] if in_parts and spec[1] == tensors[name].shape else 1))
        for specs in kept_of(rule_of(query.optimizer), tensors).values()
        for name, spec in specs.items()
    )


def gathered(query: MemoryQuery) -> int:
    """Bytes of what is made whole of sharded weights at one time, with its gradients.

    The layer that is computed and the next one, which is under way; embeddings and head.
    """
    if query.mesh.shard == 1:
        return 0
    layers: dict[int | None, int] = {}
    for tensor in tensors_of(query.architecture):
        layers[tensor.layer] = layers.get(tensor.layer, 0) + sent_size(query, tensor) // divided(query, tensor)
    outside = layers.pop(None)
    trains = query.adapter is None
    return 2 * max(layers.values()) + outside + trains * (max(layers.values()) + outside)


def activations(query: MemoryQuery, rows: int, length: int) -> int:
    """Bytes, estimated, that a step takes beside weights, gradients and moments, for rows [rows, T] at once."""
    shape, size, tokens = query.architecture, compute_size(query), rows * length
    kept, per_layer = _kept(query, length), FLOAT * shape.hidden_size
    checkpointing = query.backend.gradient_checkpointing
    layers = shape.num_layers * (per_layer if checkpointing else kept) + (checkpointing + BACKWARD) * kept
    rotary = 2 * FLOAT * (shape.num_heads + shape.num_kv_heads) * shape.head_dim
    ends = (2 * FLOAT + size) * shape.hidden_size
    logits = min(tokens * shape.vocab_size, LOGITS_AT_ONCE) * FLOAT * LOGIT_COPIES
    return int(tokens * (layers + rotary + ends) + logits)


def _kept(query: MemoryQuery, length: int) -> float:
    """Bytes per token that a layer keeps for the backward pass."""
    shape, size, tensor = query.architecture, compute_size(query), query.mesh.tensor
    inner = shape.intermediate_size
    if shape.experts is not None:
        inner = shape.experts.per_token * shape.experts.intermediate_size + (shape.experts.shared_size or 0)
    heads = 4 * shape.num_heads * shape.head_dim  # queries, keys, values, what is read
    scores = 2 * FLOAT * shape.num_heads * _kept_keys(query, length)
    width = 4 * FLOAT + (size if size < FLOAT else 0) * 2  # both inputs, both normed, and copies in half precision
    of_adapter = 0 if query.adapter is None or query.adapter.dropout == 0 else 2 * size * shape.hidden_size
    return (
        (size * (heads + (4 if shape.gated else 2) * inner) + scores) / tensor + width * shape.hidden_size + of_adapter
    )


def _kept_keys(query: MemoryQuery, length: int) -> int:
    """How many keys a position has whose scores are kept."""
    match BACKENDS[query.backend.name].kept_scores:
        case "all":
            return length
        case "of short rows":
            return length if length <= LONGEST_WHOLE else MOST_KEYS
    return 0


def fillable(limit: int, platform: str) -> int:
    """Of the `limit` bytes of a device those that the estimate may fill."""
    return int(limit * (SHARE_OF_HOST if platform == "cpu" else SHARE_OF_DEVICE))


def rows_that_fit(query: MemoryQuery, length: int, most: int, limit: int) -> int:
    """Rows of T positions, 1 … `most`, that a device with `limit` bytes computes at once by estimate."""
    models = 1 + query.keeps_reference
    left = limit - models * weights(query) - trained(query) - moments(query) - gathered(query)
    return max(1, bisect_right(range(1, most + 1), left, key=partial(_step, query, length)))


def _step(query: MemoryQuery, length: int, rows: int) -> int:
    return activations(query, rows, length)
