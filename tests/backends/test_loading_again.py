"""A process that loads a model, trains it and lets go of it, again and again, holds no more than the first time."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

from tests.backends.conftest import Traces
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.jax import step as jax_step
from tunix_rt.backends.registry import create
from tunix_rt.config.execution import BackendConfig, HardwareConfig


def held() -> tuple[int, int]:
    """Bytes of all arrays of jax, and of all tensors of torch."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if type(found) is torch.Tensor]
    return sum(array.nbytes for array in jax.live_arrays()), sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("name", ["jax", "torch"])
@pytest.mark.slow
def test_nothing_of_a_state_outlives_it(
    name: Any,
    small_llama: Path,
    traces: Traces,
    batch_of: Any,
    adamw: Callable[..., Any],
    decoding: Any,
    tmp_path: Path,
) -> None:
    """Prevents: weights, moments, copies of a save or a program each that a later load adds to."""
    hardware = HardwareConfig(platform="cpu", threads=1)
    backend = create(BackendConfig(name=name, precision="float32"), hardware, tmp_path / "compiled")
    batch, found = batch_of([traces[0:2]], 40), []
    for lap in range(3):
        state = backend.load(small_llama, TrainingSetup(adamw(), 1.0, 0))
        state, measured = backend.train_step(state, batch, 1e-2)
        backend.fetch(measured)
        (tmp_path / str(lap)).mkdir()
        backend.save(state, tmp_path / str(lap)).result()
        list(backend.generate(state, [np.array([5, 6], np.int32)], decoding(max_new_tokens=2), [0]))
        del state, measured
        found.append((held(), jax_step.gradients._cache_size(), jax_step.apply_gradients._cache_size()))
    assert found[1:] == found[:1] * 2
