"""The loss is algebra that every framework runs alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jax import numpy as jnp

from tunix_rt.backends.objective import weighted_loss

LOGPROBS = np.array([[-0.5, -2.0, -1.0], [-4.0, 0.0, -8.0]], np.float32)
WEIGHTS = np.array([[0.0, 1.0, 0.5], [-2.0, 1.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    "array", [np.asarray, lambda a: torch.from_numpy(a), lambda a: jnp.asarray(a)], ids=["numpy", "torch", "jax"]
)
def test_the_loss_is_a_sum_that_nothing_divides(array: Callable[..., Any]) -> None:
    """2 * 1 + 1 * 0.5 - 4 * 2."""
    assert float(weighted_loss(array(LOGPROBS), array(WEIGHTS))) == -5.5
