"""Going on after an interruption, on either backend, with the same dropout; and what bfloat16 stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.lora.conftest import NAMES, Both, trained
from tunix_rt.backends.registry import create
from tunix_rt.backends.sampling import dropout_keys
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig


def test_going_on_is_exact_and_crosses_backends_with_dropout(
    both: Both, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """The masks are a function of the step, so a killed run meets those that it would have met."""
    base = bases["llama"]
    setup = setup_of(base, dropout=0.3)
    losses = {}
    for name, backend in both.items():
        losses[name], through = trained(backend, backend.load(base, setup), batch, 4, tmp_path / name / "4")
        _, half = trained(backend, backend.load(base, setup), batch, 2, tmp_path / name / "2")
        again, resumed = trained(backend, backend.restore(half, base, setup), batch, 2, tmp_path / name / "on")
        assert again == losses[name][2:]
        for file in ("adapter_model.safetensors", "optimizer.safetensors"):
            assert (through / file).read_bytes() == (resumed / file).read_bytes()
    np.testing.assert_allclose(losses["jax"], losses["torch"], rtol=1e-5, err_msg="the masks are the same")
    for name, other in (NAMES, NAMES[::-1]):
        on, _ = trained(
            both[other], both[other].restore(tmp_path / name / "2", base, setup), batch, 2, tmp_path / f"x{name}"
        )
        np.testing.assert_allclose(on, losses[name][2:], rtol=1e-5)
    without = trained(both["torch"], both["torch"].load(base, setup_of(base)), batch, 2, tmp_path / "without")[0]
    assert abs(without[1] / losses["torch"][1] - 1) > 1e-4, "nothing was left out"


def test_masks_are_even_and_differ_from_matrix_to_matrix() -> None:
    """As the hash is written down, in plain integers; and as both backends compute it."""
    import jax.numpy as jnp

    from tunix_rt.backends.jax.adapter import dropped as jax_dropped
    from tunix_rt.backends.torch.adapter import dropped as torch_dropped

    keys = dropout_keys(seed=3, step=5, rows=np.array([0, 7]), names=["a", "b"])
    assert keys.shape == (2, 2, 2)
    assert len({tuple(key) for key in keys.reshape(-1, 2).tolist()}) == 4
    share, kept = 0.25, []
    for key in keys.reshape(-1, 2):
        expected = np.array([_mixed(i, *key.tolist()) >= share * 2**32 for i in range(4000)])
        x = np.ones((1, 40, 100), np.float32)
        of_row = key[None]
        both = np.asarray(jax_dropped(jnp.asarray(x), of_row, share)), torch_dropped(torch.tensor(x), of_row, share)
        for found in both:
            np.testing.assert_allclose(np.asarray(found).reshape(-1), expected / (1 - share), rtol=1e-6)
        kept.append(expected)
        assert abs(expected.mean() - 0.75) < 0.03
    assert np.abs(np.corrcoef(kept) - np.eye(4)).max() < 0.06


def _mixed(i: int, first: int, second: int) -> int:
    i ^= first
    i = ((i ^ (i >> 16)) * 0x85EBCA6B) % 2**32 ^ second
    i = ((i ^ (i >> 13)) * 0xC2B2AE35) % 2**32
    return i ^ (i >> 16)


@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16_the_matrices_of_the_base_take_half_the_memory(
    name: Any, bases: dict[str, Path], setup_of: Any, batch: Batch, tmp_path: Path
) -> None:
    """They are kept as they multiply; norms, embeddings and the adapter stay float32."""
    base = bases["llama"]
    hardware = HardwareConfig(platform="cpu", threads=1)
    half = create(BackendConfig(name=name, precision="bfloat16"), hardware, tmp_path / "compiled")
    state = half.load(base, setup_of(base))
    if name == "torch":
        frozen, laid = state.model.weights, state.model.trained
        losses, _ = trained(half, state, batch, 3, tmp_path / "half")
        assert losses[-1] < losses[0]
    else:
        frozen, laid = state.frozen["layers"] | {"embedding": state.frozen["embedding"]}, state.params["layers"]
    halves = {key for key, value in frozen.items() if str(value.dtype).endswith("bfloat16")}
    assert halves == {key for key in frozen if "norm" not in key and "embed" not in key and "head" not in key}
    assert all(str(value.dtype).endswith("float32") for key, value in laid.items())
