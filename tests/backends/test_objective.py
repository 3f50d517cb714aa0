"""The objective is algebra that every framework runs alike."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tunix_rt.backends.objective import cross_entropy

LOGPROBS = np.array([[-0.5, -2.0, -1.0], [-4.0, 0.0, -8.0]], np.float32)
WEIGHTS = np.array([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0]], np.float32)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy, jnp.asarray], ids=["numpy", "torch", "jax"])
def test_cross_entropy_is_a_sum_and_a_weight_sum(array: object) -> None:
    """2 * 1 + 1 * 0.5 + 4 * 2; nothing is divided here."""
    assert callable(array)
    loss, weight = cross_entropy(array(LOGPROBS), array(WEIGHTS))
    assert (float(loss), float(weight)) == (10.5, 4.5)
