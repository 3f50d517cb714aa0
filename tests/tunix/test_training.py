"""Tunix's models and train step against our jax backend, which others compare with `transformers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from tests.tunix.conftest import CONFIGS, GEMMA3, write
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import Backend, State, TrainingSetup
from tunix_rt.backends.tunix import step
from tunix_rt.batches.batch import Batch
from tunix_rt.errors import CheckpointError

Both = dict[str, Backend]
Arrays = dict[str, Any]


def relative(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def saved(backend: Backend, state: State, folder: Path) -> Path:
    folder.mkdir()
    backend.save(state, folder).result()
    return folder


def contents(folder: Path) -> Arrays:
    """Weights and moments."""
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def train(backend: Backend, state: State, batches: list[Batch], rate: float = 1e-2) -> tuple[State, list[float]]:
    """The state after training on these batches, and their losses."""
    measured = []
    for batch in batches:
        state, numbers = backend.train_step(state, batch, rate)
        measured.append(backend.fetch(numbers))
    assert all(numbers["finite"] for numbers in measured)
    return state, [float(n["loss_sum"]) / batch.divisor for n, batch in zip(measured, batches, strict=True)]


@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_one_step_on_packed_rows(
    name: str,
    models: dict[str, Path],
    both: Both,
    batch_at: Callable[..., Batch],
    setup: TrainingSetup,
    tmp_path: Path,
) -> None:
    """Log-probability of each target, loss, gradient (the first moments), update: tensor by tensor."""
    batch, before = batch_at(0), load_file(models[name] / "model.safetensors")
    logprobs, numbers, after = {}, {}, {}
    for each, backend in both.items():
        state = backend.load(models[name], setup)
        logprobs[each] = backend.fetch(backend.logprobs(state, batch))["logprobs"]
        state, measured = backend.train_step(state, batch, 1e-2)
        numbers[each] = backend.fetch(measured)
        after[each] = contents(saved(backend, state, tmp_path / each))
    assert batch.segments.max() == 2, "nothing is packed"
    assert not logprobs["tunix"][batch.weights == 0].any()
    np.testing.assert_allclose(logprobs["tunix"], logprobs["jax"], atol=2e-4)
    for key in ("loss_sum", "grad_norm"):
        assert numbers["tunix"][key] == pytest.approx(numbers["jax"][key], rel=1e-4), key
    assert numbers["jax"]["grad_norm"] > 2 * (setup.clip_norm or 0), "nothing was clipped"
    assert set(after["tunix"]) == set(after["jax"])
    assert after["tunix"]["count"] == 1
    for key, expected in after["jax"].items():
        found = after["tunix"][key]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if key in before:
            assert relative(found - before[key], expected - before[key]) < 2e-3, key
        elif key != "count":
            assert relative(found, expected) < 5e-4, key


def test_a_gemma_with_a_layer_that_sees_everything(both: Both, batch_at: Callable[..., Batch], tmp_path: Path) -> None:
    """The sixth has no window, another base, and divided positions; here two heads share a key and value head."""
    folder = write(tmp_path / "model", **GEMMA3 | {"num_hidden_layers": 6})
    found = {
        name: backend.fetch(backend.logprobs(backend.load(folder, None), batch_at(0)))["logprobs"]
        for name, backend in both.items()
    }
    np.testing.assert_allclose(found["tunix"], found["jax"], atol=2e-4)


@pytest.mark.slow
def test_micro_batches_are_summed_and_divided_once(
    llama: Path, both: Both, batch_at: Callable[..., Batch], setup: TrainingSetup
) -> None:
    """A curve over micro-batches of unequal weight; averages of averages would differ."""
    batches = [batch_at(step, pairs=2) for step in range(3)]
    first, second = batches[0].weights.reshape(2, -1).sum(axis=1)
    assert abs(first / second - 1) > 0.1
    _, expected = train(both["jax"], both["jax"].load(llama, setup), batches)
    both["tunix"].rows_at_once = 2
    _, found = train(both["tunix"], both["tunix"].load(llama, setup), batches)
    both["tunix"].rows_at_once = None
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_checkpoint_is_continued_bit_for_bit_and_by_the_other_backend(
    llama: Path, both: Both, batch_at: Callable[..., Batch], setup: TrainingSetup, tmp_path: Path
) -> None:
    jax, tunix = both["jax"], both["tunix"]
    batches = [batch_at(step) for step in range(6)]
    state, _ = train(tunix, tunix.load(llama, setup), batches[:3])
    middle = saved(tunix, state, tmp_path / "middle")
    state, expected = train(tunix, state, batches[3:])
    end = contents(saved(tunix, state, tmp_path / "end"))
    resumed, found = train(tunix, tunix.restore(middle, llama, setup), batches[3:])
    assert found == expected
    for key, value in contents(saved(tunix, resumed, tmp_path / "resumed")).items():
        np.testing.assert_array_equal(value, end[key], err_msg=key)
    taken = jax.restore(middle, llama, setup)
    for key, value in contents(saved(jax, taken, tmp_path / "taken")).items():
        np.testing.assert_array_equal(value, contents(middle)[key], err_msg=key)
    _, found = train(jax, taken, batches[3:])
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    _, found = train(tunix, tunix.restore(tmp_path / "taken", llama, setup), batches[3:])
    assert found == expected


@pytest.mark.slow
def test_gradient_checkpointing_changes_memory_only(
    llama: Path, both: Both, make: Callable[..., Backend], batch_at: Callable[..., Batch], setup: TrainingSetup
) -> None:
    """The same curve with one micro-batch and with two, from a program that computes each layer again for gradients."""
    batches = [batch_at(step, step + 1) for step in range(2)]
    checkpointing = make("tunix", gradient_checkpointing=True)
    checkpointing.rows_at_once = 2
    _, expected = train(both["tunix"], both["tunix"].load(llama, setup), batches)
    state, found = train(checkpointing, checkpointing.load(llama, setup), batches)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(checkpointing.fetch(checkpointing.logprobs(state, batches[1]))["logprobs"]).all()
    assert "remat" in program(state, batches[0])
    assert "remat" not in program(both["tunix"].load(llama, None), batches[0])


def program(state: State, batch: Batch) -> str:
    """The gradient of the loss, as jax writes it down."""
    graph, params = nnx.split(state.model)
    folded = step.divided(Fold.of(len(batch.tokens), 2).local(batch))
    loss = jax.grad(lambda params: step.loss(nnx.merge(graph, params), folded)[0], allow_int=True)
    return str(jax.make_jaxpr(loss)(params))


def test_the_rate_of_each_step_is_the_one_given(
    llama: Path, both: Both, batch_at: Callable[..., Batch], setup: TrainingSetup, tmp_path: Path
) -> None:
    tunix, before = both["tunix"], load_file(llama / "model.safetensors")
    state = tunix.load(llama, replace(setup, optimizer=replace(setup.optimizer, weight_decay=0.0)))
    state, _ = train(tunix, state, [batch_at(0)], rate=0.0)
    still = contents(saved(tunix, state, tmp_path / "still"))
    state, _ = train(tunix, state, [batch_at(1)], rate=1e-3)
    moved = contents(saved(tunix, state, tmp_path / "moved"))
    for key, value in before.items():
        np.testing.assert_array_equal(still[key], value, err_msg=key)
        assert 0 < np.abs(moved[key] - value).max() < 3e-3, key


def test_a_step_that_is_not_finite_changes_nothing(
    llama: Path, both: Both, batch_at: Callable[..., Batch], setup: TrainingSetup, tmp_path: Path
) -> None:
    tunix, batch = both["tunix"], batch_at(0)
    state, _ = train(tunix, tunix.load(llama, setup), [batch])
    before = contents(saved(tunix, state, tmp_path / "before"))
    broken = replace(batch, weights=np.where(batch.weights > 0, np.float32("inf"), 0).astype(np.float32))
    state, measured = tunix.train_step(state, broken, 1e-2)
    assert not tunix.fetch(measured)["finite"]
    for key, value in contents(saved(tunix, state, tmp_path / "after")).items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_signed_weights_and_a_declared_divisor(
    llama: Path, both: Both, batch_at: Callable[..., Batch], setup: TrainingSetup
) -> None:
    """What an objective makes of log-probabilities arrives as such weights."""
    batch, numbers = batch_at(0), {}
    sign = np.where(batch.segments == 1, -0.5, 1).astype(np.float32)
    signed = replace(batch, weights=batch.weights * sign, divisor=7.0)
    for name, backend in both.items():
        _, measured = backend.train_step(backend.load(llama, setup), signed, 1e-2)
        numbers[name] = backend.fetch(measured)
    for key in ("loss_sum", "grad_norm"):
        assert numbers["tunix"][key] == pytest.approx(numbers["jax"][key], rel=1e-4), key


def test_a_batch_without_targets_has_no_gradient(
    llama: Path, both: Both, batch_at: Callable[..., Batch], setup: TrainingSetup
) -> None:
    tunix, batch = both["tunix"], batch_at(0)
    _, measured = tunix.train_step(tunix.load(llama, setup), replace(batch, weights=batch.weights * 0), 1e-2)
    numbers = tunix.fetch(measured)
    assert (numbers["loss_sum"], numbers["grad_norm"], numbers["finite"]) == (0, 0, True)


def test_half_precision_computes_in_it_and_keeps_float32_weights(
    models: dict[str, Path], both: Both, make: Callable[..., Backend], batch_at: Callable[..., Batch], tmp_path: Path
) -> None:
    """Near the float32 log-probabilities, not equal to them."""
    half, folder, batch = make("tunix", "bfloat16"), models["qwen2"], batch_at(0)
    state = half.load(folder, None)
    found, exact = (
        backend.fetch(backend.logprobs(loaded, batch))["logprobs"].sum()
        for backend, loaded in ((half, state), (both["jax"], both["jax"].load(folder, None)))
    )
    assert 1e-5 < abs(found / exact - 1) < 0.05
    before = load_file(folder / "model.safetensors")
    for key, value in load_file(saved(half, state, tmp_path / "half") / "model.safetensors").items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_moments_of_another_model_are_refused(
    models: dict[str, Path], both: Both, setup: TrainingSetup, tmp_path: Path
) -> None:
    tunix = both["tunix"]
    folder = saved(tunix, tunix.load(models["llama"], setup), tmp_path / "llama")
    other = saved(tunix, tunix.load(models["qwen2"], setup), tmp_path / "qwen2")
    (folder / "optimizer.safetensors").replace(other / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)does not fit the model:\n.*layers.1.self_attn.q_proj.weight: "):
        tunix.restore(other, models["qwen2"], setup)
    (other / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match="take another checkpoint"):
        tunix.restore(other, models["qwen2"], setup)
