"""The products of one linear layer in training, to be timed (`backends.rates`)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tunix_rt.backends.jax.products import linear
from tunix_rt.config.choices import Precision


def repeatable(platform: str, precision: Precision, rows: int, inputs: int, outputs: int) -> Callable[[], None]:
    """Multiplies [rows, inputs] by [outputs, inputs] forward and backward, compiled; returns when it is done."""
    device = jax.devices(platform)[0]
    shapes = {"x": (rows, inputs), "matrix": (outputs, inputs), "slopes": (rows, outputs)}
    drawn = [jax.random.normal(jax.random.key(len(name)), shape) for name, shape in shapes.items()]
    x, matrix, slopes = jax.device_put(drawn, device)

    @jax.jit
    def products(x: jax.Array, matrix: jax.Array, slopes: jax.Array) -> object:
        found, backward = jax.vjp(lambda x, matrix: linear(x, matrix, jnp.dtype(precision)), x, matrix)
        return found, backward(slopes.astype(found.dtype))

    def lap() -> None:
        jax.block_until_ready(products(x, matrix, slopes))  # type: ignore[no-untyped-call]

    lap()
    return lap
