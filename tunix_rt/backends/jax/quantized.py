"""Products with quantised matrices: they are dequantised for one product, and again in the backward pass.

The matrices of a layer's part lie below one another, as codes [L, rows, width] and scales [L, rows] with the names
`qkv_codes` and `qkv_scales`, in the place of `qkv`. What the codes mean: see `models/quantize.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tunix_rt.backends.jax.products import linear
from tunix_rt.config.choices import Quantization
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.registry import tensors_of
from tunix_rt.models.quantize import NF4_PAIRS, Quantized, codes_dtype, codes_shape

Shapes = tuple[tuple[int, int], ...]
"""(out, in) of the matrices of a part, in order."""


def shapes_of(architecture: Architecture) -> dict[str, Shapes]:
    """The matrices of each part of a layer."""
    found: dict[str, Shapes] = {}
    for tensor in tensors_of(architecture):
        if tensor.layer == 0 and tensor.takes_adapter:
            found[tensor.canonical_name] = (*found.get(tensor.canonical_name, ()), tensor.matrix_shape)
    return found


def stacked(architecture: Architecture, matrices: Mapping[str, Quantized]) -> dict[str, Any]:
    """Quantised matrices by Hugging Face name → tensors of the layers; {} if there are none."""
    parts: dict[str, list[list[Quantized]]] = {}
    for tensor in tensors_of(architecture):
        if tensor.layer is not None and tensor.name in matrices:
            layers = parts.setdefault(tensor.canonical_name, [[] for _ in architecture.layers])
            layers[tensor.layer].append(matrices[tensor.name])
    codes = {f"{own}_codes": _stack([[one.codes for one in layer] for layer in part]) for own, part in parts.items()}
    scales = {f"{own}_scales": _stack([[one.scales for one in layer] for layer in part]) for own, part in parts.items()}
    return codes | scales


def _stack(layers: list[list[Any]]) -> np.ndarray[Any, Any]:
    return np.stack([np.concatenate(layer) for layer in layers])


def specs(architecture: Architecture, kind: Quantization | None) -> dict[str, Any]:
    """Shape and dtype of what `stacked` returns; {} if nothing is quantised."""
    found: dict[str, Any] = {}
    if kind is None:
        return found
    for own, shapes in shapes_of(architecture).items():
        rows, widths = zip(*(codes_shape(kind, shape) for shape in shapes), strict=True)
        size = (architecture.num_layers, sum(rows), widths[0])
        found[f"{own}_codes"] = jax.ShapeDtypeStruct(size, codes_dtype(kind))  # type: ignore[no-untyped-call]
        found[f"{own}_scales"] = jax.ShapeDtypeStruct(size[:2], np.float32)  # type: ignore[no-untyped-call]
    return found


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def product(x: jax.Array, codes: jax.Array, scales: jax.Array, bias: jax.Array | None, shapes: Shapes) -> jax.Array:
    """`x` [..., in] times the matrices below one another, in the dtype of `x`, plus `bias` [out], frozen too."""
    return linear(x, dequantized(_after(x, codes), scales, shapes), x.dtype, bias)


def _forward(
    x: jax.Array, codes: jax.Array, scales: jax.Array, bias: jax.Array | None, shapes: Shapes
) -> tuple[jax.Array, Any]:
    return product(x, codes, scales, bias, shapes), (codes, scales)


def _backward(shapes: Shapes, kept: Any, gradient: jax.Array) -> tuple[jax.Array, None, None, None]:
    codes, scales = kept
    of_x = linear(gradient, dequantized(_after(gradient, codes), scales, shapes).T, gradient.dtype)
    return of_x, None, None, None


product.defvjp(_forward, _backward)  # autodiff would keep every dequantised matrix


def _after(x: jax.Array, codes: jax.Array) -> jax.Array:
    """`codes` plus a 0 that depends on `x`, so that they are dequantised when `x` is known and not before.

    Otherwise the compiler takes the matrices of all layers out of a loop over tokens, or computes them side by side,
    and uses those of the forward pass again: the whole model in full (an optimization_barrier is ignored on the CPU).
    """
    return codes + jnp.minimum(jnp.isnan(x.reshape(-1)[0]).astype(codes.dtype), 0)


def dequantized(codes: jax.Array, scales: jax.Array, shapes: Shapes) -> jax.Array:
    """The values of the matrices below one another, float32 [out, in]."""
    if codes.dtype == jnp.int8:
        return codes.astype(jnp.float32) * scales[:, None]
    levels = jnp.asarray(NF4_PAIRS).at[codes].get(mode="promise_in_bounds").reshape(len(codes), -1)
    values, width = levels * scales[:, None], shapes[0][1]
    if values.size == sum(math.prod(shape) for shape in shapes):
        return values.reshape(-1, width)
    ends = np.cumsum([codes_shape("nf4", shape)[0] for shape in shapes])[:-1]
    pieces = zip(jnp.split(values, ends), shapes, strict=True)
    return jnp.concatenate([piece.reshape(-1)[: math.prod(shape)].reshape(shape) for piece, shape in pieces])
