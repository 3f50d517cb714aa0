"""Products of matrices in a precision, and rounding that the compiler may not leave out.

In bfloat16 XLA keeps more digits than a program says wherever it likes ("excess precision"): on the CPU the result of
a product was never rounded, nor what lies between two steps of a fused loop. Both backends are to round in the same
places, and `lax.reduce_precision` is the one operation that XLA always carries out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

PRODUCT = "product"
"""What `worth_keeping` calls an array for `jax.checkpoint`."""


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """`x` in `dtype`, really rounded to it if that is bfloat16."""
    if jnp.dtype(dtype) != jnp.bfloat16 or x.dtype == dtype:
        return x.astype(dtype)
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7).astype(dtype)


def linear(x: jax.Array, matrix: jax.Array, dtype: Any, bias: jax.Array | None = None) -> jax.Array:
    """`x` [..., in] times `matrix` [out, in] in `dtype`, plus `bias` [out]: `dtype` [..., out], rounded once."""
    if jnp.dtype(dtype) == jnp.float32:
        found = matmul(x.astype(dtype), matrix.astype(dtype), dtype)
    else:
        found = _linear(x, matrix, sums_of(dtype) if bias is None else jnp.float32)
    if bias is not None:
        found = found + rounded(bias, dtype)
    return worth_keeping(rounded(found, dtype))


def worth_keeping(x: jax.Array) -> jax.Array:
    """`x`, kept for the backward pass where other arrays are computed again: the result of a large product."""
    found: jax.Array = checkpoint_name(x, PRODUCT)  # type: ignore[no-untyped-call]
    return found


def logits(hidden: jax.Array, matrix: jax.Array, dtype: Any) -> jax.Array:
    """`hidden` [..., in] times `matrix` [out, in], both rounded to `dtype`, as the float32 sums [..., out]."""
    if jnp.dtype(dtype) == jnp.float32:
        return matmul(hidden, matrix, dtype)
    return _linear(hidden, matrix, jnp.float32)


def weighing(shares: jax.Array, dtype: Any) -> jax.Array:
    """Shares of attention as they multiply values: kernels of GPUs and TPUs round them, the CPU keeps float32."""
    return shares if jax.default_backend() == "cpu" else rounded(shares, dtype)


def gated(gate: jax.Array, up: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """activation(gate) * up in float32, rounded after each step to the dtype of `gate`, as torch's kernels do."""
    return rounded(activated(gate, activation).astype(jnp.float32) * up, gate.dtype)


def activated(x: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """activation(x), computed in float32, in the dtype of `x`."""
    return rounded(activation(x.astype(jnp.float32)), x.dtype)


def matmul(x: jax.Array, matrix: jax.Array, sums: Any) -> jax.Array:
    """`x` [..., in] times `matrix` [out, in] as they are; returns `sums` [..., out]."""
    if x.ndim == 3 and x.shape[0] > x.shape[1] == 1 and jax.default_backend() == "cpu":
        return _one_position(x, matrix, sums)
    return jax.lax.dot_general(x, matrix, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=sums)


def _one_position(x: jax.Array, matrix: jax.Array, sums: Any) -> jax.Array:
    """The same for one position of each row, [B, 1, in], as [out, B]: 1.45 times as fast with 32 rows on the CPU.

    The compiler would turn the product round again, but for an operation on its result that it cannot leave out.
    """
    found = jax.lax.dot_general(matrix, x[:, 0], (((1,), (1,)), ((), ())), preferred_element_type=sums)
    return jnp.maximum(found, np.finfo(found.dtype).min).T[:, None]


def sums_of(dtype: Any) -> Any:
    """What a product of `dtype` gives before it is rounded: XLA's CPU multiplies bfloat16 twice as fast into float32.

    On a GPU or TPU the product itself rounds its float32 sums.
    """
    return jnp.float32 if jax.default_backend() == "cpu" else dtype


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _linear(x: jax.Array, matrix: jax.Array, sums: Any) -> jax.Array:
    """A product in bfloat16. By itself jax would multiply float32 slopes with bfloat16 matrices, in float32."""
    return matmul(rounded(x, jnp.bfloat16), rounded(matrix, jnp.bfloat16), sums)


def _forward(x: jax.Array, matrix: jax.Array, sums: Any) -> tuple[jax.Array, Any]:
    return _linear(x, matrix, sums), (rounded(x, jnp.bfloat16), matrix, jnp.zeros(0, x.dtype))


def _backward(sums: Any, kept: Any, slopes: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, matrix, like = kept
    slopes = rounded(slopes, jnp.bfloat16)
    of_x = matmul(slopes, rounded(matrix, jnp.bfloat16).T, sums_of(jnp.bfloat16))
    flat = slopes.reshape(-1, slopes.shape[-1]), x.reshape(-1, x.shape[-1])
    of_matrix = jax.lax.dot_general(*flat, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return rounded(of_x, jnp.bfloat16).astype(like.dtype), of_matrix.astype(matrix.dtype)


_linear.defvjp(_forward, _backward)
