"""A feed-forward of which each token passes through few of many experts.

The tokens are sorted by expert into blocks of one size, and each block is multiplied with the matrices of one expert.
This is the product `jax.lax.ragged_dot`, which on the CPU (jax 0.10) multiplies every row with every expert: 1024
tokens with 8 of 64 experts of 256 by 128 took 3.6 CPU-seconds and 2.1 GB, forward and backward; blocks 0.16 and 0.12.
Legend: N tokens, k experts of each, R = N * k rows, E experts, M blocks, S rows of a block, D width, F inner width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from tunix_rt.backends.jax.products import gated, linear, matmul, rounded, sums_of, worth_keeping
from tunix_rt.models.families.architecture import ROUTER, Experts

MAX_ROWS = 128
"""Most rows of a block: the last block of each expert is filled up with zeros."""


def route(logits: jax.Array, experts: Experts) -> tuple[jax.Array, jax.Array]:
    """The router's `logits` float32 [N, E] → each token's experts int32 [N, k], and their weights float32 [N, k].

    Of equal experts the first is taken.
    """
    weights, chosen = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), experts.per_token)
    return chosen, weights / weights.sum(axis=-1, keepdims=True) if experts.normalised else weights


def mixture(
    x: jax.Array,
    part: Callable[[str], jax.Array],
    experts: Experts,
    activation: Callable[[jax.Array], jax.Array],
    dtype: Any,
) -> jax.Array:
    """What a layer's experts make of `x` [..., D], multiplied in `dtype`: float32 [..., D]. `part`: its tensors."""
    flat = x.reshape(-1, x.shape[-1])
    chosen, weights = route(linear(flat, part(ROUTER), jnp.float32), experts)
    matrices = part("expert_gate_up"), part("expert_down")
    return mixed(rounded(flat, dtype), chosen, weights, *matrices, experts, activation).reshape(x.shape)


def mixed(
    x: jax.Array,
    chosen: jax.Array,
    weights: jax.Array,
    gate_up: jax.Array,
    down: jax.Array,
    experts: Experts,
    activation: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """The weighted sum of what each token's experts make of it: `x` [N, D] → float32 [N, D].

    `gate_up` [E * 2F, D], `down` [E * D, F]; they are multiplied in the dtype of `x`.
    """
    places, owners, size = blocks(chosen.reshape(-1), experts.count)
    rows = jnp.repeat(x, experts.per_token, axis=0)
    filled = jnp.zeros((len(owners) * size, x.shape[-1]), x.dtype).at[places].set(rows, unique_indices=True)
    gate, up = jnp.split(multiplied(experts.count, filled.reshape(len(owners), size, -1), gate_up, owners), 2, axis=-1)
    made = multiplied(experts.count, gated(gate, up, activation), down, owners).reshape(filled.shape)
    parts = made.at[places].get(unique_indices=True).reshape(*chosen.shape, -1)
    return (parts.astype(jnp.float32) * weights[..., None]).sum(axis=1)


def blocks(chosen: jax.Array, num_experts: int) -> tuple[jax.Array, jax.Array, int]:
    """Where each row lies in the blocks, int32 [R], the expert of each block, int32 [M], and S.

    `chosen` int32 [R]. M is the most that can be needed: few rows, as in decoding, touch few experts.
    """
    total = len(chosen)
    size = min(MAX_ROWS, 1 << max(1, total // num_experts).bit_length() - 1)
    counts = jnp.bincount(chosen, length=num_experts)
    filled = -(-counts // size) * size
    ends = jnp.cumsum(filled)
    order = jnp.argsort(chosen, stable=True)
    ranks = jnp.zeros_like(order).at[order].set(jnp.arange(total), unique_indices=True)
    ranks = ranks - (jnp.cumsum(counts) - counts)[chosen]
    most = (total + (size - 1) * min(num_experts, total)) // size
    owners = (jnp.arange(most)[:, None] * size >= ends).sum(axis=1)
    return (ends - filled)[chosen] + ranks, jnp.minimum(owners, num_experts - 1), size


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def multiplied(num_experts: int, rows: jax.Array, matrices: jax.Array, owners: jax.Array) -> jax.Array:
    """Each block of `rows` [M, S, in] times the matrix of its expert; `matrices` [E * out, in] → [M, S, out]."""
    stack = matrices.reshape(num_experts, -1, matrices.shape[-1])
    found: jax.Array = jax.lax.map(lambda block: _product(block[0], stack[block[1]], rows.dtype), (rows, owners))
    return worth_keeping(found)


def _product(x: jax.Array, matrix: jax.Array, dtype: Any) -> jax.Array:
    return rounded(matmul(x, rounded(matrix, dtype), sums_of(dtype)), dtype)


def _forward(num_experts: int, *given: jax.Array) -> tuple[jax.Array, Any]:
    return multiplied(num_experts, *given), given


def _backward(num_experts: int, given: Any, slopes: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    """Adds the gradient of each block to its expert's; by itself jax would make one of all experts for each block."""
    rows, matrices, owners = given
    stack = matrices.reshape(num_experts, -1, matrices.shape[-1])

    def one(total: jax.Array, block: Any) -> tuple[jax.Array, jax.Array]:
        row, slope, owner = block
        added = jnp.matmul(slope.T, row, preferred_element_type=total.dtype)
        return total.at[owner].add(added), _product(slope, stack[owner].T, slope.dtype)

    total, found = jax.lax.scan(one, jnp.zeros_like(stack), (rows, slopes, owners))
    return found, total.reshape(matrices.shape), None


multiplied.defvjp(_forward, _backward)
