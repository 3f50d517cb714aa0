"""What is sampled and learned is the same on both backends (at full size: the acceptance tier's `rl_parity`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.rollouts.conftest import Make
from tunix_rt.stages.train import setup_of
from tunix_rt.traces.rollout import Rollout, read_rollouts

pytestmark = pytest.mark.framework
STEPS = 2


def said(rollout: Rollout) -> tuple[Any, ...]:
    """All but the log-probabilities, which differ in their last digits."""
    return rollout.key, rollout.prompt, rollout.completion, rollout.ids, rollout.finish_reason, rollout.advantage


def test_rollouts_are_equal_and_gradients_to_a_ten_thousandth(trial: Make, tmp_path: Path) -> None:
    rollouts: dict[str, list[Rollout]] = {}
    norms: dict[str, list[float]] = {"torch": [], "jax": []}
    for name, found in norms.items():
        made = trial(f"backend={name}", "objective.rollout.batch_size=12", "hardware.local_batch_size=12")
        state = made.start()
        for step in range(1, STEPS + 1):
            update = made.source.batch(step, state)
            state, measured = made.engine.train_step(state, update.batch, 1e-3)
            found.append(float(made.engine.fetch(measured)["grad_norm"]))
            assert update.metrics["rollout/mismatch"] < 1e-4
        rollouts[name] = [r for file in sorted(made.folder.glob("*.jsonl")) for r in read_rollouts(file)]
        made.folder.rename(tmp_path / name)
    assert len(rollouts["jax"]) == STEPS * 3 * 4
    assert list(map(said, rollouts["jax"])) == list(map(said, rollouts["torch"]))
    assert {rollout.finish_reason for rollout in rollouts["jax"]} == {"stop", "length"}
    assert norms["jax"] == pytest.approx(norms["torch"], rel=1e-4)
    assert min(norms["torch"]) > 0.01


@pytest.mark.acceptance
def test_an_adapter_goes_on_learning_on_the_other_backend(trial: Make, tmp_path: Path) -> None:
    """With the divergence from the base, and Adam's moments: the second step is that of the first backend."""
    words = (
        "model/adapter=lora",
        "model.adapter.rank=4",
        "objective.kl_coefficient=0.1",
        "objective.rollout.updates=1",
    )
    norms: dict[str, float] = {}
    rollouts: dict[str, list[tuple[Any, ...]]] = {}
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ("torch", "jax"):
        made = trial(f"backend={name}", "objective.rollout.batch_size=12", "hardware.local_batch_size=12", *words)
        engine, config, base = made.engine, made.config, made.prepared.model_folder
        if name == "torch":
            state, _ = engine.train_step(made.start(), made.source.batch(1, made.start()).batch, 1e-2)
            engine.save(state, checkpoint).result()
        setup = setup_of(config.optimizer, config.training, config.model.adapter, base)
        state = engine.restore(checkpoint, base, setup)
        update = made.source.batch(2, state)
        assert update.metrics["rollout/kl"] > 0
        norms[name] = float(engine.fetch(engine.train_step(state, update.batch, 1e-2)[1])["grad_norm"])
        rollouts[name] = list(map(said, read_rollouts(made.folder / "step_00000002.jsonl")))
        made.folder.rename(tmp_path / name)
    assert rollouts["jax"] == rollouts["torch"]
    assert norms["jax"] == pytest.approx(norms["torch"], rel=1e-4)
    assert norms["torch"] > 0.001
