"""The same rollouts on both backends: what is sampled, judged and weighed is equal byte for byte, step after step."""

from __future__ import annotations

import pytest

from tests.rollouts.conftest import Make
from tunix_rt.traces.rollout import Rollout, read_rollouts, rollout_steps, rollouts_file

LORA = ("model/adapter=lora", "model.adapter.rank=2", "objective.kl_coefficient=0.1", "objective.rollout.updates=3")


def compared(rollout: Rollout) -> object:
    """All but log-probabilities, which agree to the rounding of float32."""
    said = (rollout.id, rollout.sample, rollout.completion, rollout.finish_reason, rollout.ids)
    return said, rollout.reward, rollout.advantage


@pytest.mark.acceptance
@pytest.mark.parametrize(("steps", "words"), [(15, ()), (9, LORA)])
def test_rollouts_are_equal_and_gradient_norms_agree(steps: int, words: tuple[str, ...], trial: Make) -> None:
    """At a rate at which every update changes what is sampled next."""
    sampled, norms = {}, {}
    for backend in ("torch", "jax"):
        made = trial(f"backend={backend}", f"training.max_steps={steps}", "schedule.warmup_steps=0", *words)
        state, norms[backend] = made.start(), []
        for step in range(1, steps + 1):
            update = made.source.batch(step, state)
            state, measured = made.engine.train_step(state, update.batch, 3e-3)
            norms[backend].append(float(made.engine.fetch(measured)["grad_norm"]))
        files = [rollouts_file(made.folder, step) for step in rollout_steps(made.folder)]
        sampled[backend] = [[compared(rollout) for rollout in read_rollouts(file)] for file in files]
        for file in files:
            file.unlink()
    assert sampled["jax"] == sampled["torch"] and len(sampled["jax"]) == (3 if words else 15)
    assert norms["jax"] == pytest.approx(norms["torch"], rel=1e-4) and min(norms["jax"]) > 0
