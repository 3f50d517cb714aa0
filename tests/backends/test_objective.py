"""The objective is algebra that every framework runs alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jax import numpy as jnp

from tunix_rt.backends.objective import cross_entropy

LOGPROBS = np.array([[-0.5, -2.0, -1.0], [-4.0, 0.0, -8.0]], np.float32)
WEIGHTS = np.array([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    "array", [np.asarray, lambda a: torch.from_numpy(a), lambda a: jnp.asarray(a)], ids=["numpy", "torch", "jax"]
)
def test_cross_entropy_is_a_sum_and_a_weight_sum(array: Callable[..., Any]) -> None:
    """2 * 1 + 1 * 0.5 + 4 * 2; nothing is divided here."""
    loss, weight = cross_entropy(array(LOGPROBS), array(WEIGHTS))
    assert (float(loss), float(weight)) == (10.5, 4.5)
