"""Long packed rows skip what no trace reads: the shortcut of each backend against plain masked attention."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from jax import numpy as jnp
from torch.nn.functional import scaled_dot_product_attention

from tunix_rt.backends.jax import attention as in_jax
from tunix_rt.backends.torch import attention as in_torch
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.fields import alike

ROWS = ([130, 60, 100], [300], [7, 1, 64, 128], [], [10])
"""Lengths of traces: boundaries inside, at and across blocks, padding, a full row, an empty one."""
LENGTH, HEADS, WIDTH = 300, 2, 32


def segments() -> Any:
    """int32 [B, T] of ROWS."""
    made = np.zeros((len(ROWS), LENGTH), np.int32)
    for row, lengths in enumerate(ROWS):
        ends = np.cumsum(lengths, dtype=int)
        for number, (length, end) in enumerate(zip(lengths, ends, strict=True), start=1):
            made[row, end - length : end] = number
    return made


def architecture(heads: int) -> Architecture:
    """A model with heads of WIDTH; only the cost of attention is read of it."""
    layers = alike(1, None)
    return Architecture("llama", 5, 8, 8, heads, heads, WIDTH, LENGTH, layers, 1e-5, True, WIDTH**-0.5)


def arrays(*shape: int) -> list[Any]:
    """Queries, keys, values and a weight of each output, 0 in padding."""
    generator = np.random.default_rng(0)
    made = [generator.standard_normal(shape, dtype=np.float32) for _ in range(4)]
    made[3] *= (segments() > 0).reshape(len(ROWS), *[1] * (len(shape) - 3), LENGTH, 1)
    return made


def reference(queries: Any, keys: Any, values: Any, weights: Any, window: int | None = None) -> tuple[Any, list[Any]]:
    """The weighted sum of masked attention in torch and its gradients; arrays [B, H, T, D]."""
    given = [torch.tensor(x, requires_grad=True) for x in (queries, keys, values)]
    of = torch.from_numpy(segments())
    mask = (of[:, :, None] == of[:, None, :]) & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    if window is not None:
        mask = mask & torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1 - window)
    loss = (scaled_dot_product_attention(*given, attn_mask=mask[:, None]) * torch.from_numpy(weights)).sum()
    loss.backward()
    return loss.detach().numpy(), [x.grad.numpy() for x in given]


@pytest.mark.parametrize("window", [None, 50])
def test_jax_pairs_of_blocks_give_the_values_and_gradients_of_whole_rows(window: int | None) -> None:
    """A pair left out would lose what a query reads; a pair that does not exist must add nothing."""
    pairs = in_jax.block_pairs(segments()[None])
    assert pairs is not None, "the shortcut is not taken: the test would prove nothing"
    num_blocks = len(ROWS) * -(-LENGTH // in_jax.BLOCK)
    assert (pairs[0, :, 0] == num_blocks).any(), "no filler: the test would prove nothing"
    queries, keys, values, weights = arrays(len(ROWS), HEADS, LENGTH, WIDTH)

    def loss(q: Any, k: Any, v: Any) -> Any:
        bias = in_jax.pair_bias(jnp.asarray(segments()), jnp.asarray(pairs[0]), window)
        read = in_jax.attend_pairs(q[:, :, None], k, v, jnp.asarray(pairs[0]), bias, architecture(HEADS))
        return (read[:, :, 0] * weights).sum()

    value, gradients = jax.value_and_grad(loss, argnums=(0, 1, 2))(queries, keys, values)
    expected, expected_gradients = reference(queries, keys, values, weights, window)
    assert float(value) == pytest.approx(float(expected), rel=1e-4, abs=1e-3)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_jax_takes_short_rows_whole() -> None:
    """The quickstart's rows of 72 gain nothing from blocks of 64."""
    assert in_jax.block_pairs(np.ones((1, 16, 72), np.int32)) is None


def test_torch_runs_give_the_values_and_gradients_of_masked_rows() -> None:
    """A run cut at the wrong place would read another trace."""
    attend = in_torch.Packed(segments(), architecture(1 << 11), torch.device("cpu"))
    assert attend.by_runs, "the shortcut is not taken: the test would prove nothing"
    queries, keys, values, weights = arrays(len(ROWS), HEADS, LENGTH, WIDTH)
    given = [torch.tensor(x, requires_grad=True) for x in (queries, keys, values)]
    loss = (attend(0, *given) * torch.from_numpy(weights)).sum()
    loss.backward()
    expected, expected_gradients = reference(queries, keys, values, weights)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4, abs=1e-3)
    for got, wanted in zip(given, expected_gradients, strict=True):
        assert got.grad is not None
        np.testing.assert_allclose(got.grad.numpy(), wanted, atol=1e-4)


def test_torch_takes_short_rows_whole() -> None:
    """A call per trace would cost more than the scores it saves."""
    short = np.repeat(np.repeat(np.arange(1, 7, dtype=np.int32), 11)[None], 16, axis=0)
    assert not in_torch.Packed(short, architecture(2), torch.device("cpu")).by_runs
